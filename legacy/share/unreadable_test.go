package share_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/beaker"
	"github.com/sojourn-go/sojourn/legacy/gorilla"
	"github.com/sojourn-go/sojourn/legacy/pickle"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/scs"
	"github.com/sojourn-go/sojourn/legacy/share"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// unreadable are pickles of sessions that an old application may be able to read.
var unreadable = map[string]string{
	"a value that refers to what is not there": "\x80\x02}X\x01\x00\x00\x00nX\x01\x00\x00\x00xQs.",
	"a newer protocol":                         "\x80\x06}X\x01\x00\x00\x00nK\x01s.",
	"an extension code":                        "\x80\x02}X\x01\x00\x00\x00n\x82\x01s.",
	"too many values":                          "\x80\x02}X\x01\x00\x00\x00n](" + strings.Repeat("N", 300_000) + "es.",
	"values that are nested too deeply":        "\x80\x02}X\x01\x00\x00\x00n" + strings.Repeat("]", 300) + strings.Repeat("a", 299) + "s.",
	"damage":                                   "\x80\x02}X\x01\x00\x00\x00nK\x01",
	"nothing":                                  "",
}

// content returns what all stores hold.
func (w *world) content() map[string]string {
	out := map[string]string{}
	note := func(store string) func(string, []byte) []byte {
		return func(key string, v []byte) []byte { out[store+key] = string(v); return v }
	}
	w.memcache.Edit(note("memcache "))
	w.files.Edit(note("file "))
	w.datastore.Edit(note("datastore "))
	return out
}

// spoil replaces a stored session by a pickle, in its format's form.
func (w *world) spoil(name, p string) {
	put := func(_ string, _ []byte) []byte { return []byte(p) }
	switch name {
	case "beaker":
		text := base64.StdEncoding.EncodeToString([]byte(p))
		d := value.NewDict()
		d.Set("session", pickle.Native(text))
		b, err := pickle.Encode(d)
		if err != nil {
			panic(err)
		}
		put = func(string, []byte) []byte { return b }
	case "gae-sessions":
		if strings.HasSuffix(p, ".") {
			p = p[:2] + "}" + p[2:len(p)-1] + "\x86."
		}
	}
	w.memcache.Edit(put)
	w.files.Edit(put)
	w.datastore.Edit(put)
}

func TestASessionThatCannotBeReadIsLeftAsItIs(t *testing.T) {
	each(t, func(t *testing.T, name string, w *world, v *visitor) {
		if strings.HasSuffix(name, "cookie") {
			return // see the next test
		}
		for what, p := range unreadable {
			v.python(func(d *value.Dict) { d.Set("n", []any{int64(1)}) })
			s := v.open()
			_ = s.Set("n", 2)
			w.spoil(name, p)
			before := w.content()
			for step, err := range map[string]error{
				"Open": func() error { _, err := v.shared.Open(ctx, v.header()); return err }(),
				"Save": s.Save(ctx, http.Header{}),
			} {
				if !errors.Is(err, reason.ErrUnreadable) || reason.Of(err) == "" || errors.Is(err, sojourn.ErrUnavailable) || errors.Is(err, sojourn.ErrEnded) {
					t.Errorf("%s: %s: %v", what, step, err)
				}
			}
			if after := w.content(); !maps.Equal(before, after) {
				t.Errorf("%s was written over", what)
			}
			v.jar = map[string]string{} // begin again
		}
	})
}

