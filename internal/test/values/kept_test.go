package values_test

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// same keeps a value and fails if another one is read back.
func same[T any](t *testing.T, value T) {
	t.Helper()
	got, err := roundTrip(t, value)
	if err != nil || !reflect.DeepEqual(got, value) {
		t.Errorf("%T %.200s came back as %.200s, %v", value, fmt.Sprintf("%#v", value), fmt.Sprintf("%#v", got), err)
	}
}

type account struct {
	Name    string
	Age     int
	Balance float64
	Tags    []string
	Notes   map[string]int
	Parent  *account
	Raw     []byte
	Since   time.Time
}

// Types had to be registered, as reported in alexedwards/scs#175, #176 and #211.
func TestValuesComeBackAsTheyWere(t *testing.T) {
	same(t, true)
	same(t, int8(-128))
	same(t, math.MinInt64)
	same(t, uint64(math.MaxUint64))
	same(t, float32(1.5))
	same(t, math.MaxFloat64)
	same(t, math.Inf(-1))
	same(t, "")
	same(t, "grüezi 👋")
	same(t, "\xff\xfe not UTF-8")
	same(t, map[string]int{"\xff": 1})
	same(t, []byte{0, 255})
	same(t, []byte{})
	same(t, []byte(nil))
	same(t, [3]byte{1, 2, 3})
	same(t, []string{"a", "", "c"})
	same(t, []string{})
	same(t, []string(nil))
	same(t, map[string]string{})
	same(t, map[string]string(nil))
	same(t, map[int][]string{-1: {"a"}, 1: nil})
	same(t, (*int)(nil))
	same(t, new(int))
	same(t, []*int{nil, new(int)})
	same(t, struct{}{})
	same(t, account{})
	same(t, account{
		Name: "anna", Age: -1, Balance: 0.1, Tags: []string{"x"}, Notes: map[string]int{"n": 1},
		Parent: &account{Name: "eva"}, Raw: []byte{1}, Since: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	})
	same(t, netip.MustParseAddr("2001:db8::1"))
	same(t, url.URL{Scheme: "https", Host: "example.com", Path: "/ä"})
	same(t, time.Duration(17))
	same(t, new(big.Int).Lsh(big.NewInt(1), 100))
	same(t, *big.NewInt(-7))
	same(t, list{1, &list{2, nil}})
	same(t, tree{"a": {"b": nil}})
	same(t, stamp{17})
	same(t, []stamp{{17}})
	same(t, map[string]stamp{"a": {17}})
}

// stamp has no exported field, and its own form, by pointer.
type stamp struct{ n byte }

func (s *stamp) MarshalBinary() ([]byte, error) { return []byte{s.n}, nil }
func (s *stamp) UnmarshalBinary(b []byte) error { s.n = b[0]; return nil }

// oneWay cannot be read back.
type oneWay struct{ N int }

func (oneWay) MarshalBinary() ([]byte, error) { return []byte("x"), nil }

// self is an interface with a marshaler as its value.
type self interface {
	MarshalBinary() ([]byte, error)
	UnmarshalBinary([]byte) error
}

func TestATypeThatCanOnlyBeWrittenIsRefused(t *testing.T) {
	if text := sitetest.Panics(func() { sojourn.NewKey[oneWay]("n") }); !strings.Contains(text, "BinaryUnmarshaler") {
		t.Errorf("panics with %q", text)
	}
	if text := sitetest.Panics(func() { sojourn.NewKey[self]("n") }); !strings.Contains(text, "interface with methods") {
		t.Errorf("panics with %q", text)
	}
}

func TestNaNComesBackAsNaN(t *testing.T) {
	for _, value := range []float64{math.NaN(), math.Float64frombits(0x7ff8000000000123)} {
		got, err := roundTrip(t, value)
		if err != nil || !math.IsNaN(got) {
			t.Errorf("%v, %v", got, err)
		}
	}
}

