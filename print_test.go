package sojourn_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/test/printtest"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// printed is a site whose secrets are known.
type printed struct {
	t       *testing.T
	config  sojourn.Config
	manager *sojourn.Manager
	ring    *seal.Ring
	cookies []*http.Cookie
	secrets []printtest.Secret
}

var canary = sojourn.NewKey[string]("card")

func newPrinted(t *testing.T, edit func(*sojourn.Config)) *printed {
	t.Helper()
	index, active := sitetest.WithState(keys.Generate(), "index"), keys.Generate()
	text := sitetest.KeyText(index, active)
	p := &printed{t: t, config: sojourn.Config{Keys: sitetest.Parse(t, text), Store: memory.New(), Logger: slog.New(slog.DiscardHandler)}}
	if edit != nil {
		edit(&p.config)
	}
	var err error
	if p.manager, err = sojourn.New(p.config); err != nil {
		t.Fatal(err)
	}
	if p.ring, err = seal.ParseKeys(text); err != nil {
		t.Fatal(err)
	}
	for _, entry := range []string{index, active} {
		secret := entry[strings.LastIndex(entry, ":")+1:]
		raw, err := base64.RawURLEncoding.DecodeString(secret)
		if err != nil {
			t.Fatal(err)
		}
		p.hide("key", raw)
		p.hide("key's text", []byte(secret))
	}
	for _, value := range []string{"canary-saved", "canary-flash", "canary-pending", "canary-legacy", "canary-credential"} {
		p.hide("value "+value[len("canary-"):], []byte(value))
	}
	return p
}

func (p *printed) hide(name string, value []byte) {
	p.secrets = append(p.secrets, printtest.Secret{Name: name, Value: value})
}

// visit sends a request with the cookies that the site has set.
func (p *printed) visit(f func(http.ResponseWriter, *http.Request, *sojourn.Session)) {
	p.t.Helper()
	r := httptest.NewRequest(http.MethodPost, "https://shop.example/", nil)
	for _, c := range p.cookies {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	p.manager.Handler(f).ServeHTTP(w, r)
	res := w.Result()
	if res.StatusCode != http.StatusOK {
		p.t.Fatalf("status %d", res.StatusCode)
	}
	for _, c := range res.Cookies() {
		if c.MaxAge < 0 || c.Value == "" {
			continue
		}
		p.cookies = append(p.cookies, c)
		p.hide("cookie", []byte(c.Value))
		sealed, err := wire.Text.DecodeString(c.Value)
		if err != nil {
			p.t.Fatal(err)
		}
		if plain, _, err := p.ring.Open(nil, seal.Reference, sealed, wire.Bind("session")); err == nil {
			p.hide("identifier", plain[:32])
		}
	}
}

func (p *printed) silent(values map[string]any, mayJSON ...string) {
	p.t.Helper()
	printtest.Silent(p.t, p.secrets, values, mayJSON...)
}

func TestNothingThatAnApplicationHoldsPrintsASecret(t *testing.T) {
	for name, login := range map[string]bool{"stored": true, "inline": false} {
		t.Run(name, func(t *testing.T) {
			p := newPrinted(t, nil)
			p.visit(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
				if login {
					s.Login("ada")
				}
				canary.Set(s, "canary-saved")
				s.Flash("info", "canary-flash")
			})
			if len(p.cookies) == 0 {
				t.Fatal("no cookie was set")
			}
			p.visit(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
				if canary.Get(s) != "canary-saved" {
					t.Fatal("it is another session")
				}
				_, wrongType := sojourn.NewKey[int]("card").Lookup(s)
				info := s.Info()
				look := func(when string) {
					type ownWriter struct{ http.ResponseWriter }
					type ownKey struct{}
					p.silent(map[string]any{
						when + ", the session":                     s,
						when + ", the context":                     r.Context(),
						when + ", a context of it":                 context.WithValue(r.Context(), ownKey{}, s),
						when + ", the response writer":             w,
						when + ", a wrapped response writer":       ownWriter{w},
						when + ", the session's description":       info,
						when + ", an error about a value":          wrongType,
						when + ", the manager":                     p.manager,
						when + ", the configuration":               p.config,
						when + ", a pointer to the configuration":  &p.config,
						when + ", the keys":                        p.config.Keys,
						when + ", what is told of the keys":        p.config.Keys.Keys(),
						when + ", the store":                       p.config.Store,
						when + ", the store's name in an own type": struct{ Store store.Store }{p.config.Store},
					})
				}
				look("after the load")
				canary.Set(s, "canary-pending")
				s.Flash("info", "canary-flash")
				look("with changes")
				if login {
					s.Rotate()
				}
				if err := s.Save(r.Context()); err != nil {
					t.Fatal(err)
				}
				look("after Save")
				canary.Update(s, func(old string) string {
					look("in Update")
					return old
				})
				s.Logout()
				look("after Logout")
			})
		})
	}
}

