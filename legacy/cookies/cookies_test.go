package cookies_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/reason"
)

func parse(fields ...string) []cookies.Cookie {
	return cookies.Parse(http.Header{"Cookie": fields})
}

func TestHeadersAreReadAsTheOldLibrariesDo(t *testing.T) {
	for _, c := range []struct {
		name, header string
		want         []cookies.Cookie
	}{
		{"bare", "a=1; b=two", []cookies.Cookie{{"a", "1", "1"}, {"b", "two", "two"}}},
		{"no space", "a=1;b=2", []cookies.Cookie{{"a", "1", "1"}, {"b", "2", "2"}}},
		{"spaces everywhere", "  a = 1 ;; b= 2  ", []cookies.Cookie{{"a", "1", "1"}, {"b", "2", "2"}}},
		{"empty value", "a=; b=2", []cookies.Cookie{{"a", "", ""}, {"b", "2", "2"}}},
		{"equals signs in the value", "a=eyJ9==|1|ff", []cookies.Cookie{{"a", "eyJ9==|1|ff", "eyJ9==|1|ff"}}},
		{"quoted", `a="x y"; b=2`, []cookies.Cookie{{"a", `"x y"`, "x y"}, {"b", "2", "2"}}},
		{"separators inside quotes", `a="x;y,z"; b=2`, []cookies.Cookie{{"a", `"x;y,z"`, "x;y,z"}, {"b", "2", "2"}}},
		{"octal", `a="Q\075\075|1"`, []cookies.Cookie{{"a", `"Q\075\075|1"`, "Q==|1"}}},
		{"octal beyond ASCII", `a="\303\251"`, []cookies.Cookie{{"a", `"\303\251"`, "é"}}},
		{"escaped quote and backslash", `a="\"\\"`, []cookies.Cookie{{"a", `"\"\\"`, `"\`}}},
		{"no octal above 255", `a="\477"`, []cookies.Cookie{{"a", `"\477"`, "477"}}},
		{"escapes of a bare value stay", `a=\101`, []cookies.Cookie{{"a", `\101`, `\101`}}},
		{"percent and plus stay", "a=%41+b", []cookies.Cookie{{"a", "%41+b", "%41+b"}}},
		{"a word without a value is skipped", "junk; a=1; more", []cookies.Cookie{{"a", "1", "1"}}},
		{"a value without a name is skipped", "=x; a=1", []cookies.Cookie{{"a", "1", "1"}}},
		{"junk after the quotes is skipped", `a="x"junk; b=2`, []cookies.Cookie{{"a", `"x"`, "x"}, {"b", "2", "2"}}},
		{"a quote without an end is a bare value", `a="x; b=2`, []cookies.Cookie{{"a", `"x`, `"x`}, {"b", "2", "2"}}},
		{"names keep their case", "A=1; a=2", []cookies.Cookie{{"A", "1", "1"}, {"a", "2", "2"}}},
		{"duplicates are kept", "a=1; a=2", []cookies.Cookie{{"a", "1", "1"}, {"a", "2", "2"}}},
		{"nothing", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := parse(c.header); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestSeveralCookieFieldsAreReadInOrder(t *testing.T) {
	got := parse("a=1", "b=2; a=3")
	if len(got) != 3 || got[2].Value != "3" {
		t.Errorf("got %q", got)
	}
}

func TestTheLastCookieOfANameComesFirstAndOnlyAFewCount(t *testing.T) {
	all := parse("x=0; x=1; x=2; y=9; x=3; x=4")
	var got []string
	for _, c := range cookies.Named(all, "x") {
		got = append(got, c.Value)
	}
	if !slices.Equal(got, []string{"4", "3", "2", "1"}) {
		t.Errorf("got %q", got)
	}
}

func TestQuotedValuesAreReadBack(t *testing.T) {
	for _, value := range []string{"", "plain", "eyJ9==|1", `{"a": 1, "b": [1, 2]}`, "a;b,c\\d\"e", "é😀", "\x00\x7f\xff", " "} {
		quoted := cookies.Quote(value)
		if strings.ContainsAny(strings.Trim(quoted, `"`), ";,") {
			t.Errorf("%q is written as %s", value, quoted)
		}
		if got := parse("a=" + quoted + "; b=1"); got[0].Value != value {
			t.Errorf("%q is written as %s and read as %q", value, quoted, got[0].Value)
		}
	}
	if got := cookies.Quote(`{"a": 1, "b": "x;"}`); got != `"{\"a\": 1\054 \"b\": \"x\073\"}"` {
		t.Errorf("not as Python writes it: %s", got)
	}
}

func TestSetCookieFields(t *testing.T) {
	at := time.Date(2014, 5, 13, 16, 53, 20, 0, time.UTC)
	full := cookies.Attributes{Domain: ".example.com", Path: "/app", MaxAge: 1209600, Secure: true, HTTPOnly: true, SameSite: "Lax"}
	for _, c := range []struct{ got, want string }{
		{cookies.Set("a", "1", cookies.Attributes{}), "a=1; Path=/"},
		{
			cookies.Set("a", "1", full.At(at)),
			"a=1; Domain=.example.com; Expires=Tue, 27 May 2014 16:53:20 GMT; Max-Age=1209600; Path=/app; Secure; HttpOnly; SameSite=Lax",
		},
		{
			cookies.Expire("a", full),
			"a=; Domain=.example.com; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/app; Secure; HttpOnly; SameSite=Lax",
		},
	} {
		if c.got != c.want {
			t.Errorf("got  %s\nwant %s", c.got, c.want)
		}
	}
}

func TestBase64IsStrict(t *testing.T) {
	if b, ok := cookies.Base64("eyJ9"); !ok || string(b) != "{\"}" {
		t.Errorf("got %q, %v", b, ok)
	}
	for _, bad := range []string{"eyJhIjoxfQ", "eyJ\n9", "eyJ\r9", "ey*J9", "eyJ_", "QQ=A", "QR=="} {
		if _, ok := cookies.Base64(bad); ok {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`a="x\075\"";b=2`, "a=1; ;;=;x", `"=";\`, `a="\3`, "a=\"\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		total := 0
		for _, c := range parse(header) {
			if c.Name == "" || len(c.Value) > len(c.Raw) || !strings.Contains(header, c.Raw) {
				t.Errorf("%q: %q", header, c)
			}
			total += len(c.Name) + len(c.Raw)
			if read := parse("n=" + cookies.Quote(c.Value)); len(read) != 1 || read[0].Value != c.Value {
				t.Errorf("%q is not read back", c.Value)
			}
		}
		if total > len(header) {
			t.Errorf("%d bytes of cookies in %d", total, len(header))
		}
	})
}

func TestSetCookieFieldsAreTakenApart(t *testing.T) {
	for field, want := range map[string]struct {
		name, raw string
		removed   bool
	}{
		`session=abc==; Path=/; HttpOnly`:                 {"session", "abc==", false},
		` DgU00="a;b=\"c"; expires=Tue; Path=/`:           {"DgU00", `"a;b=\"c"`, false},
		`session=; Expires=Thu, 01 Jan 1970 00:00:00 GMT`: {"session", "", true},
		`session=abc; Path=/; max-age=0`:                  {"session", "abc", true},
		`session=abc; Max-Age=10`:                         {"session", "abc", false},
		`session`:                                         {"session", "", true},
		`session = abc `:                                  {"session", "abc", false},
	} {
		name, raw, removed := cookies.ParseSet(field)
		if name != want.name || strings.TrimSpace(raw) != want.raw || removed != want.removed {
			t.Errorf("%s: %q, %q, %v", field, name, raw, removed)
		}
	}
}

func TestFirst(t *testing.T) {
	down := errors.New("the store does not answer")
	read := func(value string) (string, error) {
		switch value {
		case "expired":
			return "", fmt.Errorf("it: %w", reason.Expired)
		case "damaged":
			return "", reason.Malformed
		case "down":
			return "", down
		}
		return value, nil
	}
	for header, want := range map[string]struct {
		value string
		err   error
	}{
		"":                       {"", reason.Missing},
		"other=a; s=":            {"", reason.Missing},
		"s=b; s=damaged; s=":     {"b", nil},
		"s=damaged; s=expired":   {"", reason.Expired}, // the last one is tried first
		"s=expired; s=damaged":   {"", reason.Malformed},
		"s=a; s=down; s=damaged": {"", down},
	} {
		got, err := cookies.First(http.Header{"Cookie": {header}}, "s", read)
		if got != want.value || !errors.Is(err, want.err) {
			t.Errorf("%q: %q, %v; want %q, %v", header, got, err, want.value, want.err)
		}
	}
}
