package pickle_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/legacy/pickle"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// sessionOf decodes a session and returns its only value of interest.
func sessionOf(t testing.TB, b []byte) any {
	t.Helper()
	v, err := pickle.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	d, ok := v.(*value.Dict)
	if !ok {
		t.Fatalf("%T", v)
	}
	return d.Get("v")
}

// TestObjectsOfRealPythonsAreReadAndWrittenBack takes what testdata/python/objects.py
// has printed with Python 2.7 and 3.11, its enumerations also with 3.11.2, and its paths with 3.13.
func TestObjectsOfRealPythonsAreReadAndWrittenBack(t *testing.T) {
	raw, err := os.ReadFile("testdata/objects.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range bytes.Lines(raw) {
		var c struct {
			Name   string
			Pickle []byte
			Data   json.RawMessage
		}
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatal(err)
		}
		n++
		t.Run(c.Name, func(t *testing.T) {
			first, err := pickle.Decode(c.Pickle)
			if err != nil {
				t.Fatal(err)
			}
			got := first.(*value.Dict).Get("v")
			if string(c.Data) != "null" && !hasNull(c.Data) {
				want, err := value.ParseTagged(c.Data)
				if err != nil {
					t.Fatal(err)
				}
				again, err := value.ParseTagged(value.MarshalTagged(got))
				if err != nil || !value.Equal(again, want) {
					t.Errorf("read as %s, %v; want %s", value.MarshalTagged(got), err, c.Data)
				}
			}
			written, err := pickle.Encode(first)
			if err != nil {
				t.Fatal(err)
			}
			second, err := pickle.Decode(written)
			if err != nil || !value.Equal(first, second) {
				t.Errorf("%q is written as %q, %v", c.Pickle, written, err)
			}
			if o, ok := got.(value.Object); ok && !bytes.Contains(written, o.Pickle[2:len(o.Pickle)-1]) {
				t.Errorf("%q is not in %q", o.Pickle, written)
			}
		})
	}
	if n < 400 {
		t.Errorf("only %d pickles", n)
	}
}

// hasNull reports whether something in the expected data has no form in it.
func hasNull(data []byte) bool { return bytes.Contains(data, []byte("null")) }

func TestValuesOfAppEngineAndTheStandardLibraryAreRead(t *testing.T) {
	raw, err := os.ReadFile("testdata/values.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []recorded }
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"ndb.Key": "google.appengine.ext.ndb.key.Key", "ndb entity": "__main__.M",
		"users.User": "google.appengine.api.users.User", "GeoPt": "google.appengine.api.datastore_types.GeoPt",
		"db.Text": `"x"`, "defaultdict": `{"a":[1]}`, "Counter": `{"a":2,"b":1}`, "deque": `[1]`, "Fraction": `"1/2"`,
		"time tz": `{"$time":"01:00:00+00:00"}`, "bytes in dict": `{"$dict":[[{"$bytes":"YQ=="},{"$bytes":"Yg=="}]]}`,
		"OrderedDict nested": `{"a":{"b":1}}`,
	}
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			in := c.bytes(t)
			got := sessionOf(t, in)
			if o, ok := got.(value.Object); ok && o.Holds == nil {
				if o.Class != want[c.Name] {
					t.Errorf("class %s", o.Class)
				}
			} else if text := string(value.MarshalTagged(got)); text != want[c.Name] {
				t.Errorf("got %s, want %s", text, want[c.Name])
			}
			v, err := pickle.Decode(in)
			if err != nil {
				t.Fatal(err)
			}
			if written, err := pickle.Encode(v); err != nil || !value.Equal(sessionOf(t, written), got) {
				t.Errorf("written as %q, %v", written, err)
			}
		})
	}
}

func TestAnObjectCanBeReadAsItsClassArgumentsAndState(t *testing.T) {
	user := "\x80\x02}X\x01\x00\x00\x00vcgoogle.appengine.api.users\nUser\n)\x81}X\x0c\x00\x00\x00_User__emailX\x03\x00\x00\x00a@bsbs."
	o := sessionOf(t, []byte(user)).(value.Object)
	if o.Class != "google.appengine.api.users.User" || o.Args == nil || len(o.Args) != 0 || o.Holds != nil ||
		!value.Equal(o.State, dict(t, "_User__email", "a@b")) {
		t.Errorf("%+v", o)
	}
	want := map[string]any{"class": o.Class, "args": []any{}, "state": map[string]any{"_User__email": "a@b"}}
	if got := fmt.Sprint(value.Plain(o)); got != fmt.Sprint(want) {
		t.Errorf("plain: %s", got)
	}
	// The pickle of the object alone is a pickle.
	if alone, err := pickle.Decode(o.Pickle); err != nil || !value.Equal(alone, o) {
		t.Errorf("%v, %v", alone, err)
	}
	class := sessionOf(t, []byte("\x80\x02}X\x01\x00\x00\x00vcforms\nLogin\ns.")).(value.Object)
	if class.Class != "forms.Login" || class.Args != nil {
		t.Errorf("a class: %+v", class)
	}
}

