package main

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/keys"
)

// findingJSON is the documented output of inspect.
type findingJSON struct {
	Kind       string     `json:"kind"`
	Cookie     string     `json:"cookie"`
	Handle     string     `json:"handle"`
	Generation *uint64    `json:"generation"`
	Version    uint64     `json:"version"`
	Expires    *time.Time `json:"expires"`
	Key        string     `json:"key"`
	Stale      bool       `json:"stale"`
	Record     *rowJSON   `json:"record"`
	Session    *struct {
		User       string     `json:"user"`
		LoggedIn   *time.Time `json:"logged_in"`
		Created    *time.Time `json:"created"`
		LastSeen   *time.Time `json:"last_seen"`
		UserAgent  string     `json:"user_agent"`
		IP         string     `json:"ip"`
		Generation uint64     `json:"generation"`
		Idle       *float64   `json:"idle_seconds"`
		Lifetime   *float64   `json:"lifetime_seconds"`
		Persist    string     `json:"persist"`
		Values     []struct {
			Name       string     `json:"name"`
			Bytes      int        `json:"bytes"`
			ServerSide bool       `json:"server_side"`
			Volatile   bool       `json:"volatile"`
			Expires    *time.Time `json:"expires"`
			CBOR       string     `json:"cbor"`
			Base64     string     `json:"base64"`
		} `json:"values"`
		Flashes []struct {
			Level string  `json:"level"`
			Text  *string `json:"text"`
		} `json:"flashes"`
	} `json:"session"`
}

var (
	theme = sojourn.NewKey[string]("theme")
	state = sojourn.NewKey[string]("state", sojourn.TTL(time.Hour), sojourn.Volatile)
	blob  = sojourn.NewKeyCodec[string]("bytes", rawCodec{})
)

// rawCodec keeps a string as it is, which is not CBOR.
type rawCodec struct{}

func (rawCodec) Encode(s string) ([]byte, error) { return []byte(s), nil }
func (rawCodec) Decode(b []byte) (string, error) { return string(b), nil }

func open1(t *testing.T, c call, args ...string) findingJSON {
	t.Helper()
	var found []findingJSON
	c.run(t, append([]string{"inspect", "-json"}, args...)...).ok(t).json(t, &found)
	if len(found) != 1 {
		t.Fatalf("got %d findings: %+v", len(found), found)
	}
	return found[0]
}

// cookieValue returns the value of a cookie in a Cookie header.
func cookieValue(t *testing.T, header, name string) string {
	t.Helper()
	for pair := range strings.SplitSeq(header, "; ") {
		if n, v, _ := strings.Cut(pair, "="); n == name {
			return v
		}
	}
	t.Fatalf("no cookie %s", name)
	return ""
}

func TestInspectOpensASessionInACookie(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	handle, cookies := s.visit(t, func(session *sojourn.Session) {
		theme.Set(session, "dark-and-secret")
		state.Set(session, "xyz")
		session.Remember(true)
		session.SetExpiry(time.Hour, 0)
	})
	f := open1(t, call{stdin: "Cookie: other=1; " + cookies + "\n"}, "--keys", s.keys)
	if f.Kind != "inline" || f.Cookie != "__Host-session-state" || f.Handle != handle || f.Version != 1 || f.Stale || len(f.Key) != 8 || f.Expires == nil {
		t.Errorf("got %+v", f)
	}
	in := f.Session
	if in.User != "" || in.Persist != "always" || in.Idle == nil || *in.Idle != 3600 || in.Lifetime != nil || in.Created == nil || in.LastSeen == nil {
		t.Errorf("the session is %+v", in)
	}
	if len(in.Values) != 2 || in.Values[1].Name != "theme" || in.Values[1].Bytes != len("dark-and-secret")+1 || in.Values[1].Expires != nil {
		t.Errorf("the values are %+v", in.Values)
	}
	if v := in.Values[0]; v.Name != "state" || !v.Volatile || v.ServerSide || v.Expires == nil {
		t.Errorf("the state is %+v", v)
	}
}

func TestInspectShowsValuesOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	_, cookies := s.visit(t, func(session *sojourn.Session) {
		theme.Set(session, "dark-and-secret")
		blob.Set(session, "\xff\xfe")
		session.Set("cart", map[string]int{"mug": 2})
	})
	for _, format := range []string{"--json", "--no-json"} {
		args := []string{"inspect", "--keys", s.keys}
		if format == "--json" {
			args = append(args, format)
		}
		in := call{stdin: cookies}
		if hidden := in.run(t, args...).ok(t).stdout; strings.Contains(hidden, "dark-and-secret") || strings.Contains(hidden, "mug") {
			t.Errorf("%s: values are shown: %s", format, hidden)
		}
		shown := strings.ReplaceAll(in.run(t, append(args, "--values")...).ok(t).stdout, `\"`, `"`)
		for _, want := range []string{`"dark-and-secret"`, `{"mug": 2}`, base64.StdEncoding.EncodeToString([]byte("\xff\xfe"))} {
			if !strings.Contains(shown, want) {
				t.Errorf("%s: %s is not shown: %s", format, want, shown)
			}
		}
	}
}

