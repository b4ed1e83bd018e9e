package value_test

import (
	"reflect"
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
		"01000000-0000-0000-0000-000000000000", "a\ufffd", nil, nil, true, int64(1), 1.5,
		[]byte{1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%#v, want %#v", got, want)
	}
	if got := value.PlainDict(nil); got == nil || len(got) != 0 {
		t.Errorf("%#v", got)
	}
}
