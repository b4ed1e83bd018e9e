package value_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

func bigInt(t *testing.T, s string) *big.Int {
	t.Helper()
	n, ok := new(big.Int).SetString(s, 10)
	if !ok {
		t.Fatal(s)
	}
	return n
}

func dict(t *testing.T, pairs ...any) *value.Dict {
	t.Helper()
	d := value.NewDict()
	for i := 0; i < len(pairs); i += 2 {
		if err := d.SetKey(pairs[i], pairs[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestKeysAreTheSameWhenPythonSaysSo(t *testing.T) {
	day := value.Date{Year: 2020, Month: 1, Day: 2}
	for _, same := range [][]any{
		{int64(1), 1.0, true},
		{int64(0), 0.0, math.Copysign(0, -1), false},
		{bigInt(t, "36893488147419103232"), math.Ldexp(1, 65)},
		{"a", "a"},
		{value.Tuple{int64(1), "x"}, value.Tuple{true, "x"}},
		{value.Set{Items: []any{"a", "b"}, Frozen: true}, value.Set{Items: []any{"b", "a"}, Frozen: true}},
		{day, value.Date{Year: 2020, Month: 1, Day: 2}},
	} {
		d := value.NewDict()
		for i, k := range same {
			if err := d.SetKey(k, i); err != nil {
				t.Fatal(err)
			}
		}
		if d.Len() != 1 {
			t.Errorf("%v are %d keys", same, d.Len())
		}
	}
	different := []any{
		nil, "", "1", int64(1), 1.5, []byte("1"),
		value.Tuple{},
		value.Tuple{int64(1)},
		value.Tuple{"1"},
		value.Tuple{value.Tuple{int64(1)}},
		value.Tuple{int64(1), "1"},
		value.Tuple{"1", int64(1)},
		value.Set{Frozen: true},
		value.Set{Items: []any{int64(1)}, Frozen: true},
		day,
		value.UUID{},
		value.Decimal("1"), 1 + 0i,
	}
	d := value.NewDict()
	for _, k := range different {
		if err := d.SetKey(k, nil); err != nil {
			t.Fatal(err)
		}
	}
	if d.Len() != len(different) {
		t.Errorf("%d keys of %d", d.Len(), len(different))
	}
	for _, k := range []any{[]any{}, value.NewDict(), value.Set{}, value.Tuple{[]any{}}, map[string]int{}} {
		if err := d.SetKey(k, nil); !errors.Is(err, value.ErrUnhashable) {
			t.Errorf("%v is a key: %v", k, err)
		}
	}
}

func TestEqualValues(t *testing.T) {
	otherNaN := math.Float64frombits(0xFFF8000000000000)
	for _, c := range []struct {
		a, b  any
		equal bool
	}{
		{math.NaN(), otherNaN, true},
		{0.0, math.Copysign(0, -1), false},
		{int64(1), 1.0, false},
		{int64(1), true, false},
		{[]any{"a"}, value.Tuple{"a"}, true},
		{[]any{"a"}, []any{"a", "b"}, false},
		{[]any{}, value.NewDict(), false},
		{[]byte("a"), "a", false},
		{dict(t, "a", 1, "b", 2), dict(t, "b", 2, "a", 1), true},
		{dict(t, "a", 1), dict(t, "a", 2), false},
		{dict(t, "a", nil), dict(t, "b", nil), false},
		{value.Set{Items: []any{"a", "b"}}, value.Set{Items: []any{"b", "a"}}, true},
		{value.Set{Items: []any{"a"}}, value.Set{Items: []any{"b"}}, false},
		{value.Set{}, value.Set{Frozen: true}, false},
		{value.Object{Class: "x"}, value.Object{Class: "x", State: []byte{1}}, false},
	} {
		if value.Equal(c.a, c.b) != c.equal || value.Equal(c.b, c.a) != c.equal {
			t.Errorf("%#v and %#v: not %v", c.a, c.b, c.equal)
		}
	}
}

func TestDictKeepsItsOrder(t *testing.T) {
	d := dict(t, "a", 1, "b", 2, "c", 3, "d", 4)
	d.Set("b", 20)
	if !d.Delete("a") || d.Delete("a") {
		t.Error("a was not there once")
	}
	d.Set("a", 10)
	var got strings.Builder
	for k, v := range d.All() {
		_ = json.NewEncoder(&got).Encode([]any{k, v})
	}
	if want := "[\"b\",20]\n[\"c\",3]\n[\"d\",4]\n[\"a\",10]\n"; got.String() != want {
		t.Errorf("got %s", got.String())
	}
	for k, v := range d.All() {
		if d.Get(k.(string)) != v {
			t.Errorf("%v is looked up as %v", k, d.Get(k.(string)))
		}
	}
	var none *value.Dict
	if none.Len() != 0 || none.Get("x") != nil || none.Delete("x") {
		t.Error("nil is not an empty dictionary")
	}
}

func TestPythonsJSONIsRead(t *testing.T) {
	for text, want := range map[string]any{
		`null`: nil, `true`: true, ` false `: false, `0`: int64(0), `-7`: int64(-7),
		`9007199254740993`:     int64(9007199254740993),
		`18446744073709551616`: bigInt(t, "18446744073709551616"),
		`1.0`:                  1.0, `1e3`: 1000.0, `-0.0`: math.Copysign(0, -1), `5e-324`: 5e-324, `1e999`: math.Inf(1),
		`NaN`: math.NaN(), `Infinity`: math.Inf(1), `-Infinity`: math.Inf(-1),
		`"a\"\\\/\b\f\n\r\t\u00e9"`: "a\"\\/\b\f\n\r\té",
		`"\ud83d\ude00"`:            "😀",
		`"é😀"`:                      "é😀",
		`"a\ud83dz"`:                value.Surrogates("a\xed\xa0\xbdz"),
		`"\ude00\ud83d"`:            value.Surrogates("\xed\xb8\x80\xed\xa0\xbd"),
		`[]`:                        []any{}, `[1,[2, "x"]]`: []any{int64(1), []any{int64(2), "x"}},
		`{}`: value.NewDict(), `{"a":1,"b":{},"a":2}`: dict(t, "a", int64(2), "b", value.NewDict()),
	} {
		got, err := value.ParseJSON([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if !value.Equal(got, want) {
			t.Errorf("%s is %#v", text, got)
		}
	}
}

func TestWhatIsNoJSONIsRefused(t *testing.T) {
	for _, text := range []string{
		"", " ", "{", "[", "[1", "[1,", "[1,]", `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{a:1}`, `{1:2}`,
		`"`, `"a`, `"\`, `"\x"`, `"\u12"`, `"\u12g4"`, "\"\n\"", "\"\xff\"", "\"\xed\xa0\x80\"",
		"01", "-", "+1", "1.", ".5", "1e", "1e+", "0x1", "nul", "truex", "NaNs", "1 2", "{} x", "'a'", "\ufeff1",
	} {
		if v, err := value.ParseJSON([]byte(text)); !errors.Is(err, reason.Decode) {
			t.Errorf("%q is %#v, %v", text, v, err)
		}
	}
	for _, text := range []string{
		strings.Repeat("[", 100_000), strings.Repeat("9", 20_000), strings.Repeat(" ", 5<<20),
		"[" + strings.Repeat("1,", 300_000) + "1]",
	} {
		if _, err := value.ParseJSON([]byte(text)); !errors.Is(err, reason.ResourceLimit) {
			t.Errorf("%.10q…: %v", text, err)
		}
	}
}

func TestJSONIsWrittenAsPythonDoes(t *testing.T) {
	d := dict(t, "s", "</b>\"\\\n\x00\x7fé😀", "n", []any{int64(1), 1.0, 1e16, 1e-5, 0.0001, 1.5e300, math.NaN(), math.Inf(-1)},
		int64(5), nil, true, value.Tuple{"t"}, nil, bigInt(t, "18446744073709551616"), 1.5, value.Surrogates("\xed\xa0\xbd"))
	compact, err := value.JSON{EscapeSlash: true}.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"s":"<\/b>\"\\\n\u0000\u007f\u00e9\ud83d\ude00","n":[1,1.0,1e+16,1e-05,0.0001,1.5e+300,NaN,-Infinity],` +
		`"5":null,"true":["t"],"null":18446744073709551616,"1.5":"\ud83d"}`
	if string(compact) != want {
		t.Errorf("got  %s\nwant %s", compact, want)
	}
	spaced, err := value.PythonStyle().Marshal(dict(t, "a", []any{int64(1), int64(2)}, "b", "</"))
	if err != nil || string(spaced) != `{"a": [1, 2], "b": "</"}` {
		t.Errorf("got %s, %v", spaced, err)
	}
	for _, v := range []any{
		[]byte{1},
		value.Set{},
		value.DateTime{},
		time.Now(),
		value.UUID{},
		make(chan int),
		dict(t, value.Tuple{}, 1), dict(t, []byte("k"), 1),
	} {
		if text, err := (value.JSON{}).Marshal(v); !errors.Is(err, value.ErrUnsupported) {
			t.Errorf("%T is written as %s, %v", v, text, err)
		}
	}
}

func TestTaggedJSONShowsEveryType(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string
	}{
		{int64(1 << 53), `9007199254740992`},
		{int64(1<<53 + 1), `{"$int":"9007199254740993"}`},
		{int64(-1<<53 - 1), `{"$int":"-9007199254740993"}`},
		{bigInt(t, "18446744073709551616"), `{"$int":"18446744073709551616"}`},
		{2.0, `2.0`},
		{math.NaN(), `{"$float":"nan"}`},
		{math.Inf(-1), `{"$float":"-inf"}`},
		{[]byte{0, 255}, `{"$bytes":"AP8="}`},
		{value.DateTime{Year: 2013, Month: 1, Day: 2, Hour: 3, Minute: 4, Second: 5, Microsecond: 6}, `{"$datetime":"2013-01-02T03:04:05.000006"}`},
		{value.DateTime{Year: 2013, Month: 1, Day: 2, Aware: true}, `{"$datetime":"2013-01-02T00:00:00+00:00"}`},
		{value.DateTime{Year: 2013, Month: 1, Day: 2, Aware: true, Offset: -90 * time.Minute}, `{"$datetime":"2013-01-02T00:00:00-01:30"}`},
		{value.DateTime{Year: 2013, Month: 1, Day: 2, Aware: true, Offset: 3661 * time.Second}, `{"$datetime":"2013-01-02T00:00:00+01:01:01"}`},
		{value.Date{Year: 13, Month: 1, Day: 2}, `{"$date":"0013-01-02"}`},
		{value.Time{Hour: 3}, `{"$time":"03:00:00"}`},
		{value.TimeDelta{Days: -1, Seconds: 86399, Microseconds: 999999}, `{"$timedelta":[-1,86399,999999]}`},
		{value.Decimal("1E+3"), `{"$decimal":"1E+3"}`},
		{value.UUID{0x28, 15: 0xd1}, `{"$uuid":"28000000-0000-0000-0000-0000000000d1"}`},
		{complex(1.5, -2), `{"$complex":[1.5,-2.0]}`},
		{value.Set{Items: []any{int64(1), value.Tuple{"a"}}}, `{"$set":[1,["a"]]}`},
		{value.Set{Frozen: true}, `{"$frozenset":[]}`},
		{dict(t, "b", nil, "a", value.Tuple{}), `{"b":null,"a":[]}`},
		{dict(t, "s", "x", value.Tuple{int64(1)}, "y"), `{"$dict":[["s","x"],[[1],"y"]]}`},
		{value.Object{Class: value.EntityProto, State: []byte("x")}, `{"$db_model":"present"}`},
		{value.Object{Class: "a.B"}, `{"$object":"a.B"}`},
	} {
		got := value.MarshalTagged(c.v)
		if string(got) != c.want {
			t.Errorf("%#v is %s, want %s", c.v, got, c.want)
			continue
		}
		back, err := value.ParseTagged(got)
		if err != nil {
			t.Errorf("%s: %v", got, err)
			continue
		}
		if again := value.MarshalTagged(back); string(again) != c.want {
			t.Errorf("%s comes back as %s", c.want, again)
		}
	}
	if got := value.MarshalTagged(make(chan int)); string(got) != `{"$object":"chan int"}` {
		t.Errorf("a foreign type is %s", got)
	}
	for _, bad := range []string{
		`{"$int":"x"}`, `{"$int":5}`, `{"$float":"1"}`, `{"$bytes":"*"}`, `{"$datetime":"yesterday"}`, `{"$date":"1"}`,
		`{"$time":"1"}`, `{"$timedelta":[1]}`, `{"$timedelta":["a",1,1]}`, `{"$uuid":"1"}`, `{"$complex":[1]}`, `{"$dict":[1]}`,
		`{"$dict":[[{},1]]}`, `{"$set":5}`, `{`,
	} {
		if v, err := value.ParseTagged([]byte(bad)); err == nil {
			t.Errorf("%s is %#v", bad, v)
		}
	}
	if v, err := value.ParseTagged([]byte(`{"$other":1}`)); err != nil || !value.Equal(v, dict(t, "$other", int64(1))) {
		t.Errorf("an unknown tag is %#v, %v", v, err)
	}
}

func TestGoValuesAreConverted(t *testing.T) {
	type kind string
	n := 5
	at := time.Date(2020, 1, 2, 3, 4, 5, 6789, time.FixedZone("", 3600))
	for _, c := range []struct{ in, want any }{
		{5, int64(5)},
		{uint8(5), int64(5)},
		{uint64(math.MaxUint64), bigInt(t, "18446744073709551615")},
		{big.NewInt(7), int64(7)},
		{float32(0.5), 0.5},
		{kind("x"), "x"},
		{&n, int64(5)},
		{(*int)(nil), nil},
		{(*big.Int)(nil), nil},
		{[]string{"a"}, []any{"a"}},
		{[2]int{1, 2}, []any{int64(1), int64(2)}},
		{map[string]int{"b": 2, "a": 1}, dict(t, "a", int64(1), "b", int64(2))},
		{at, value.DateTime{Year: 2020, Month: 1, Day: 2, Hour: 2, Minute: 4, Second: 5, Microsecond: 6}},
		{-time.Microsecond, value.TimeDelta{Days: -1, Seconds: 86399, Microseconds: 999999}},
		{value.Tuple{1}, value.Tuple{int64(1)}},
		{value.Set{Items: []any{1}}, value.Set{Items: []any{int64(1)}}},
		{dict(t, "a", 1), dict(t, "a", int64(1))},
	} {
		got, err := value.Of(c.in)
		if err != nil || !value.Equal(got, c.want) {
			t.Errorf("%#v becomes %#v, %v", c.in, got, err)
		}
	}
	loop := []any{nil}
	loop[0] = loop
	for _, bad := range []any{make(chan int), struct{}{}, loop, []any{func() {}}} {
		if v, err := value.Of(bad); !errors.Is(err, value.ErrUnsupported) {
			t.Errorf("%T becomes %#v, %v", bad, v, err)
		}
	}
}

func TestDateTimesAreInstants(t *testing.T) {
	d := value.DateTime{Year: 2014, Month: 3, Day: 9, Hour: 2, Minute: 30, Aware: true, Offset: 2 * time.Hour}
	if got := d.Time(); !got.Equal(time.Date(2014, 3, 9, 0, 30, 0, 0, time.UTC)) {
		t.Errorf("got %s", got)
	}
	for _, bad := range []value.DateTime{
		{},
		{Year: 2014, Month: 2, Day: 29},
		{Year: 2014, Month: 13, Day: 1},
		{Year: 10000, Month: 1, Day: 1},
		{Year: 2014, Month: 1, Day: 1, Hour: 24},
		{Year: 2014, Month: 1, Day: 1, Microsecond: 1_000_000},
	} {
		if bad.Valid() {
			t.Errorf("%v is valid", bad)
		}
	}
	for _, text := range []string{"2013-01-02T03:04:05", "2013-01-02T03:04:05.000006", "2013-01-02T03:04:05+00:00", "2013-01-02T03:04:05.5-11:30:15"} {
		d, err := value.ParseDateTime(text)
		if err != nil || !strings.HasPrefix(d.String(), text[:19]) || !strings.HasSuffix(d.String(), text[len(text)-3:]) {
			if text != "2013-01-02T03:04:05.5-11:30:15" || d.String() != "2013-01-02T03:04:05.500000-11:30:15" {
				t.Errorf("%s is %s, %v", text, d, err)
			}
		}
	}
}

func TestTimeDeltasAreNormalised(t *testing.T) {
	for _, c := range []struct {
		d, s, us int64
		want     value.TimeDelta
		ok       bool
	}{
		{0, -1, 0, value.TimeDelta{Days: -1, Seconds: 86399}, true},
		{0, 86400, 1_000_001, value.TimeDelta{Days: 1, Seconds: 1, Microseconds: 1}, true},
		{999_999_999, 86399, 999_999, value.TimeDelta{Days: 999_999_999, Seconds: 86399, Microseconds: 999_999}, true},
		{999_999_999, 86400, 0, value.TimeDelta{}, false},
		{math.MaxInt64, math.MaxInt64, math.MaxInt64, value.TimeDelta{}, false},
	} {
		got, ok := value.NewTimeDelta(c.d, c.s, c.us)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%d %d %d is %v, %v", c.d, c.s, c.us, got, ok)
		}
	}
	if _, ok := (value.TimeDelta{Days: 999_999_999}).Duration(); ok {
		t.Error("a million years fit a Duration")
	}
}

func TestSurrogates(t *testing.T) {
	if got := value.Surrogates("a\xed\xa0\xbdé\xed\xb8\x80").Text(); got != "a\uFFFDé\uFFFD" {
		t.Errorf("got %q", got)
	}
	for in, want := range map[string]any{
		"plain é😀":                 "plain é😀",
		"\xed\xa0\xbd\xed\xb8\x80": "😀",
		"x\xed\xa0\xbd":            value.Surrogates("x\xed\xa0\xbd"),
		"\xed\xb8\x80\xed\xa0\xbd": value.Surrogates("\xed\xb8\x80\xed\xa0\xbd"),
	} {
		if got, ok := value.FromWTF8([]byte(in)); !ok || got != want {
			t.Errorf("%q is %#v, %v", in, got, ok)
		}
	}
	for _, bad := range []string{"\xff", "\xed\xa0", "a\xc3", "\xed\xa0\xbd\xff"} {
		if got, ok := value.FromWTF8([]byte(bad)); ok {
			t.Errorf("%q is %#v", bad, got)
		}
	}
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,"x\ud83d\ude00",null,true,NaN,-Infinity]}`, `"\ud83d"`, `{"$int":"5"}`, `[[[[`, `1e5`, `{"$dict":[[1,2]]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := value.ParseJSON(data)
		if err != nil {
			if reason.Of(err) == "" {
				t.Errorf("no reason: %v", err)
			}
			return
		}
		text, err := value.PythonStyle().Marshal(v)
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		again, err := value.ParseJSON(text)
		if err != nil || !value.Equal(v, again) {
			t.Errorf("%q is written as %s: %v", data, text, err)
		}
		if tagged, err := value.ParseTagged(data); err == nil {
			shown := value.MarshalTagged(tagged)
			if back, err := value.ParseTagged(shown); err != nil || !value.Equal(tagged, back) {
				t.Errorf("%q is tagged as %s: %v", data, shown, err)
			}
		}
	})
}
