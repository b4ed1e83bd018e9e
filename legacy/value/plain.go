package value

import (
	"fmt"
	"math/big"
)

// Plain returns v as ordinary Go values, for code that does not care how the
// old library kept it: a Dict is a map[string]any, with keys that are not text
// spelled out as text; a Tuple or Set is a []any; a DateTime or Date is a
// time.Time in UTC; a Time, Decimal or UUID is its text; a TimeDelta is a
// time.Duration; lone surrogates are U+FFFD; an Object is nil. Everything else
// stays as it is. [Of] is the way back.
func Plain(v any) any {
	switch v := v.(type) {
	case Surrogates:
		return v.Text()
	case []any:
		return plainList(v)
	case Tuple:
		return plainList(v)
	case Set:
		return plainList(v.Items)
	case *Dict:
		return PlainDict(v)
	case DateTime:
		return v.Time()
	case Date:
		return DateTime{Year: v.Year, Month: v.Month, Day: v.Day}.Time()
	case Time:
		return v.String()
	case TimeDelta:
		if d, ok := v.Duration(); ok {
			return d
		}
		return nil
	case Decimal:
		return string(v)
	case UUID:
		return v.String()
	case Object:
		return nil
	}
	return v
}

func plainList(in []any) []any {
	out := make([]any, len(in))
	for i, v := range in {
		out[i] = Plain(v)
	}
	return out
}

// PlainDict is [Plain] for a dictionary. It is never nil.
func PlainDict(d *Dict) map[string]any {
	out := make(map[string]any, d.Len())
	for k, v := range d.All() {
		out[plainKey(k)] = Plain(v)
	}
	return out
}

func plainKey(k any) string {
	switch k := k.(type) {
	case string:
		return k
	case Surrogates:
		return k.Text()
	case []byte:
		return string(k)
	case nil:
		return "None"
	case *big.Int:
		return k.String()
	}
	return fmt.Sprint(Plain(k))
}
