package values_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// cannotKeep sets a value in both ways, and expects each commit to fail with
// ErrBadValue and that text.
func cannotKeep[T any](t *testing.T, value T, want string) {
	t.Helper()
	key := sojourn.NewKey[T]("cart")
	for way, set := range map[string]func(*sojourn.Session){
		"Key.Set":     func(s *sojourn.Session) { key.Set(s, value) },
		"Key.Update":  func(s *sojourn.Session) { key.Update(s, func(T) T { return value }) },
		"Session.Set": func(s *sojourn.Session) { s.Set("cart", value) },
	} {
		if way == "Session.Set" && reflect.TypeFor[T]().Kind() == reflect.Interface {
			continue // there it counts as what the interface holds
		}
		s := newSite(t)
		resp := serve(s, sitetest.NewBrowser(), func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			set(session)
			err := session.Save(r.Context())
			if !errors.Is(err, sojourn.ErrBadValue) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"cart"`) {
				t.Errorf("%s of a %T: %.300v, want %q", way, value, err, want)
			}
			if err != nil && (len(err.Error()) > 1000 || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("%s of a %T: %.2000v", way, value, err)
			}
		})
		wantStatus(t, resp, http.StatusInternalServerError)
	}
}

type (
	loop   struct{ Next *loop }
	nest   []nest
	web    map[string]web
	chain  *chain
	holder struct {
		Name string
		Any  any
	}
)

func TestAValueThatContainsItselfFailsTheCommit(t *testing.T) {
	r := &loop{}
	r.Next = r
	cannotKeep(t, r, "contains itself")
	cannotKeep(t, *r, "cart.Next.Next")

	n := nest{nil}
	n[0] = n
	cannotKeep(t, n, "cart[0][0]")

	w := web{}
	w["w"] = w
	cannotKeep(t, w, "cart.w.w")

	m := map[string]any{"password": "hunter2"}
	m["m"] = []any{m}
	cannotKeep(t, m, "cart.m[0].m[0]")
	cannotKeep[any](t, m, "contains itself")

	h := &holder{Name: "hunter2"}
	h.Any = []any{map[string]*any{"x": &h.Any}}
	cannotKeep(t, h, "contains itself")

	var a any
	a = &a
	cannotKeep(t, a, "contains itself")
	cannotKeep(t, holder{Any: &a}, "cart.Any: it is nested deeper")

	long := []any{strings.Repeat("hunter2", 100_000), nil}
	long[1] = long
	cannotKeep(t, long, "contains itself")
	doubled := any(strings.Repeat("hunter2", 1000))
	for range 100 {
		doubled = []any{doubled, doubled}
	}
	cannotKeep(t, doubled, "contains itself")
}

func TestTheNestingBoundIsTheSameForWritingAndReading(t *testing.T) {
	lists := func(n int) (v nest) {
		v = nest{}
		for range n - 1 {
			v = nest{v}
		}
		return v
	}
	untyped := func(n int) any {
		v := any([]any{})
		for i := range n - 1 {
			if i%2 == 0 {
				v = map[string]any{"a": v}
			} else {
				v = []any{v}
			}
		}
		return v
	}
	structs := func(n int) (v *list) {
		for range n {
			v = &list{Next: v}
		}
		return v
	}
	same(t, lists(10_000))
	same(t, untyped(10_000))
	same(t, structs(10_000))
	same(t, holder{Any: untyped(9_999)})
	cannotKeep(t, lists(10_001), "nested deeper than 10000 levels")
	cannotKeep(t, lists(70_000), "nested deeper")
	cannotKeep(t, untyped(10_001), "nested deeper")
	cannotKeep(t, structs(10_001), "nested deeper")
	cannotKeep(t, holder{Any: untyped(10_000)}, "cart.Any")

	raw := func(n int) cbor.RawMessage {
		return append(bytes.Repeat([]byte{0x81}, n-1), 0x80)
	}
	same(t, raw(10_000))
	same(t, []cbor.RawMessage{raw(9_999)})
	cannotKeep(t, raw(10_001), "cannot be read")
	cannotKeep(t, []cbor.RawMessage{raw(10_000)}, "nested deeper")
}

func TestTheErrorNamesThePathToWhatCannotBeKept(t *testing.T) {
	type item struct {
		Price any `json:"price"`
	}
	type order struct {
		Items []item `cbor:"items"`
		Extra map[string]any
	}
	items := []item{{1}, {2}, {3}, {func() {}}}
	cannotKeep(t, order{Items: items}, "cart.items[3].price: func() cannot be kept")
	cannotKeep(t, order{Extra: map[string]any{"gift": map[string]any{"to": []any{1, make(chan int)}}}}, "cart.Extra.gift.to[1]: chan int")
	cannotKeep(t, map[string]any{"qty": map[int]int{1: 2}}, "cart.qty[…]: a map in an interface needs keys that are strings")
	cannotKeep(t, map[string]any{"at": time.Time{}.AddDate(-2, 0, 0), "b": "hunter2"}, "cart.at: a time before")
	cannotKeep(t, map[string]any{"hunter2 is a secret": func() {}}, "cart[…]: func()")
	cannotKeep(t, map[int]any{4711: func() {}}, "cart[…]: func()")
}

func TestInAnInterfaceOnlyWhatComesBackIsKept(t *testing.T) {
	cannotKeep(t, []any{struct{ A int }{1}}, "cart[0]: a struct")
	cannotKeep[any](t, struct{ A int }{1}, "a struct")
	cannotKeep[any](t, &account{}, "a struct")
	cannotKeep(t, []any{[]account{{}}}, "cart[0][0]: a struct")
	cannotKeep(t, map[string]any{"ip": netip.MustParseAddr("::1")}, "cart.ip: a netip.Addr in an interface would come back without its type")
	cannotKeep(t, map[string]any{"u": &url.URL{}}, "cart.u: a url.URL")
	cannotKeep(t, []any{errors.New("hunter2")}, "cart[0]: a struct")
	cannotKeep(t, []any{complex(1, 2)}, "cart[0]")
	cannotKeep(t, []any{cbor.Tag{Number: 0, Content: 1}}, "cart[0]")
	cannotKeep(t, []any{cbor.RawMessage{0xff}}, "cart[0]")
	cannotKeep(t, []any{map[any]any{1: 2}}, "keys that are strings")
	cannotKeep(t, []any{map[float64]any{math.NaN(): 2}}, "keys that are strings")
	cannotKeep(t, []any{map[netip.Addr]any{{}: 2}}, "keys that are strings")
	cannotKeep(t, []any{map[any]any{"a": 1, json.Number("a"): 2}}, "keys that are strings")

	type color string
	number, text := 7, "seven"
	for _, test := range []struct{ value, want any }{
		{time.Second, int64(time.Second)},
		{color("red"), "red"},
		{json.Number("1.50"), "1.50"},
		{json.RawMessage(`{}`), []byte(`{}`)},
		{float32(0.1), float64(float32(0.1))},
		{&number, int64(7)},
		{[]*string{&text, nil}, []any{"seven", nil}},
		{[]color(nil), nil},
		{(*account)(nil), nil},
		{map[string]int(nil), nil},
		{[]int{}, []any{}},
		{map[string]int{}, map[string]any{}},
		{[2]byte{1, 2}, []byte{1, 2}},
		{[2]int{1, 2}, []any{int64(1), int64(2)}},
		{map[color]any{"red": 1}, map[string]any{"red": int64(1)}},
		{map[any]any{"a": uint8(1)}, map[string]any{"a": int64(1)}},
		{uint64(math.MaxInt64), int64(math.MaxInt64)},
		{uint64(math.MaxInt64 + 1), *new(big.Int).SetUint64(math.MaxInt64 + 1)},
		{big.NewInt(5), int64(5)},
		{time.Time{}, time.Time{}},
		{math.Copysign(0, -1), math.Copysign(0, -1)},
	} {
		for _, kept := range []struct{ value, want any }{test, {map[string]any{"v": test.value}, map[string]any{"v": test.want}}} {
			got, err := roundTrip(t, kept.value)
			if err != nil || !reflect.DeepEqual(got, kept.want) {
				t.Errorf("%T %v came back as %#v, %v, want %#v", kept.value, kept.value, got, err, kept.want)
			}
		}
	}
}

// Embedded types with methods of their own.
type (
	withTime struct{ time.Time }
	nullTime struct {
		time.Time
		Valid bool
	}
	addr struct {
		netip.Addr
		Label string
	}
	link struct {
		*url.URL
		Title string
	}
	onlyLink struct{ *url.URL }
	until    struct {
		time.Time
		Until *time.Time
	}
	raw struct {
		cbor.RawMessage
		N int
	}
	deeper struct {
		nullTime
		N int
	}
	twoForms struct {
		time.Time
		netip.Addr
	}
	bigNumber struct {
		big.Float
		Label string
	}
	bigInt struct {
		*big.Int
		Label string
	}
	locked struct {
		sync.Mutex
		N int
	}
	noted struct { // has a form of its own, although what it embeds has one
		time.Time
		Note string
	}
	hidden struct{ Secret string }
	secret struct {
		*hidden
		Name string
	}
	taggedSecret struct {
		*hidden `cbor:"hidden"`
		Name    string
	}
	openSecret struct {
		hidden
		Name string
	}
	Base struct {
		ID   int
		Name string
	}
	derived struct {
		*Base
		Extra string
	}
	shadowing struct {
		Base
		Name string
	}
	opposed struct {
		A int `cbor:"n"`
		B int `json:"n"`
	}
	opposedInts struct {
		A int `cbor:"1,keyasint"`
		B int `cbor:"01,keyasint"`
	}
	noInt struct {
		A int `cbor:"one,keyasint"`
	}
	selfish struct {
		*selfish //nolint:unused // NewKey sees it
		N        int
	}
	Selfish struct {
		*Selfish
		N int
	}
	Nothing       struct{}
	embedsNothing struct {
		*Nothing
		N int
	}
	arrayBase struct {
		_ struct{} `cbor:",toarray"`
		*Base
		N int
	}
	readsOnly      struct{ N int }
	bytesReader    []byte
	generic[T any] struct {
		Value T
		Next  *generic[T]
	}
)

func (n noted) MarshalBinary() ([]byte, error) {
	b, err := n.Time.MarshalBinary()
	return append([]byte{byte(len(b))}, append(b, n.Note...)...), err
}

func (n *noted) UnmarshalBinary(b []byte) error {
	if len(b) == 0 || len(b) <= int(b[0]) {
		return errors.New("short")
	}
	n.Note = string(b[1+b[0]:])
	return n.Time.UnmarshalBinary(b[1 : 1+b[0]])
}

func (*readsOnly) UnmarshalCBOR([]byte) error     { return nil }
func (*bytesReader) UnmarshalBinary([]byte) error { return nil }

// never checks that NewKey refuses a type whose values would not read back equal.
func never[T any](t *testing.T, want string) {
	t.Helper()
	for what, f := range map[string]func(){
		"T":          func() { sojourn.NewKey[T]("n") },
		"[]T":        func() { sojourn.NewKey[[]T]("n") },
		"generic[T]": func() { sojourn.NewKey[map[string]generic[*T]]("n") },
	} {
		if text := sitetest.Panics(f); !strings.Contains(text, want) {
			t.Errorf("NewKey of %s, a %v, panics with %q, want %q", what, reflect.TypeFor[T](), text, want)
		}
	}
	// The dictionary only gets the type with the value.
	s := newSite(t)
	serve(s, sitetest.NewBrowser(), func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		session.Set("n", []T{*new(T)})
		if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrBadValue) {
			t.Errorf("Set of a %T: %v", *new(T), err)
		}
	})
}

func TestPromotedMethodsThatLoseTheFieldsBesideThemAreRefused(t *testing.T) {
	never[nullTime](t, ".Valid: the method that writes")
	never[addr](t, ".Label")
	never[link](t, "cannot be read by its own method")
	never[onlyLink](t, "cannot be read by its own method")
	never[until](t, ".Until")
	never[raw](t, ".N")
	never[deeper](t, ".N")
	never[twoForms](t, "make it a named field")
	never[bigNumber](t, "has no exported field")
	never[bigInt](t, "make it a named field")
	never[locked](t, "has no exported field")
	never[struct {
		self
		N int
	}](t, "behind an interface with methods")

	same(t, withTime{time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)})
	same(t, noted{time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), "a note"})
	same(t, noted{})
	same(t, sql.NullTime{Time: time.Unix(1, 0).UTC(), Valid: true})
	same(t, sql.Null[netip.Addr]{V: netip.MustParseAddr("::1"), Valid: true})
}

// A sibling that a made-up value cannot fill shows in the value.
type timeAndAddr struct {
	time.Time
	From netip.Addr
}

func TestWhatAPromotedMethodLosesFailsTheCommitAtTheLatest(t *testing.T) {
	same(t, timeAndAddr{Time: time.Unix(0, 0).UTC()})
	cannotKeep(t, timeAndAddr{From: netip.MustParseAddr("::1")}, "cart.From: the method that writes")
	cannotKeep(t, []timeAndAddr{{From: netip.MustParseAddr("::1")}}, "cart[0].From")
}

func TestStructsOfWhichAFieldWouldBeLostAreRefused(t *testing.T) {
	never[secret](t, "not exported and could not be set")
	never[taggedSecret](t, "not exported and could not be set")
	never[selfish](t, "not exported")
	never[Selfish](t, "embeds itself")
	never[shadowing](t, "two fields of the name Name")
	never[opposed](t, "two fields of the name n")
	never[opposedInts](t, "two fields of the name")
	never[noInt](t, `"one" is no int`)
	never[embedsNothing](t, "would come back as nil")
	never[arrayBase](t, "in an array")
	never[readsOnly](t, "no cbor.Marshaler")
	never[bytesReader](t, "no encoding.BinaryMarshaler")
	never[cbor.Tag](t, "cbor.Tag")
	never[map[*int]string](t, "another pointer")
	never[map[[2]*int]string](t, "another pointer")
	never[big.Rat](t, "no exported field")
	never[time.Location](t, "no exported field")
	never[atomic.Int64](t, "no exported field")
	never[reflect.Value](t, "no exported field")
	never[chain](t, "a pointer to itself")

	same(t, openSecret{hidden{"x"}, "y"})
	same(t, derived{})
	same(t, derived{Base: &Base{}})
	same(t, derived{Base: &Base{1, "x"}, Extra: "y"})
	same(t, generic[*generic[string]]{Value: &generic[string]{Value: "x"}, Next: &generic[*generic[string]]{}})
	type guarded struct {
		mu sync.Mutex // is not kept, and need not be
		N  int
	}
	g := &guarded{N: 1}
	g.mu.Lock()
	if got, err := roundTrip(t, g); err != nil || got.N != 1 || !got.mu.TryLock() {
		t.Errorf("%v, %v", got.N, err)
	}
}

func TestFieldsThatAreLeftOutWhileEmptyComeBackAsTheyWere(t *testing.T) {
	type options struct {
		S    string          `cbor:"s,omitempty"`
		N    float64         `json:"n,omitempty"`
		L    []string        `cbor:",omitempty"`
		M    map[string]int  `cbor:",omitzero"`
		P    *int            `cbor:",omitempty"`
		T    time.Time       `cbor:",omitzero"`
		B    [2]int          `cbor:",omitempty"`
		Any  any             `cbor:",omitempty"`
		In   struct{ X int } `cbor:",omitempty"`
		Gone string          `cbor:"-"`
		Kept string          `cbor:"-,"`
		Int  int             `cbor:"-5,keyasint,omitempty"`
	}
	same(t, options{})
	same(t, options{S: "s", N: 1, L: []string{"l"}, M: map[string]int{"m": 1}, P: new(int), T: time.Unix(1, 0).UTC(), Any: true, Kept: "k", Int: 7})
	same(t, options{L: []string{}, M: map[string]int{}, P: new(int), Any: "", In: struct{ X int }{1}, B: [2]int{0, 1}})
	if got, err := roundTrip(t, options{N: math.Copysign(0, -1), Gone: "x"}); err != nil || !math.Signbit(got.N) || got.Gone != "" {
		t.Errorf("%+v, %v", got, err)
	}
	type optionalBase struct {
		X int `cbor:"x,omitempty"`
	}
	type Optional struct{ optionalBase }
	same(t, struct{ *Optional }{&Optional{}})
	same(t, struct{ *Optional }{})
	same(t, struct {
		_ struct{} `cbor:",toarray"`
		A int      `cbor:",omitempty"`
		B []string
		Base
	}{B: []string{}})
}

func TestAPointerToNilFailsTheCommit(t *testing.T) {
	var none *int
	cannotKeep(t, &none, "a pointer to a nil *int")
	cannotKeep(t, new([]string), "a pointer to a nil []string")
	cannotKeep(t, new([]byte), "a pointer to a nil []uint8")
	cannotKeep(t, new(map[string]int), "a pointer to a nil map")
	cannotKeep(t, new(any), "a pointer to a nil interface")
	cannotKeep(t, struct{ P *[]int }{new([]int)}, "cart.P")
	cannotKeep(t, &cbor.RawMessage{0xf6}, "that is null")
	pointed := any(none)
	cannotKeep(t, &pointed, "a pointer to a nil *int")

	number := new(int)
	same(t, &number)
	same(t, &[]string{})
	same(t, new(time.Time))
	same(t, []*time.Time{nil, new(time.Time)})
}

func TestMapKeysComeBackEqualOrFailTheCommit(t *testing.T) {
	same(t, map[bool]int{true: 1, false: 0})
	same(t, map[uint64]int{math.MaxUint64: 1})
	same(t, map[float64]int{0.1: 1, math.Inf(1): 2})
	same(t, map[[2]string]int{{"a", "b"}: 1})
	same(t, map[[16]byte]int{{1}: 1})
	same(t, map[Base]int{{1, "a"}: 1, {1, "b"}: 2})
	same(t, map[netip.Addr]int{netip.MustParseAddr("fe80::1%eth0"): 1})
	same(t, map[time.Time]int{time.Unix(5, 6).UTC(): 1})
	same(t, map[any]any{"a": int64(1), int64(1): "a", 1.5: nil, true: []any{}})
	cannotKeep(t, map[float64]int{math.NaN(): 1}, "a key, a float64, would come back as another one")
	cannotKeep(t, map[float64]int{math.NaN(): 1, math.Log(-1): 2}, "another one")
	cannotKeep(t, map[[1]float32]int{{float32(math.NaN())}: 1}, "another one")
	cannotKeep(t, map[any]int{1: 1}, "a key, a int")
	cannotKeep(t, map[any]int{uint64(1): 1}, "a key, a uint64")
	cannotKeep(t, map[any]int{float32(0.1): 1}, "a key, a float32")
	cannotKeep(t, map[any]int{[1]string{"a"}: 1}, "a key, a [1]string")
	cannotKeep(t, map[any]int{Base{}: 1}, "a struct")
	cannotKeep(t, map[time.Time]int{time.Date(2026, 1, 1, 0, 0, 0, 0, time.FixedZone("x", 3600)): 1}, "a key, a time.Time")
	type masked struct {
		A int
		b int
	}
	same(t, map[masked]int{{A: 1}: 1})
	cannotKeep(t, map[masked]int{{1, 2}: 1, {1, 3}: 2}, "another one")
}

func TestTimesOfAllZonesAndYearsKeepTheirInstantOrFailTheCommit(t *testing.T) {
	amsterdam, err := time.LoadLocation("Europe/Amsterdam")
	if err != nil {
		t.Fatal(err)
	}
	birthday := time.Date(1935, 4, 30, 0, 0, 0, 0, amsterdam)
	if _, offset := birthday.Zone(); offset%60 == 0 {
		t.Fatalf("the offset is %d", offset) // 00:19:32 until 1937
	}
	for _, value := range []time.Time{
		birthday,
		time.Date(1935, 4, 30, 0, 0, 0, 7, time.FixedZone("", -1)),
		time.Date(2026, 1, 1, 0, 0, 0, 0, time.FixedZone("", 23*3600+59*60)),
		time.Date(2026, 1, 1, 0, 0, 0, 0, time.FixedZone("", -24*3600)),
		time.Date(2026, 1, 1, 0, 0, 0, 0, time.FixedZone("", 100*3600)),
		time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(-1, 12, 31, 23, 0, 0, 0, time.FixedZone("", -3600)),
		time.Date(10000, 1, 1, 0, 30, 0, 0, time.FixedZone("", 3600)),
		time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC),
		time.Time{}.In(amsterdam),
		time.Time{}.In(time.FixedZone("", 3600)),
	} {
		got, err := roundTrip(t, value)
		if err != nil || !got.Equal(value) {
			t.Errorf("%v came back as %v, %v", value, got, err)
		}
		untyped, err := roundTrip[any](t, map[string]any{"t": &value})
		if err != nil || !untyped.(map[string]any)["t"].(time.Time).Equal(value) {
			t.Errorf("%v in an interface came back as %v, %v", value, untyped, err)
		}
	}
	for _, value := range []time.Time{
		time.Date(-1, 12, 31, 23, 59, 59, 0, time.UTC),
		time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(0, 1, 1, 0, 0, 0, 0, time.FixedZone("", 3600)),
		time.Unix(math.MaxInt64, 0), time.Unix(math.MinInt64, 0), time.Unix(1<<60, 0), time.Unix(-1<<60, 0),
	} {
		cannotKeep(t, value, "a time before the year 0 or after 9999")
		cannotKeep(t, struct{ Born []*time.Time }{[]*time.Time{&value}}, "cart.Born[0]: a time")
	}
}

// fussy's methods behave as its value says.
type fussy struct{ Say string }

func (f fussy) MarshalBinary() ([]byte, error) {
	switch f.Say {
	case "panic to write":
		panic("hunter2")
	case "fail to write":
		return nil, errors.New("hunter2")
	}
	return []byte(f.Say), nil
}

func (f *fussy) UnmarshalBinary(b []byte) error {
	switch f.Say = string(b); f.Say {
	case "panic to read":
		panic(errors.New("hunter2"))
	case "fail to read":
		return errors.New("hunter2")
	}
	return nil
}

// notCBOR writes what is no item.
type notCBOR struct{ Say []byte }

func (f notCBOR) MarshalCBOR() ([]byte, error)  { return f.Say, nil }
func (f *notCBOR) UnmarshalCBOR(b []byte) error { f.Say = bytes.Clone(b); return nil }

func TestAValueThatItsOwnMethodsCannotWriteAndReadFailsTheCommit(t *testing.T) {
	same(t, fussy{"fine"})
	cannotKeep(t, fussy{"panic to write"}, "cannot be written by its own method (panic with a string)")
	cannotKeep(t, fussy{"fail to write"}, "cannot be written by its own method (*errors.errorString)")
	cannotKeep(t, fussy{"panic to read"}, "cannot be read by its own method (panic with a *errors.errorString)")
	cannotKeep(t, []*fussy{{"fail to read"}}, "cart[0]: values_test.fussy cannot be read by its own method (*errors.errorString)")
	same(t, notCBOR{[]byte{0x01}})
	for _, say := range [][]byte{nil, {0xff}, {0x01, 0x01}, {0x82, 0x01}, {0x9f, 0xff}} {
		cannotKeep(t, notCBOR{say}, "cannot be read")
		cannotKeep(t, []*notCBOR{{say}}, "cart[0]")
	}
}

// jumpy is a panicking codec.
type jumpy struct{}

func (jumpy) Encode(s string) ([]byte, error) {
	if s == "panic to write" {
		panic("hunter2")
	}
	return []byte(s), nil
}

func (jumpy) Decode(b []byte) (string, error) {
	if string(b) == "panic to read" {
		return "half", func() error { panic(errors.New("hunter2")) }()
	}
	return string(b), nil
}

func TestAPanicOfACodecIsABadValue(t *testing.T) {
	key := sojourn.NewKeyCodec("word", sojourn.Codec[string](jumpy{}))
	s := newSite(t)
	for _, change := range []func(*sojourn.Session){
		func(session *sojourn.Session) { key.Set(session, "panic to write") },
		func(session *sojourn.Session) { key.Update(session, func(string) string { return "panic to write" }) },
		func(session *sojourn.Session) { key.Update(session, func(string) string { return "panic to read" }) },
	} {
		resp := serve(s, sitetest.NewBrowser(), func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			change(session)
			if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrBadValue) || !strings.Contains(err.Error(), `"word"`) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("Save: %v", err)
			}
		})
		wantStatus(t, resp, http.StatusInternalServerError)
	}
	v := sitetest.NewBrowser()
	visit(t, s, v, func(session *sojourn.Session) { key.Set(session, "panic to read") })
	visit(t, s, v, func(session *sojourn.Session) {
		if got, err := key.Lookup(session); got != "" || !errors.Is(err, sojourn.ErrBadValue) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Lookup: %q, %v", got, err)
		}
		if got := key.Get(session); got != "" {
			t.Errorf("Get: %q", got)
		}
		if got, ok := key.Pop(session); ok {
			t.Errorf("Pop: %q", got)
		}
		if got := key.Update(session, func(old string) string { return old + "new" }); got != "new" {
			t.Errorf("Update: %q", got)
		}
	})
}

func TestTheDictionaryKeepsAValueInTheFormOfItsType(t *testing.T) {
	s := newSite(t)
	v := sitetest.NewBrowser()
	since := time.Date(1935, 4, 30, 0, 0, 0, 0, time.UTC)
	visit(t, s, v, func(session *sojourn.Session) {
		session.Set("account", &account{Name: "anna", Since: since})
		session.Set("qty", map[int]int{1: 2})
		session.Set("ip", netip.MustParseAddr("::1"))
		session.Set("nil", nil)
	})
	visit(t, s, v, func(session *sojourn.Session) {
		var a account
		var qty map[int]int
		var ip netip.Addr
		var none any = 1
		if err := errors.Join(session.Get("account", &a), session.Get("qty", &qty), session.Get("ip", &ip), session.Get("nil", &none)); err != nil {
			t.Fatal(err)
		}
		if a.Name != "anna" || !a.Since.Equal(since) || qty[1] != 2 || ip != netip.MustParseAddr("::1") || none != nil {
			t.Errorf("%+v, %v, %v, %v", a, qty, ip, none)
		}
		var wrong link
		if err := session.Get("ip", &wrong); !errors.Is(err, sojourn.ErrBadValue) {
			t.Errorf("into a type whose own method panics: %v", err)
		}
	})
}