func TestTimesKeepTheirNanosecondsAndTheirOffset(t *testing.T) {
	zurich := time.FixedZone("CET", 3600)
	for _, value := range []time.Time{
		{},
		time.Unix(0, 0).UTC(),
		time.Date(2026, 11, 20, 13, 2, 1, 123456789, time.UTC),
		time.Date(2026, 11, 20, 13, 2, 1, 123456789, zurich),
		time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC),
		time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC),
		time.Now(), // with a monotonic reading
	} {
		got, err := roundTrip(t, value)
		_, want := value.Zone()
		_, offset := got.Zone()
		if err != nil || !got.Equal(value) || offset != want {
			t.Errorf("%v came back as %v, %v", value, got, err)
		}
		untyped, err := roundTrip[any](t, value)
		if back, ok := untyped.(time.Time); err != nil || !ok && !value.IsZero() || !back.Equal(value) {
			t.Errorf("%v came back as %T %v, %v", value, untyped, untyped, err)
		}
	}
}

// Another process, which had not registered their types, could not read values in
// interfaces, as reported in golang/go#24126.
func TestUntypedValuesComeBackInTheirWidestForm(t *testing.T) {
	huge := new(big.Int).Lsh(big.NewInt(1), 70)
	for name, test := range map[string]struct{ value, want any }{
		"int":           {7, int64(7)},
		"negative":      {int8(-7), int64(-7)},
		"unsigned":      {uint32(7), int64(7)},
		"largest int":   {int64(math.MaxInt64), int64(math.MaxInt64)},
		"smallest int":  {int64(math.MinInt64), int64(math.MinInt64)},
		"above int64":   {uint64(math.MaxUint64), *new(big.Int).SetUint64(math.MaxUint64)},
		"huge":          {huge, *huge},
		"huge negative": {new(big.Int).Neg(huge), *new(big.Int).Neg(huge)},
		"float":         {1.5, 1.5},
		"whole float":   {2.0, 2.0},
		"text":          {"a", "a"},
		"bytes":         {[]byte{1}, []byte{1}},
		"bool":          {false, false},
		"nil":           {nil, nil},
		"time":          {time.Unix(0, 1).UTC(), time.Unix(0, 1).UTC()},
		"list":          {[]int{1, 2}, []any{int64(1), int64(2)}},
		"map":           {map[string]int{"a": 1}, map[string]any{"a": int64(1)}},
		"nested":        {map[string]any{"a": []any{map[string]any{"b": 1}}}, map[string]any{"a": []any{map[string]any{"b": int64(1)}}}},
	} {
		got, err := roundTrip(t, test.value)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %#v came back as %#v, %v, want %#v", name, test.value, got, err, test.want)
		}
		inMap, err := roundTrip(t, map[string]any{"v": test.value})
		if err != nil || !reflect.DeepEqual(inMap["v"], test.want) {
			t.Errorf("%s in a map: came back as %#v, %v", name, inMap["v"], err)
		}
	}
}

func TestWhateverFitsIntoASessionCanBeReadBack(t *testing.T) {
	same(t, make([]bool, 500_000))
	many := map[int]bool{}
	for i := range 150_000 {
		many[i] = true
	}
	same(t, many)
	var chain *list
	for i := range 10_000 {
		chain = &list{i, chain}
	}
	same(t, chain)
	var nest any
	for range 1000 {
		nest = []any{nest}
	}
	same(t, nest)
}

// A session on a server was limited as a cookie is, as reported in
// bradleypeabody/gorilla-sessions-memcache#12.
func TestAValueOfTheLargestSizeCanBeReadBack(t *testing.T) {
	same(t, strings.Repeat("x", 1<<20-200))
	s, b := newSite(t), sitetest.NewBrowser()
	a := b.Visit(s, func(session *sojourn.Session) { session.Set("v", strings.Repeat("x", 1<<20-200)) })
	if line := a.Header.Get("Set-Cookie"); len(line) > 400 {
		t.Errorf("its cookie line has %d bytes", len(line))
	}
	resp := serve(s, b, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		session.Set("v", strings.Repeat("x", 1<<20))
		if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrTooLarge) {
			t.Errorf("Save: %v", err)
		}
	})
	wantStatus(t, resp, http.StatusRequestEntityTooLarge)
}