func TestACookieThatCannotBeReadIsLeftAsItIs(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString
	hexMAC := func(text string) string {
		mac := hmac.New(sha1.New, secret)
		mac.Write([]byte(text))
		return hex.EncodeToString(mac.Sum(nil))
	}
	sid := "9999999999_" + strings.Repeat("a", 32)
	cookies := map[string]func(p string) string{
		"beaker cookie": func(p string) string { return "beaker.session.id=" + hexMAC(b64([]byte(p))) + b64([]byte(p)) },
		"gae-sessions cookie": func(p string) string {
			if strings.HasSuffix(p, ".") {
				p = p[:2] + "}" + p[2:len(p)-1] + "\x86."
			}
			mac := hmac.New(sha256.New, append([]byte(string(secret)), sid...))
			mac.Write([]byte(p))
			return `DgU00="` + b64(mac.Sum(nil)) + sid + b64([]byte(p)) + `"`
		},
		"webapp2 cookie": func(p string) string {
			text := `{"n":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}`
			if !strings.HasSuffix(p, ".") {
				text = `{"n":`
			}
			payload, at := b64([]byte(text)), fmt.Sprint(time.Now().Unix())
			return "session=" + payload + "|" + at + "|" + hexMAC("session|"+payload+"|"+at)
		},
	}
	for name, cookie := range cookies {
		for what, p := range unreadable {
			if name == "gae-sessions cookie" && p == "" || len(p) > 100_000 {
				continue // that says that the session is in a store; and no cookie is so long
			}
			old, err := formats[name](&world{})
			if err != nil {
				t.Fatal(err)
			}
			v := newVisitor(t, old)
			// The request may also have an invalid cookie of the same name.
			for _, header := range []string{cookie(p), "session=x|1|y; beaker.session.id=" + strings.Repeat("z", 60) + "; " + cookie(p)} {
				if s, err := v.shared.Open(ctx, http.Header{"Cookie": {header}}); !errors.Is(err, reason.ErrUnreadable) || s != nil {
					t.Errorf("%s, %s: %v", name, what, err)
				}
			}
		}
	}
}

// memoryStore is a store of scs.
type memoryStore map[string][]byte

func (m memoryStore) Find(token string) ([]byte, bool, error)          { b, ok := m[token]; return b, ok, nil }
func (m memoryStore) Commit(token string, b []byte, _ time.Time) error { m[token] = b; return nil }
func (m memoryStore) Delete(token string) error                        { delete(m, token); return nil }

