package value_test

import (
	"errors"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/legacy/value"
)

func TestPlainValuesAreOrdinaryGoValues(t *testing.T) {
	inner := value.NewDict()
	inner.Set("when", value.DateTime{Year: 2013, Month: 1, Day: 2, Hour: 3})
	_ = inner.SetKey(int64(5), value.Tuple{int64(1), value.Set{Items: []any{"x"}}})
	_ = inner.SetKey(nil, value.Decimal("1.50"))
	got := value.Plain([]any{
		inner,
		value.TimeDelta{Days: -1, Seconds: 3600},
		value.Date{Year: 2013, Month: 1, Day: 2},
		value.Time{Hour: 4},
		value.UUID{1},
		value.Surrogates("a\xed\xa0\x80"),
		value.Object{Class: "x"},
		nil, true, int64(1), 1.5,
		[]byte{1},
	})
	want := []any{
		map[string]any{"when": time.Date(2013, 1, 2, 3, 0, 0, 0, time.UTC), "5": []any{int64(1), []any{"x"}}, "None": "1.50"},
		-23 * time.Hour, time.Date(2013, 1, 2, 0, 0, 0, 0, time.UTC), "04:00:00",
		"01000000-0000-0000-0000-000000000000", "a\ufffd",
		map[string]any{"class": "x"},
		nil, true, int64(1), 1.5,
		[]byte{1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%#v, want %#v", got, want)
	}
	if got := value.PlainDict(nil); got == nil || len(got) != 0 {
		t.Errorf("%#v", got)
	}
}

func TestKeysThatAreSpelledAlikeAreKeptApart(t *testing.T) {
	d := value.NewDict()
	for _, k := range []any{
		int64(1), "1", "1 (int)", nil, "None",
		value.Tuple{int64(1), "a"},
		"(1, 'a')", []byte("b"), "b", 2.5, "2.5",
		value.Surrogates("\xed\xa0\x80"), "\ufffd",
		value.Set{Items: []any{int64(3)}, Frozen: true},
		value.Tuple{nil},
		value.Date{Year: 2026, Month: 1, Day: 2},
		"2026-01-02", value.Decimal("7"), int64(7),
		value.Object{Class: "x.Y", Args: value.Tuple{int64(1)}},
	} {
		if err := d.SetKey(k, k); err != nil {
			t.Fatal(err)
		}
	}
	got := value.PlainDict(d)
	for name, want := range map[string]any{
		"1": "1", "1 (int)": "1 (int)", "1 (int) 2": int64(1), "None": "None", "None (NoneType)": nil,
		"(1, 'a')": "(1, 'a')", "(1, 'a') (tuple)": []any{int64(1), "a"}, "b": "b", "b (bytes)": []byte("b"),
		"2.5": "2.5", "2.5 (float)": 2.5, "\ufffd": "\ufffd", "\ufffd (str)": "\ufffd", "frozenset({3})": []any{int64(3)}, "(None,)": []any{nil},
		"2026-01-02": "2026-01-02", "2026-01-02 (date)": time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), "7": "7", "7 (int)": int64(7),
		"x.Y(1)": map[string]any{"class": "x.Y", "args": []any{int64(1)}, "state": nil},
	} {
		if v, ok := got[name]; !ok || !reflect.DeepEqual(v, want) {
			t.Errorf("%q is %#v, want %#v", name, v, want)
		}
	}
	if len(got) != d.Len() {
		t.Errorf("%d names for %d keys: %v", len(got), d.Len(), got)
	}
}

func TestKeysThatAreOneInJSONAreRefused(t *testing.T) {
	for _, keys := range [][]any{{int64(1), "1"}, {"1", int64(1)}, {nil, "null"}, {2.5, "2.5"}, {true, "true"}} {
		d := value.NewDict()
		for _, k := range keys {
			_ = d.SetKey(k, k)
		}
		if b, err := (value.JSON{}).Marshal([]any{d}); !errors.Is(err, value.ErrUnsupported) {
			t.Errorf("%v: %s, %v", keys, b, err)
		}
	}
}

func TestIntegersOfAllTypesBecomeValues(t *testing.T) {
	big63 := new(big.Int).Lsh(big.NewInt(1), 63)
	type id uint64
	for _, v := range []any{uint64(1 << 63), id(1 << 63), *big63, big63, []any{*big63}, map[string]big.Int{"a": *big63}, &[]uint64{1 << 63}} {
		got, err := value.Of(v)
		if err != nil || !strings.Contains(string(value.MarshalTagged(got)), "9223372036854775808") {
			t.Errorf("%T is %s, %v", v, value.MarshalTagged(got), err)
		}
	}
	if got, err := value.Of(*big.NewInt(5)); got != int64(5) || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestComplexNumbersAndLongSpansArePlain(t *testing.T) {
	if got := value.Plain(complex(1, -2)); !reflect.DeepEqual(got, []any{1.0, -2.0}) {
		t.Errorf("%#v", got)
	}
	for text, d := range map[string]value.TimeDelta{
		"999999999 days, 0:00:01": {Days: 999_999_999, Seconds: 1}, "-999999999 days, 23:00:00.000001": {Days: -999_999_999, Seconds: 82800, Microseconds: 1},
	} {
		if got := value.Plain(d); got != text {
			t.Errorf("%v, want %s", got, text)
		}
	}
	if got := (value.TimeDelta{Days: 1}).String() + (value.TimeDelta{Seconds: 61}).String(); got != "1 day, 0:00:000:01:01" {
		t.Error(got)
	}
}
