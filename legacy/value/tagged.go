package value

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/legacy/reason"
)

// maxPlainInt is the largest integer that every JSON reader keeps exactly.
const maxPlainInt = 1 << 53

// MarshalTagged writes v as JSON that shows every type, one line without
// spaces. What JSON has no form for becomes an object with one key that starts
// with "$": {"$int":"…"} beyond 2^53, {"$float":"nan"}, {"$bytes":base64},
// {"$datetime":…}, {"$date":…}, {"$time":…}, {"$timedelta":[days,seconds,µs]},
// {"$decimal":…}, {"$uuid":…}, {"$complex":[re,im]}, {"$set":[…]},
// {"$frozenset":[…]}, {"$dict":[[key,value],…]} where a key is not text,
// {"$db_model":"present"} and {"$object":class}. Tuples and lists both become
// arrays, and an object what it holds. Values of other Go types appear as {"$object":type}.
func MarshalTagged(v any) []byte {
	b, err := JSON{}.Marshal(tagged(v, 0))
	if err != nil {
		return []byte(`{"$object":"unprintable"}`)
	}
	return b
}

// tag is the object that stands for a value without a JSON form.
func tag(name string, v any) *Dict {
	d := NewDict()
	d.Set("$"+name, v)
	return d
}

func tagged(v any, depth int) any {
	if depth > MaxDepth {
		return tag("object", "nested too deeply")
	}
	switch v := v.(type) {
	case nil, bool, string, Surrogates:
		return v
	case int64:
		if v > maxPlainInt || v < -maxPlainInt {
			return tag("int", strconv.FormatInt(v, 10))
		}
		return v
	case *big.Int:
		if v.IsInt64() {
			return tagged(v.Int64(), depth)
		}
		return tag("int", v.String())
	case float64:
		switch {
		case math.IsNaN(v):
			return tag("float", "nan")
		case math.IsInf(v, 1):
			return tag("float", "inf")
		case math.IsInf(v, -1):
			return tag("float", "-inf")
		}
		return v
	case []byte:
		return tag("bytes", base64.StdEncoding.EncodeToString(v))
	case []any:
		return taggedSlice(v, depth)
	case Tuple:
		return taggedSlice(v, depth)
	case Set:
		if v.Frozen {
			return tag("frozenset", taggedSlice(v.Items, depth))
		}
		return tag("set", taggedSlice(v.Items, depth))
	case *Dict:
		return taggedDict(v, depth)
	case DateTime:
		return tag("datetime", v.String())
	case Date:
		return tag("date", v.String())
	case Time:
		return tag("time", v.String())
	case TimeDelta:
		return tag("timedelta", []any{v.Days, v.Seconds, v.Microseconds})
	case Decimal:
		return tag("decimal", string(v))
	case UUID:
		return tag("uuid", v.String())
	case complex128:
		return tag("complex", []any{tagged(real(v), depth+1), tagged(imag(v), depth+1)})
	case Object:
		switch {
		case v.Class == EntityProto:
			return tag("db_model", "present")
		case v.Holds != nil:
			return tagged(v.Holds, depth+1)
		}
		return tag("object", v.Class)
	}
	if converted, err := Of(v); err == nil {
		return tagged(converted, depth)
	}
	return tag("object", fmt.Sprintf("%T", v))
}

func taggedSlice(items []any, depth int) []any {
	out := make([]any, len(items))
	for i, it := range items {
		out[i] = tagged(it, depth+1)
	}
	return out
}

func taggedDict(d *Dict, depth int) any {
	allText := true
	for k := range d.All() {
		if _, ok := TextOf(k); !ok {
			allText = false
		}
	}
	if allText {
		out := NewDict()
		for k, v := range d.All() {
			_ = out.SetKey(k, tagged(v, depth+1)) // text is hashable
		}
		return out
	}
	pairs := make([]any, 0, d.Len())
	for k, v := range d.All() {
		pairs = append(pairs, []any{tagged(k, depth+1), tagged(v, depth+1)})
	}
	return tag("dict", pairs)
}

// ParseTagged reads the result of [MarshalTagged]. Arrays become lists. Objects
// with an unknown "$" key are dictionaries.
func ParseTagged(data []byte) (any, error) {
	v, err := ParseJSON(data)
	if err != nil {
		return nil, err
	}
	return untagged(v)
}