func TestInspectOpensAReferenceAndItsRecord(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	handle, cookies := s.visit(t, func(session *sojourn.Session) {
		session.Login("ada")
		cart.Set(session, []string{"mug"})
	})
	f := open1(t, call{stdin: cookies}, "--keys", s.keys)
	if f.Kind != "reference" || f.Cookie != "__Host-session" || f.Handle != handle || f.Generation == nil || *f.Generation != 0 || f.Session != nil {
		t.Errorf("got %+v", f)
	}
	var both []findingJSON
	call{stdin: cookies}.run(t, "inspect", "-json", "--keys", s.keys, "--store", s.store).ok(t).json(t, &both)
	if len(both) != 2 || both[1].Kind != "record" || both[1].Session.User != "ada" || both[1].Record.State != "live" {
		t.Errorf("with its store: %+v", both)
	}
	text := call{stdin: cookies}.run(t, "inspect", "--keys", s.keys, "--store", s.store).ok(t).stdout
	for _, want := range []string{"__Host-session: reference", "stored session", "ada", "cart", "hidden"} {
		if !strings.Contains(text, want) {
			t.Errorf("as text, %q is missing: %s", want, text)
		}
	}
}

func TestInspectOpensARecordByItsHandle(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{Name: "staff"})
	handle, _ := s.visit(t, func(session *sojourn.Session) {
		session.Login("ada")
		cart.Set(session, []string{"mug"})
	})
	f := open1(t, call{}, handle, "--keys", s.keys, "--store", s.store, "--name", "staff", "--values")
	if f.Kind != "record" || f.Handle != handle || f.Version != 1 || f.Session.User != "ada" || f.Session.LoggedIn == nil {
		t.Errorf("got %+v", f)
	}
	if v := f.Session.Values; len(v) != 1 || !v[0].ServerSide || v[0].CBOR != `["mug"]` {
		t.Errorf("the values are %+v", v)
	}
	sojournCommand(t, "inspect", handle, "--keys", s.keys, "--store", s.store).refused(t, exitFailed, "--name")
	mark := s.keep(t, "ended", ended)
	if f := open1(t, call{}, mark, "--keys", s.keys, "--store", s.store); f.Record.State != "ended" || f.Session != nil {
		t.Errorf("a tombstone: %+v", f)
	}
}

func TestInspectWarnsWhenTheStoreHasNoSuchSession(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	_, cookies := s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	elsewhere := newService(t, sojourn.Config{})
	r := call{stdin: cookies}.run(t, "inspect", "--keys", s.keys, "--store", elsewhere.store)
	if r.status != exitOK || !strings.Contains(r.stderr, "warning: ") || !strings.Contains(r.stdout, "reference") {
		t.Errorf("%+v", r)
	}
}

func TestInspectNeverPrintsTheIdentifier(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	_, stored := s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	_, inline := s.visit(t, func(session *sojourn.Session) { theme.Set(session, "dark") })
	text, err := os.ReadFile(s.keys)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := seal.ParseKeys(string(text))
	if err != nil {
		t.Fatal(err)
	}
	unseal := func(p seal.Purpose, value string) []byte {
		sealed, err := wire.Text.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		plain, _, err := ring.Open(nil, p, sealed, wire.Bind("session"))
		if err != nil {
			t.Fatal(err)
		}
		return plain
	}
	reference, err := wire.ParseReference(unseal(seal.Reference, cookieValue(t, stored, "__Host-session")))
	if err != nil {
		t.Fatal(err)
	}
	// This contains the inline session's identifier; no part of it that is long
	// enough to be one may be printed.
	secrets := [][]byte{reference.Identifier}
	whole := unseal(seal.State, cookieValue(t, inline, "__Host-session-state"))
	for i := 0; i+32 <= len(whole); i++ {
		secrets = append(secrets, whole[i:i+32])
	}
	for _, cookies := range []string{stored, inline} {
		for _, more := range [][]string{nil, {"--json"}} {
			r := call{stdin: cookies}.run(t, append([]string{"inspect", "--values", "--keys", s.keys, "--store", s.store}, more...)...).ok(t)
			for _, secret := range secrets {
				for _, form := range []string{
					string(secret), hex.EncodeToString(secret),
					base64.RawStdEncoding.EncodeToString(secret), base64.RawURLEncoding.EncodeToString(secret),
				} {
					if strings.Contains(r.stdout+r.stderr, form) {
						t.Errorf("the identifier is in %s", r.stdout)
					}
				}
			}
		}
	}
}