func TestAnObjectKeepsWhatItSharesWithTheRestOfTheSession(t *testing.T) {
	// The text and the list are made outside of the object, which only fetches them.
	p := "\x80\x02}(X\x01\x00\x00\x00aX\x06\x00\x00\x00sharedq\x05X\x01\x00\x00\x00b]q\x09(K\x01h\x05eX\x01\x00\x00\x00v" +
		"capp\nCart\n)\x81q\x0b}(h\x05h\x09h\x0bh\x05ubu."
	o := sessionOf(t, []byte(p)).(value.Object)
	want := "\x80\x02capp\nCart\n)\x81q\x00}(X\x06\x00\x00\x00sharedq\x01]q\x02(K\x01h\x01eh\x00h\x01ub."
	if string(o.Pickle) != want {
		t.Errorf("%q", o.Pickle)
	}
}

func TestObjectsThatNoPicklerWritesAreRefused(t *testing.T) {
	for name, p := range map[string]string{
		"a list grows after it was used":         "](]q\x00capp\nCart\nh\x00\x85Rh\x00K\x01ae.",
		"a value is doubled":                     "]capp\nCart\n)2\x86Ra.",
		"an object is changed from elsewhere":    "](capp\nCart\n)Rq\x00h\x00}be.",
		"state for a list inside of an object":   "capp\nCart\n]}b\x85R.",
		"a call of an object":                    "capp\nCart\n)R)R.",
		"keyword arguments that are none":        "\x80\x04capp\nCart\n)]\x92.",
		"an object of a text":                    "X\x01\x00\x00\x00a)\x81.",
		"a class that is named by a number":      "\x80\x04K\x01K\x02\x93.",
		"a reconstruction of nothing":            "ccopy_reg\n_reconstructor\n)R.",
		"a reconstruction of a text":             "ccopy_reg\n_reconstructor\n(X\x01\x00\x00\x00ac__builtin__\nobject\nNtR.",
		"a new object of nothing":                "ccopy_reg\n__newobj__\n)R.",
		"a new object with words, of nothing":    "ccopy_reg\n__newobj_ex__\n)R.",
		"an attribute of nothing":                "c__builtin__\ngetattr\n)R.",
		"an odd number of keys and values":       "capp\nCart\n)R(K\x01u.",
		"a decimal that is none, in an object":   "capp\nCart\ncdecimal\nDecimal\nX\x01\x00\x00\x00x\x85R\x85R.",
		"arguments that are no tuple":            "capp\nCart\n]R.",
		"an entity without content, in a list":   "](igoogle.appengine.datastore.entity_pb\nEntityProto\na.",
		"an entity whose content is a number":    "(igoogle.appengine.datastore.entity_pb\nEntityProto\nK\x01b.",
		"time zone that is none, in an object":   "capp\nCart\ncdatetime\ntimezone\n)R\x85R.",
		"a dictionary with a key that cannot be": "ccollections\nOrderedDict\n)R]Ns.",
	} {
		if v, err := pickle.Decode([]byte(p)); !errors.Is(err, reason.Decode) {
			t.Errorf("%s: %s, %v", name, value.MarshalTagged(v), err)
		}
	}
}

func TestObjectsCostWhatTheyTake(t *testing.T) {
	sized := func(op string, n int) string {
		return op + string([]byte{byte(n), byte(n >> 8), byte(n >> 16), 0}) + strings.Repeat("7", n)
	}
	for name, bomb := range map[string]string{
		"one object in many places": "](capp\nCart\n" + sized("X", 100_000) + "\x85Rq\x00" + strings.Repeat("h\x00", 50_000) + "e.",
		"many objects of one text":  sized("X", 100_000) + "q\x000](" + strings.Repeat("capp\nCart\nh\x00\x85R", 20_000) + "e.",
		"many objects of one list":  "](" + strings.Repeat("N", 10_000) + "eq\x000](" + strings.Repeat("capp\nCart\nh\x00\x85R", 20_000) + "e.",
		"many fractions of one number": "\x8b\x00\x10\x00\x00" + strings.Repeat("\x7f", 4096) + "q\x000](" +
			strings.Repeat("cfractions\nFraction\nh\x00K\x07\x86R", 20_000) + "e.",
		"many paths of one text":      sized("X", 100_000) + "q\x000](" + strings.Repeat("cpathlib\nPurePath\nh\x00\x85R", 20_000) + "e.",
		"many addresses of one":       sized("X", 100_000) + "q\x000](" + strings.Repeat("cipaddress\nIPv4Network\nh\x00\x85R", 20_000) + "e.",
		"many ranges":                 "](" + strings.Repeat("c__builtin__\nxrange\nK\x00M\x10\x27K\x01\x87R", 20_000) + "e.",
		"many defaultdicts of one":    "](c" + strings.Repeat("a", 100_000) + "\nlist\nq\x00" + strings.Repeat("ccollections\ndefaultdict\nh\x00\x85R", 20_000) + "e.",
		"many names of one text":      "\x80\x04" + sized("X", 100_000) + "q\x00" + strings.Repeat("h\x00\x93", 20_000) + "h\x00\x93.",
		"many names, each in a list":  "\x80\x04" + sized("X", 100_000) + "q\x000](" + strings.Repeat("h\x00h\x00\x93", 20_000) + "e.",
		"attributes of attributes":    "c" + strings.Repeat("a", 50_000) + "\nb\nq\x000](" + strings.Repeat("c__builtin__\ngetattr\nh\x00X\x01\x00\x00\x00a\x86R", 20_000) + "e.",
		"counters of one dictionary":  "}(" + strings.Repeat("K\x01N", 20_000) + "uq\x000](" + strings.Repeat("ccollections\nCounter\nh\x00\x85R", 20_000) + "e.",
		"objects inside of objects":   "capp\nCart\nq\x000N" + strings.Repeat("q\x01h\x00h\x01h\x01\x86R", 60) + ".",
		"one object as a key of many": "capp\nCart\n" + sized("X", 100_000) + "\x85Rq\x000](" + strings.Repeat("}h\x00Ns", 20_000) + "e.",
		"time zones that do not exist": "](" + strings.Repeat("c__builtin__\ngetattr\nczoneinfo\nZoneInfo\nX\x09\x00\x00\x00_unpickle\x86R"+
			"X\x03\x00\x00\x00Xxx\x89\x86R", 20_000) + "e.",
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			spent := allocated(func() { _, err = pickle.Decode([]byte(bomb)) })
			if reason.Of(err) == "" || spent > 64<<20 {
				t.Errorf("%v, %d MiB allocated for %d KiB", err, spent>>20, len(bomb)>>10)
			}
		})
	}
}