func TestASessionFromOpenPrintsNoSecret(t *testing.T) {
	p := newPrinted(t, nil)
	p.visit(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
		s.Login("ada")
		canary.Set(s, "canary-saved")
	})
	in := http.Header{"Cookie": {p.cookies[0].Name + "=" + p.cookies[0].Value}}
	s, _, err := sitetest.Begin(t.Context(), p.manager, in)
	if err != nil {
		t.Fatal(err)
	}
	p.silent(map[string]any{"the session": s, "the zero session": &sojourn.Session{}, "no session": (*sojourn.Session)(nil)})
}

func TestASessionPrintsItsHandle(t *testing.T) {
	p := newPrinted(t, nil)
	p.visit(func(_ http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		s.Login("ada")
		if err := s.Save(r.Context()); err != nil {
			t.Fatal(err)
		}
		want := "sojourn.Session(" + s.Handle() + ")"
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if got := fmt.Sprintf(verb, s); got != want {
				t.Errorf("%s prints %s, want %s", verb, got, want)
			}
		}
		for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
			"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			"JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var b bytes.Buffer
			slog.New(handler(&b)).Info("m", "session", s)
			if !strings.Contains(b.String(), s.Handle()) {
				t.Errorf("the %s handler writes %s", name, &b)
			}
		}
	})
}

// Printing waits for nobody and is no use of the session.
func TestASessionThatIsInUsePrintsToo(t *testing.T) {
	p := newPrinted(t, nil)
	p.visit(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
		canary.Update(s, func(string) string { return fmt.Sprint(s) })
		if got := canary.Get(s); got != "sojourn.Session(in use)" {
			t.Errorf("got %q", got)
		}
	})
}

func TestExportsPrintNoValuesAndAreCompleteAsJSON(t *testing.T) {
	p := newPrinted(t, nil)
	p.visit(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
		s.Login("ada")
		canary.Set(s, "canary-saved")
	})
	exports, err := p.manager.ExportUser(t.Context(), "ada")
	if err != nil || len(exports) != 1 {
		t.Fatalf("%d exports, %v", len(exports), err)
	}
	id, err := store.ParseID(exports[0].Handle)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := p.config.Store.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	p.silent(map[string]any{"an export": exports[0], "a pointer to it": &exports[0], "all exports": exports, "a record": rec, "a pointer to a record": &rec},
		"an export", "a pointer to it", "all exports")
	text, err := json.Marshal(exports)
	if err != nil || !strings.Contains(string(text), "canary-saved") {
		t.Errorf("as JSON an export lacks the value: %v", err)
	}
}

type noLegacy struct{ key string }

func (noLegacy) Name() string                   { return "none" }
func (noLegacy) Expires() bool                  { return true }
func (noLegacy) Forget(*adopt.Session) []string { return nil }
func (noLegacy) Find(context.Context, http.Header, time.Time) (*adopt.Session, error) {
	return nil, nil
}
func (noLegacy) End(context.Context, *adopt.Session) ([]string, error) { return nil, nil }
func (noLegacy) Write(context.Context, *adopt.Session, time.Time) ([]string, error) {
	return nil, nil
}

func TestAdoptingPrintsNoSecret(t *testing.T) {
	legacy := noLegacy{"canary-credential"}
	old := adopt.Session{
		Source: "none", Values: map[string]any{"card": "canary-legacy"}, Credential: []byte("canary-credential"), State: []byte("canary-credential"),
		Native: struct{ Card string }{"canary-legacy"},
	}
	back := sojourn.WriteBack{To: legacy, Values: func(*sojourn.Session) (map[string]any, error) { return nil, nil }}
	p := newPrinted(t, func(c *sojourn.Config) {
		c.Adopt = &sojourn.Adopt{From: []adopt.Format{legacy}, Map: func(*adopt.Session, *sojourn.Session) error { return nil }, Back: &back}
	})
	p.silent(map[string]any{
		"a legacy session": old, "a pointer to it": &old, "how sessions are adopted": *p.config.Adopt, "a pointer to that": p.config.Adopt,
		"how they are written back": back, "the configuration": p.config, "the manager": p.manager,
	})
}

func TestStoresAndTheirTypesPrintNoSecret(t *testing.T) {
	secrets := []printtest.Secret{{Name: "data", Value: []byte("canary-data")}}
	rec := store.Record{ID: store.ID{1}, Version: 1, SaveIDs: []store.SaveID{1}, Created: time.Now(), Deadline: time.Now().Add(time.Hour), Expires: time.Now().Add(time.Hour), Data: []byte("canary-data")}
	db := memory.New()
	if err := db.Save(t.Context(), rec, store.Base{}); err != nil {
		t.Fatal(err)
	}
	cache := tiered.NewMemory(1 << 20)
	layered, err := tiered.New(db, tiered.Layer{Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := layered.Load(t.Context(), rec.ID); err != nil {
		t.Fatal(err)
	}
	volatile := store.Volatile{SaveID: 1, Data: []byte("canary-data")}
	printtest.Silent(t, secrets, map[string]any{
		"record": rec, "pointer to a record": &rec, "volatile": volatile, "pointer to volatile": &volatile, "records": []store.Record{rec},
		"memory": db, "tiered": layered, "cache": cache,
	}, "record", "pointer to a record", "volatile", "pointer to volatile", "records")
}
