// Package printtest prints values in all ways in which an application may, and
// searches the output for secrets. For tests only.
package printtest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// A Secret is a value that must not be printed, and its name for failures: the
// test's output must not contain it either.
type Secret struct {
	Name  string
	Value []byte // at least 6 bytes
}

// spellings are the forms of a secret in a text.
func (s Secret) spellings() []string {
	// Base64 of a part of a text depends on where the part begins, so only the
	// whole secret is searched for in base64.
	out := []string{
		string(s.Value), hex.EncodeToString(s.Value), strings.ToUpper(hex.EncodeToString(s.Value)),
		base64.StdEncoding.EncodeToString(s.Value)[:len(s.Value)*8/6],
		base64.RawURLEncoding.EncodeToString(s.Value)[:len(s.Value)*8/6],
	}
	for _, form := range []string{"%d", "%x", "%X", "%#x", "0x%02x,", "%o", "'%c'"} {
		var list []string
		for _, b := range s.Value[:6] {
			list = append(list, fmt.Sprintf(form, b))
		}
		out = append(out, strings.Join(list, " "), strings.Join(list, ", "))
	}
	return out
}

// verbs are fmt's verbs, with the flags that change the output, and an unknown
// one. Two are left out: for %p without a pointer, and %w without an error, fmt
// calls no method, and go vet refuses both.
var verbs = []string{"%v", "%+v", "%#v", "%s", "%+s", "%q", "%+q", "%#q", "%x", "% x", "%#x", "%X", "%d", "%o", "%b", "%c", "%U", "%e", "%g", "%t", "%z"}

// Silent fails the test if printing any of the values reveals a secret: with
// every verb of package fmt, with log and log/slog, in errors and as JSON,
// directly and inside of structs, pointers, slices, maps and interfaces.
//
// Types whose purpose is JSON are exempt: mayJSON are the names of those values.
func Silent(t testing.TB, secrets []Secret, values map[string]any, mayJSON ...string) {
	t.Helper()
	for name, v := range values {
		texts := ways(v, slices.Contains(mayJSON, name))
		all := strings.Join(slices.Collect(maps.Values(texts)), "\n")
		for _, s := range secrets {
			for _, spelling := range s.spellings() {
				if !strings.Contains(all, spelling) {
					continue
				}
				for how, text := range texts {
					if strings.Contains(text, spelling) {
						t.Errorf("%s of %s (%T) prints the %s, as a text of %d bytes", how, name, v, s.Name, len(spelling))
					}
				}
			}
		}
	}
}

// ways prints v in all ways. Pointers to a value are part of them, unless it has
// a lock and must not be copied.
func ways(v any, exemptJSON bool) map[string]string {
	out := map[string]string{}
	for inside, x := range nested(v) {
		for _, verb := range verbs {
			out[verb+inside] = fmt.Sprintf(verb, x)
		}
		out["Print"+inside] = fmt.Sprint(x) + fmt.Sprintln(x)
		out["Errorf"+inside] = errors.Join(fmt.Errorf("about %v, %+v", x, x)).Error()

		var text bytes.Buffer
		log.New(&text, "", 0).Print(x)
		out["log"+inside] = text.String()
		handlers := map[string]func() slog.Handler{
			"slog as text": func() slog.Handler { return slog.NewTextHandler(&text, nil) },
			"slog as JSON": func() slog.Handler { return slog.NewJSONHandler(&text, nil) },
		}
		for name, handler := range handlers {
			if _, logs := x.(slog.LogValuer); exemptJSON && name == "slog as JSON" && !logs {
				continue
			}
			text.Reset()
			l := slog.New(handler())
			l.Info("m", "x", x, slog.Group("g", slog.Any("x", x)))
			l.With("x", x).Info("m")
			out[name+inside] = text.String()
		}
		if !exemptJSON {
			b, err := json.Marshal(x)
			out["JSON"+inside] = fmt.Sprint(string(b), err)
		}
	}
	return out
}

type anything struct{ V any }

func nested(v any) map[string]any {
	value := reflect.ValueOf(v)
	typ := value.Type()
	field := reflect.New(reflect.StructOf([]reflect.StructField{{Name: "V", Type: typ}})).Elem()
	field.Field(0).Set(value)
	slice := reflect.MakeSlice(reflect.SliceOf(typ), 0, 1)
	slice = reflect.Append(slice, value)
	array := reflect.New(reflect.ArrayOf(1, typ)).Elem()
	array.Index(0).Set(value)
	byName := reflect.MakeMap(reflect.MapOf(reflect.TypeFor[string](), typ))
	byName.SetMapIndex(reflect.ValueOf("k"), value)
	pointer := reflect.New(typ)
	pointer.Elem().Set(value)
	forms := map[string]any{
		"":                             v,
		" in a struct":                 field.Interface(),
		" in a pointed-to struct":      field.Addr().Interface(),
		" in an interface in a struct": anything{v},
		" in a struct in a struct":     anything{anything{v}},
		" in a slice":                  slice.Interface(),
		" in a slice of any":           []any{v},
		" in an array":                 array.Interface(),
		" in a map":                    byName.Interface(),
		" in a map of any":             map[string]any{"k": v},
		" behind a pointer":            pointer.Interface(),
	}
	if _, ok := v.(fmt.Formatter); ok { // otherwise fmt does not call the method behind it with some verbs
		forms[" behind a pointer, in a map"] = map[string]any{"k": pointer.Interface()}
	}
	if isHandle(typ) {
		owner := reflect.New(reflect.StructOf([]reflect.StructField{{Name: "v", PkgPath: "example.com/app", Type: typ}})).Elem()
		reflect.NewAt(typ, owner.Field(0).Addr().UnsafePointer()).Elem().Set(value)
		forms[" in an unexported field"] = owner.Interface()
		forms[" in an unexported field, behind a pointer"] = owner.Addr().Interface()
	}
	return forms
}

// isHandle reports whether a type is a pointer to an unexported struct. fmt
// does not call methods of such a value in an unexported field, and with some
// verbs it prints the struct.
func isHandle(typ reflect.Type) bool {
	if typ.Kind() != reflect.Pointer || typ.Elem().Kind() != reflect.Struct {
		return false
	}
	for i := range typ.Elem().NumField() {
		if typ.Elem().Field(i).IsExported() {
			return false
		}
	}
	return true
}