func TestInspectTakesACookieInEveryForm(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	handle, header := s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	value := cookieValue(t, header, "__Host-session")
	file := filepath.Join(t.TempDir(), "cookie")
	if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		stdin string
		args  []string
	}{
		"a value on standard input":   {value + "\n", nil},
		"a dash for standard input":   {value, []string{"--", "-"}},
		"a value in a file":           {"", []string{"--file", file}},
		"a header line":               {"Cookie: a=b; __Host-session=" + value, nil},
		"a header without its name":   {"__Host-session=" + value + "; a=b", nil},
		"a Set-Cookie line":           {"set-cookie: __Host-session=" + value + "; Path=/; HttpOnly; Secure; SameSite=Lax", nil},
		"several lines":               {"Set-Cookie: a=b\r\nSet-Cookie: __Host-session=" + value + "; Path=/\r\n", nil},
		"with a domain":               {"__Secure-session=" + value, nil},
		"without a prefix":            {"session=" + value, nil},
		"in quotes":                   {`session="` + value + `"`, nil},
		"behind a planted one":        {"session=planted; session=" + value, nil},
		"a deleted state cookie, too": {"__Host-session-state=; __Host-session=" + value, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := open1(t, call{stdin: tt.stdin}, append([]string{"--keys", s.keys}, tt.args...)...)
			if f.Kind != "reference" || f.Handle != handle {
				t.Errorf("got %+v", f)
			}
		})
	}
}

func TestInspectJoinsNumberedCookies(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{Mode: sojourn.CookieOnly, InlineLimit: 15000})
	long := strings.Repeat("abc", 3000)
	handle, cookies := s.visit(t, func(session *sojourn.Session) { theme.Set(session, long) })
	if n := strings.Count(cookies, "="); n < 3 {
		t.Fatalf("%d cookies", n)
	}
	f := open1(t, call{stdin: "Cookie: " + cookies}, "--keys", s.keys, "--values")
	if f.Kind != "inline" || f.Handle != handle || f.Session.Values[0].CBOR != `"`+long+`"` {
		t.Errorf("got kind %s, handle %s", f.Kind, f.Handle)
	}
	incomplete := strings.Replace(cookies, "-state-1=", "-lost=", 1)
	call{stdin: incomplete}.run(t, "inspect", "--keys", s.keys).refused(t, exitFailed, "__Host-session-state")
}

func TestInspectSaysWhatIsWrongWithACookie(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	_, header := s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	value := cookieValue(t, header, "__Host-session")
	foreign := newService(t, sojourn.Config{})
	other := "A"
	if strings.HasSuffix(value, "A") {
		other = "E"
	}
	for name, tt := range map[string]struct {
		stdin string
		args  []string
		says  string
	}{
		"damaged":               {value[:60] + flip(value[60]) + value[61:], nil, "damaged"},
		"cut off":               {value[:48], nil, "damaged"},
		"not base64url":         {"session=planted!", nil, "base64url"},
		"two spellings":         {value[:len(value)-1] + other + "A", nil, "damaged"},
		"the keys of others":    {value, []string{"--keys", foreign.keys}, "is not among the keys"},
		"another name":          {value, []string{"--name", "staff"}, "--name"},
		"no cookie of ours":     {"a=b; c=d", nil, `named "session"`},
		"two of them":           {"session=planted!; session=" + value[:48], nil, "base64url"},
		"the wrong kind":        {"session-state=" + value, nil, "does not open"},
		"megabytes of nonsense": {strings.Repeat("A", 3<<20), nil, "key 00000000"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"inspect", "--keys", s.keys}, tt.args...)
			r := call{stdin: tt.stdin}.run(t, args...)
			r.refused(t, exitFailed, tt.says)
			if strings.Contains(r.stderr, value[:40]) {
				t.Errorf("the error repeats the cookie: %q", r.stderr)
			}
		})
	}
}

// flip returns another character of base64url.
func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func TestInspectSaysThatAKeyIsOutdated(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	_, cookies := s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	text, err := os.ReadFile(s.keys)
	if err != nil {
		t.Fatal(err)
	}
	retired := strings.NewReplacer("\nentries:2", "\nentries:3", "\nactive:", "\nretired:").Replace(string(text)) + keys.Generate() + "\n"
	if err := os.WriteFile(s.keys, []byte(retired), 0o600); err != nil {
		t.Fatal(err)
	}
	if f := open1(t, call{stdin: cookies}, "--keys", s.keys); !f.Stale {
		t.Errorf("got %+v", f)
	}
	if r := (call{stdin: cookies}).run(t, "inspect", "--keys", s.keys).ok(t); !strings.Contains(r.stdout, "no longer seals") {
		t.Errorf("as text: %s", r.stdout)
	}
}