func TestAChangedDictionaryKeepsItsClass(t *testing.T) {
	b, err := base64.StdEncoding.DecodeString("gAJ9cQBYAQAAAHZxAWNjb2xsZWN0aW9ucwpkZWZhdWx0ZGljdApxAmNfX2J1aWx0aW5fXwpsaXN0CnEDhXEEUnEFWAEAAABhcQZdcQdLAWFzcy4=")
	if err != nil {
		t.Fatal(err)
	}
	d := sessionOf(t, b).(*value.Dict)
	d.Set("b", []any{int64(2)})
	if class := d.Type.Class; class != "collections.defaultdict" || d.Type.Args[0].(value.Object).Class != "builtins.list" {
		t.Errorf("%s", class)
	}
	want := "\x80\x02ccollections\ndefaultdict\nc__builtin__\nlist\n\x85R(X\x01\x00\x00\x00a](K\x01eX\x01\x00\x00\x00b](K\x02eu."
	for name, v := range map[string]any{"itself": d, "a clone": d.Clone()} {
		if got, err := pickle.Encode(v); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestATimeInAZoneIsThatInstant(t *testing.T) {
	for text, d := range map[string]value.DateTime{
		"2021-07-01T10:00:00Z": {Year: 2021, Month: 7, Day: 1, Hour: 12},
		"2021-10-31T00:30:00Z": {Year: 2021, Month: 10, Day: 31, Hour: 2, Minute: 30},
		"2021-10-31T01:30:00Z": {Year: 2021, Month: 10, Day: 31, Hour: 2, Minute: 30, Fold: true},
	} {
		zone, err := time.LoadLocation("Europe/Amsterdam")
		if err != nil {
			t.Fatal(err)
		}
		d = d.In(zone)
		if got := d.Time().Format(time.RFC3339); got != text || d.Zone != zone {
			t.Errorf("%s is %s", d, got)
		}
		written, err := pickle.Encode(d)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := pickle.Decode(written); err != nil || !value.Equal(again, d) {
			t.Errorf("%v is read back as %v, %v", d, again, err)
		}
	}
}

func TestAnObjectIsNotWrittenWithoutItsPickle(t *testing.T) {
	cart := sessionOf(t, []byte("\x80\x02}X\x01\x00\x00\x00vcapp\nCart\ncapp\nItem\n)R\x85Rs.")).(value.Object)
	newer := sessionOf(t, []byte("\x80\x04}X\x01\x00\x00\x00v\x8c\x03app\x8c\x04Cart\x93)Rs.")).(value.Object)
	forged := cart
	forged.Pickle = []byte("\x80\x02N.")
	torn := cart
	torn.Pickle = cart.Pickle[:len(cart.Pickle)-3]
	for name, v := range map[string]any{
		"the inner one": cart.Args[0], "one with another pickle": forged, "one with half a pickle": torn,
		"one of Python 2 beside one of Python 3": []any{cart, newer},
	} {
		if b, err := pickle.Encode(v); !errors.Is(err, value.ErrUnsupported) {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	// What is beside an object of Python 3 is written in the words of Python 3.
	got, err := pickle.Encode([]any{newer, value.Set{}})
	if err != nil || string(got) != "\x80\x04](\x8c\x03app\x8c\x04Cart\x93)Rcbuiltins\nset\n]\x85Re." {
		t.Errorf("%q, %v", got, err)
	}
}