func untagged(v any) (any, error) {
	switch v := v.(type) {
	case []any:
		return untaggedSlice(v)
	case *Dict:
		if v.Len() == 1 {
			if name, ok := v.items[0].Key.(string); ok && strings.HasPrefix(name, "$") {
				if out, known, err := untag(name[1:], v.items[0].Value); known {
					if err != nil {
						return nil, fmt.Errorf("tag %s: %w", name, err)
					}
					return out, nil
				}
			}
		}
		out := NewDict()
		for key, val := range v.All() {
			plain, err := untagged(val)
			if err != nil {
				return nil, err
			}
			if err := out.SetKey(key, plain); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return v, nil
}

func untaggedSlice(items []any) ([]any, error) {
	out := make([]any, len(items))
	for i, it := range items {
		var err error
		if out[i], err = untagged(it); err != nil {
			return nil, err
		}
	}
	return out, nil
}

var errTag = fmt.Errorf("%w: bad tagged value", reason.Decode)

// untag reads the value of one tag; known is false for other names.
func untag(name string, v any) (out any, known bool, err error) {
	text, isText := v.(string)
	list, isList := v.([]any)
	textTags := []string{"int", "float", "bytes", "datetime", "date", "time", "decimal", "uuid", "db_model", "object"}
	listTags := []string{"timedelta", "complex", "set", "frozenset", "dict"}
	switch {
	case slices.Contains(textTags, name):
		if !isText {
			return nil, true, errTag
		}
		out, err = untagText(name, text)
		return out, true, err
	case slices.Contains(listTags, name):
		if !isList {
			return nil, true, errTag
		}
		out, err = untagList(name, list)
		return out, true, err
	}
	return nil, false, nil
}

func untagText(name, text string) (any, error) {
	switch name {
	case "int":
		return ParseInt(text)
	case "float":
		switch text {
		case "nan":
			return math.NaN(), nil
		case "inf":
			return math.Inf(1), nil
		case "-inf":
			return math.Inf(-1), nil
		}
		return nil, errTag
	case "bytes":
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, errTag
		}
		return b, nil
	case "datetime":
		return ParseDateTime(text)
	case "date":
		t, err := time.Parse(time.DateOnly, text)
		if err != nil {
			return nil, errTag
		}
		return Date{t.Year(), int(t.Month()), t.Day()}, nil
	case "time":
		d, err := ParseDateTime("0001-01-01T" + text)
		return Time{
			Hour: d.Hour, Minute: d.Minute, Second: d.Second, Microsecond: d.Microsecond, Aware: d.Aware, Offset: d.Offset,
		}, err
	case "decimal":
		return Decimal(text), nil
	case "uuid":
		raw, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
		if err != nil || len(raw) != len(UUID{}) {
			return nil, errTag
		}
		return UUID(raw), nil
	case "db_model":
		return Object{Class: EntityProto}, nil
	}
	return Object{Class: text}, nil
}

// ParseDateTime reads the ISO 8601 form that [DateTime.String] writes.
func ParseDateTime(text string) (DateTime, error) {
	at := strings.LastIndexAny(text, "+-Z")
	if at < len("2006-01-02T15:04:05") {
		at = len(text)
	}
	t, err := time.Parse("2006-01-02T15:04:05", text[:at])
	if err != nil {
		return DateTime{}, errTag
	}
	d := DateTime{
		Year: t.Year(), Month: int(t.Month()), Day: t.Day(),
		Hour: t.Hour(), Minute: t.Minute(), Second: t.Second(), Microsecond: t.Nanosecond() / 1000,
	}
	zone := text[at:]
	if zone == "" {
		return d, nil
	}
	d.Aware = true
	if zone == "Z" {
		return d, nil
	}
	layout := "15:04:05"
	if len(zone) == len("+00:00") {
		layout = "15:04"
	}
	off, err := time.Parse(layout, zone[1:])
	if err != nil {
		return DateTime{}, errTag
	}
	d.Offset = off.Sub(off.Truncate(24 * time.Hour)).Truncate(time.Microsecond)
	if zone[0] == '-' {
		d.Offset = -d.Offset
	}
	return d, nil
}

func untagList(name string, list []any) (any, error) {
	if name == "dict" {
		out := NewDict()
		for _, it := range list {
			pair, ok := it.([]any)
			if !ok || len(pair) != 2 {
				return nil, errTag
			}
			both, err := untaggedSlice(pair)
			if err != nil {
				return nil, err
			}
			if err := out.SetKey(asKey(both[0]), both[1]); err != nil {
				return nil, errTag
			}
		}
		return out, nil
	}
	items, err := untaggedSlice(list)
	if err != nil {
		return nil, err
	}
	switch name {
	case "set", "frozenset":
		for i := range items {
			items[i] = asKey(items[i])
		}
		return Set{Items: items, Frozen: name == "frozenset"}, nil
	case "timedelta":
		var n [3]int64
		if len(items) != len(n) {
			return nil, errTag
		}
		for i, it := range items {
			v, ok := it.(int64)
			if !ok {
				return nil, errTag
			}
			n[i] = v
		}
		d, ok := NewTimeDelta(n[0], n[1], n[2])
		if !ok {
			return nil, errTag
		}
		return d, nil
	default: // complex
		var part [2]float64
		if len(items) != len(part) {
			return nil, errTag
		}
		for i, it := range items {
			switch it := it.(type) {
			case float64:
				part[i] = it
			case int64:
				part[i] = float64(it)
			default:
				return nil, errTag
			}
		}
		return complex(part[0], part[1]), nil
	}
}

// asKey turns lists in a key back into tuples, which tagged JSON does not
// distinguish: a key cannot have lists.
func asKey(v any) any {
	list, ok := v.([]any)
	if !ok {
		return v
	}
	out := make(Tuple, len(list))
	for i, it := range list {
		out[i] = asKey(it)
	}
	return out
}