func TestSessionsOfGoLibrariesThatCannotBeReadAreLeftAsTheyAre(t *testing.T) {
	w, m := &world{}, memoryStore{}
	files := func(maxLength int) (legacy.Format, error) {
		return gorilla.New(gorilla.Config{
			Name: "s", Keys: []gorilla.KeyPair{{Hash: secret}}, Backend: gorilla.FilesystemStore, Store: &w.files, MaxLength: maxLength,
		})
	}
	for name, c := range map[string]struct {
		open  func() (legacy.Format, error)
		spoil func()
	}{
		"a file of another key": {func() (legacy.Format, error) { return files(-1) }, func() {
			w.files.Edit(func(_ string, v []byte) []byte { v[20] ^= 1; return v })
		}},
		"a record of another version": {func() (legacy.Format, error) { return scs.New(scs.Config{Store: m}) }, func() {
			for k := range m {
				m[k] = m[k][:len(m[k])-3]
			}
		}},
	} {
		old, err := c.open()
		if err != nil {
			t.Fatal(err)
		}
		v := newVisitor(t, old)
		v.do(func(s *share.Session) { _ = s.Set("n", "text") })
		s := v.open()
		_ = s.Set("n", "other")
		c.spoil()
		if _, err := v.shared.Open(ctx, v.header()); !errors.Is(err, reason.ErrUnreadable) {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.Save(ctx, http.Header{}); !errors.Is(err, reason.ErrUnreadable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatIsNoSessionOfTheOldApplicationIsANewOne(t *testing.T) {
	each(t, func(t *testing.T, name string, _ *world, v *visitor) {
		for _, header := range []string{"session=a|b|c", "DgU00=abc", "beaker.session.id=" + strings.Repeat("a", 80), "gaesessid=unknown-id", ""} {
			s, err := v.shared.Open(ctx, http.Header{"Cookie": {header}})
			if err != nil || !s.IsNew() {
				t.Errorf("%s: %v", header, err)
			}
		}
	})
}

func TestObjectsOfTheOldApplicationSurviveAChange(t *testing.T) {
	each(t, func(t *testing.T, name string, w *world, v *visitor) {
		if name == "webapp2 cookie" {
			return // JSON has none
		}
		got, err := pickle.Decode([]byte("\x80\x02cusers\nUser\n)\x81}X\x05\x00\x00\x00emailX\x03\x00\x00\x00a@bsb."))
		if err != nil {
			t.Fatal(err)
		}
		user := got.(value.Object)
		v.python(func(d *value.Dict) { d.Set("user", user); d.Set("n", int64(1)) })
		v.do(func(s *share.Session) {
			var u struct {
				Class string
				State struct{ Email string }
			}
			if err := s.Get("user", &u); err != nil || u.Class != "users.User" || u.State.Email != "a@b" {
				t.Errorf("%+v, %v", u, err)
			}
			_ = s.Update("n", add)
		})
		v.python(func(d *value.Dict) {
			if o, ok := d.Get("user").(value.Object); !ok || string(o.Pickle) != string(user.Pickle) || d.Get("n") != int64(2) {
				t.Errorf("the old application reads %s", value.MarshalTagged(d))
			}
		})
	})
}

func TestIntegersAndSpansOfGoComeBackAsThemselves(t *testing.T) {
	each(t, func(t *testing.T, name string, _ *world, v *visitor) {
		v.do(func(s *share.Session) {
			if err := errors.Join(s.Set("n", uint64(1<<63)), s.Set("list", []uint64{1 << 63})); err != nil {
				t.Fatal(err)
			}
		})
		v.do(func(s *share.Session) {
			var n uint64
			var list []uint64
			if err := errors.Join(s.Get("n", &n), s.Get("list", &list)); err != nil || n != 1<<63 || list[0] != 1<<63 {
				t.Errorf("%d, %d, %v", n, list, err)
			}
		})
		if name == "webapp2 cookie" {
			return
		}
		v.do(func(s *share.Session) {
			if err := errors.Join(s.Set("n", 90*time.Second), s.Set("user", complex(1, 2))); err != nil {
				t.Fatal(err)
			}
		})
		v.do(func(s *share.Session) {
			var d time.Duration
			var parts [2]float64
			if err := errors.Join(s.Get("n", &d), s.Get("user", &parts)); err != nil || d != 90*time.Second || parts != [2]float64{1, 2} {
				t.Errorf("%v, %v, %v", d, parts, err)
			}
		})
	})
}

func TestNoSharedCacheKeepsAResponseWithACookie(t *testing.T) {
	old, err := beaker.New(beaker.Config{ValidateKey: secret})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ have, change, want string }{
		{"", "yes", "private"},
		{"", "no", "private"},
		{"public, max-age=60", "yes", "private, max-age=60"},
		{"Public, S-MaxAge=60", "yes", "private"},
		{"public, max-age=60", "no", "public, max-age=60"},
		{"max-age=60", "no", "private, max-age=60"},
		{"no-store", "yes", "no-store"},
		{"public, private", "yes", "private"},
		{`private="x"`, "yes", `private, private="x"`},
	} {
		v := newVisitor(t, old)
		s := v.open()
		if c.change == "yes" {
			_ = s.Set("n", 1)
		}
		out := http.Header{"Vary": {"Accept", "accept-encoding, Accept"}, "Cdn-Cache-Control": {"max-age=9"}}
		if c.have != "" {
			out.Set("Cache-Control", c.have)
		}
		if err := s.Save(ctx, out); err != nil {
			t.Fatal(err)
		}
		if got := out["Cache-Control"]; len(got) != 1 || got[0] != c.want {
			t.Errorf("%q, changed: %s: %q, want %q", c.have, c.change, got, c.want)
		}
		if got := out["Vary"]; len(got) != 1 || got[0] != "Accept, accept-encoding, Cookie" {
			t.Errorf("Vary: %q", got)
		}
		if (out["Cdn-Cache-Control"] == nil) != (c.change == "yes") {
			t.Errorf("%v", out)
		}
	}
}
