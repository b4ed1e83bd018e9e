package value

import (
	"fmt"
	"math/big"
	"strings"
)

// Plain returns v as ordinary Go values: a Dict is a map[string]any (see
// [PlainDict]); a Tuple or Set is a []any; a DateTime or Date is a time.Time in
// UTC; a Time, Decimal or UUID is its text; a TimeDelta is a time.Duration, or
// its text beyond 292 years; a complex number is a list of its two parts; lone
// surrogates are U+FFFD. An Object is what it holds, or else a map of its
// "class" (text), its "args" (a list) and its "state". Everything else stays as
// it is. [Of] is the way back, but for objects.
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
		return v.String()
	case Decimal:
		return string(v)
	case UUID:
		return v.String()
	case Object:
		return plainObject(v)
	case complex128:
		return []any{real(v), imag(v)}
	}
	return v
}

// plainObject returns an object's plain value, or its class, arguments and state.
func plainObject(o Object) any {
	switch {
	case o.Holds != nil:
		return Plain(o.Holds)
	case o.Args == nil:
		return map[string]any{"class": o.Class}
	}
	return map[string]any{"class": o.Class, "args": plainList(o.Args), "state": Plain(o.State)}
}

func plainList(in []any) []any {
	out := make([]any, len(in))
	for i, v := range in {
		out[i] = Plain(v)
	}
	return out
}

// PlainDict is [Plain] for a dictionary. It is never nil. A key that is not
// text is formatted as in Python, such as 5, None or (1, 'a'). If two keys have
// the same text, the text key has the name, and the others their type after it,
// such as "5 (int)".
func PlainDict(d *Dict) map[string]any {
	out := make(map[string]any, d.Len())
	for k, v := range d.All() {
		if name, ok := k.(string); ok {
			out[name] = Plain(v)
		}
	}
	for k, v := range d.All() {
		if _, ok := k.(string); ok {
			continue
		}
		name := plainKey(k)
		if _, taken := out[name]; taken {
			name += " (" + typeName(k) + ")"
		}
		for n, first := 2, name; ; n++ {
			if _, taken := out[name]; !taken {
				break
			}
			name = fmt.Sprintf("%s %d", first, n)
		}
		out[name] = Plain(v)
	}
	return out
}

// plainKey formats a key that is not a string.
func plainKey(k any) string {
	switch k := k.(type) {
	case Surrogates:
		return k.Text()
	case []byte:
		return string(k)
	}
	return spelled(k)
}

// spelled returns Python's repr of a value in a key.
func spelled(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case float64:
		return strings.NewReplacer("NaN", "nan", "Infinity", "inf").Replace(string(appendFloat(nil, v)))
	case complex128:
		return fmt.Sprint(v)
	case string:
		return "'" + v + "'"
	case Surrogates:
		return "'" + v.Text() + "'"
	case []byte:
		return fmt.Sprintf("b%+q", v)
	case Tuple:
		if len(v) == 1 {
			return "(" + spelled(v[0]) + ",)"
		}
		return "(" + spelledAll(v) + ")"
	case Set:
		return "frozenset({" + spelledAll(v.Items) + "})"
	case Object:
		if v.Holds != nil {
			return fmt.Sprint(Plain(v.Holds))
		}
		return v.Class + "(" + spelledAll(v.Args) + ")"
	}
	return fmt.Sprint(v) // numbers and times format themselves
}

func spelledAll(items []any) string {
	out := make([]string, len(items))
	for i, it := range items {
		out[i] = spelled(it)
	}
	return strings.Join(out, ", ")
}

// typeName is the name of a key's class in Python.
func typeName(k any) string {
	switch k := k.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case complex128:
		return "complex"
	case []byte:
		return "bytes"
	case Surrogates:
		return "str"
	case Tuple:
		return "tuple"
	case Set:
		return "frozenset"
	case Object:
		return k.Class
	}
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", k), "value."))
}
