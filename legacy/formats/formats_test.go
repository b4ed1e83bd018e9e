package formats_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/beaker"
	"github.com/sojourn-go/sojourn/legacy/formats"
	"github.com/sojourn-go/sojourn/legacy/gaesessions"
	"github.com/sojourn-go/sojourn/legacy/gaeutilities"
	"github.com/sojourn-go/sojourn/legacy/gorilla"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/memcachevars"
	"github.com/sojourn-go/sojourn/legacy/scs"
	"github.com/sojourn-go/sojourn/legacy/value"
	"github.com/sojourn-go/sojourn/legacy/vectors"
	"github.com/sojourn-go/sojourn/legacy/webapp2"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/sojourntest"
	"github.com/sojourn-go/sojourn/store/memory"
)

var (
	secret = []byte("a secret of the old application!")
	visits = sojourn.NewKey[int]("visits")
)

// world are the stores of an old application.
type world struct {
	memcache  legacytest.Memcache
	datastore legacytest.Datastore
	files     legacytest.Store
	tokens    tokens
}

func (w *world) empty() bool {
	return w.memcache.Len()+w.datastore.Len()+w.files.Len()+len(w.tokens) == 0
}

// tokens is a store of scs.
type tokens map[string][]byte

func (s tokens) Find(token string) ([]byte, bool, error) { b, ok := s[token]; return b, ok, nil }
func (s tokens) Delete(token string) error               { delete(s, token); return nil }
func (s tokens) Commit(token string, b []byte, _ time.Time) error {
	s[token] = b
	return nil
}

var allFormats = map[string]func(*world) (legacy.Format, error){
	"webapp2 cookie": func(*world) (legacy.Format, error) {
		return webapp2.New(webapp2.Config{Secret: secret, MaxAge: 24 * time.Hour})
	},
	"webapp2 memcache": func(w *world) (legacy.Format, error) {
		return webapp2.New(webapp2.Config{Secret: secret, MaxAge: 24 * time.Hour, Backend: webapp2.Memcache, Memcache: &w.memcache})
	},
	"webapp2 datastore": func(w *world) (legacy.Format, error) {
		return webapp2.New(webapp2.Config{
			Secret: secret, MaxAge: 24 * time.Hour, Backend: webapp2.Datastore, Memcache: &w.memcache, Datastore: &w.datastore, App: "s~app",
		})
	},
	"gae-sessions cookie": func(w *world) (legacy.Format, error) {
		return gaesessions.New(gaesessions.Config{Key: secret, Lifetime: 24 * time.Hour})
	},
	"gae-sessions": func(w *world) (legacy.Format, error) {
		return gaesessions.New(gaesessions.Config{
			Key: secret, Lifetime: 24 * time.Hour, CookieOnlyThreshold: -1, Memcache: &w.memcache, Datastore: &w.datastore,
		})
	},
	"beaker cookie": func(*world) (legacy.Format, error) {
		return beaker.New(beaker.Config{ValidateKey: secret, Timeout: 24 * time.Hour})
	},
	"beaker": func(w *world) (legacy.Format, error) {
		return beaker.New(beaker.Config{Type: beaker.File, Secret: secret, Store: &w.files, Timeout: 24 * time.Hour})
	},
	"memcache variables": func(w *world) (legacy.Format, error) {
		return memcachevars.New(memcachevars.Config{Names: []string{"visits", "user"}, Memcache: &w.memcache})
	},
	"gorilla cookie": func(*world) (legacy.Format, error) {
		return gorilla.New(gorilla.Config{Name: "old", Keys: []gorilla.KeyPair{{Hash: secret}}, MaxAge: 24 * time.Hour})
	},
	"gorilla": func(w *world) (legacy.Format, error) {
		return gorilla.New(gorilla.Config{
			Name: "old", Keys: []gorilla.KeyPair{{Hash: secret}}, MaxAge: 24 * time.Hour, Backend: gorilla.RedisStore, Store: &w.files,
		})
	},
	"scs": func(w *world) (legacy.Format, error) {
		return scs.New(scs.Config{Name: "old", Store: w.tokens, Lifetime: 24 * time.Hour})
	},
}

func manager(t *testing.T, a *sojourn.Adopt) *sojourn.Manager {
	t.Helper()
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	m, err := sojourn.New(sojourn.Config{Keys: keys, Store: memory.New(), Adopt: a, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func toSession(old *adopt.Session, s *sojourn.Session) error {
	var n int
	if err := old.Get("visits", &n); err != nil {
		return err
	}
	visits.Set(s, n)
	user := old.User
	if user == "" {
		user, _ = old.Values["user"].(string)
	}
	if user != "" {
		s.Login(user)
	}
	return nil
}

// visit sends a request with that Cookie field and returns who it was.
func visit(t *testing.T, m *sojourn.Manager, cookie string, f func(*sojourn.Session)) (user string, setCookie []string) {
	t.Helper()
	b := sojourntest.NewBrowser(t, m.Handler(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
		user = s.User()
		if f != nil {
			f(s)
		}
	}))
	r := b.Request(http.MethodGet, "/", nil)
	r.Header.Set("Cookie", cookie)
	resp := b.Do(r)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", resp.StatusCode)
	}
	return user, resp.Header["Set-Cookie"]
}

func TestSessionsOfEveryFormatAreAdoptedAndEnded(t *testing.T) {
	for name, open := range allFormats {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{tokens: tokens{}}
				old, err := open(w)
				if err != nil {
					t.Fatal(err)
				}
				start := &legacy.Session{Data: value.NewDict()}
				start.Data.Set("visits", int64(7))
				start.Data.Set("user", "anna")
				w.memcache.Now = time.Now()
				fields, err := old.Write(context.Background(), start, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				cookie := legacytest.Header(fields...).Get("Cookie")
				m := manager(t, &sojourn.Adopt{From: []adopt.Format{formats.From(old)}, Map: toSession, Until: time.Now().Add(100 * 24 * time.Hour)})
				user, set := visit(t, m, cookie, func(s *sojourn.Session) {
					if visits.Get(s) != 7 || s.IsNew() {
						t.Errorf("visits %d, new %v", visits.Get(s), s.IsNew())
					}
				})
				if user != "anna" {
					t.Fatalf("user %q; %+v", user, ops.For(m).AdoptStats())
				}
				expired := false
				for _, line := range set {
					expired = expired || strings.HasPrefix(line, start.Cookies[0]+"=;")
				}
				if !expired {
					t.Errorf("the old cookie stays: %q", set)
				}
				// Another look finds the same session; its logout ends the old one.
				time.Sleep(time.Minute)
				visit(t, m, cookie, (*sojourn.Session).Logout)
				if !w.empty() {
					t.Error("something is left in the old stores")
				}
				time.Sleep(time.Minute)
				if user, _ := visit(t, m, cookie, nil); user != "" {
					t.Error("the old cookie brings it back")
				}
				stats := ops.For(m).AdoptStats()[old.About().Name]
				if stats.Adopted != 1 || stats.Ended != 1 {
					t.Errorf("%+v", stats)
				}
			})
		})
	}
}

func TestSessionsAreWrittenBackInEveryFormat(t *testing.T) {
	for name, open := range allFormats {
		t.Run(name, func(t *testing.T) {
			w := &world{tokens: tokens{}}
			old, err := open(w)
			if err != nil {
				t.Fatal(err)
			}
			m := manager(t, &sojourn.Adopt{
				From: []adopt.Format{formats.From(old)}, Map: toSession, Until: time.Now().Add(time.Hour),
				Back: &sojourn.WriteBack{To: formats.Writer(old), Values: func(s *sojourn.Session) (map[string]any, error) {
					return map[string]any{"visits": visits.Get(s), "user": s.User()}, nil
				}},
			})
			ctx := context.Background()
			in, out := http.Header{}, http.Header{}
			s, x, err := sitetest.Begin(ctx, m, in)
			if err != nil {
				t.Fatal(err)
			}
			visits.Set(s, 1)
			s.Login("anna")
			if err := s.Save(ctx); err != nil {
				t.Fatal(err)
			}
			visits.Set(s, 2)
			if err := x.Commit(http.StatusOK, out); err != nil {
				t.Fatal(err)
			}
			got, err := old.Read(ctx, legacytest.Header(out["Set-Cookie"]...), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			plain := adopt.Session{Values: value.PlainDict(got.Data)}
			var n int
			if err := plain.Get("visits", &n); err != nil || n != 2 || plain.Values["user"] != "anna" {
				t.Errorf("the old application reads %v, %v", plain.Values, err)
			}
			s.Logout()
			if err := s.Save(ctx); err != nil || !w.empty() {
				t.Errorf("the logout left something: %v", err)
			}
		})
	}
}

// entities is a datastore with one session of gaeutilities.
type entities struct {
	key     appengine.Key
	session appengine.Entity
}

func (e *entities) Session(context.Context, appengine.Key) (appengine.Entity, error) {
	if e.session == nil {
		return nil, legacy.ErrNoEntry
	}
	return e.session, nil
}

func (e *entities) Values(context.Context, appengine.Key) ([]appengine.Entity, error) {
	return []appengine.Entity{
		{{Name: "keyname", Value: "visits"}, {Name: "content", Value: []byte("I7\n.")}},
		{{Name: "keyname", Value: "user"}, {Name: "content", Value: []byte("S'anna'\np0\n.")}},
	}, nil
}

func (e *entities) Delete(_ context.Context, key appengine.Key) error {
	if key.Encode() == e.key.Encode() {
		e.session = nil
	}
	return nil
}

func TestASessionOfGaeutilitiesKeepsItsIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := appengine.Key{App: "s~app", Path: []appengine.Element{{Kind: gaeutilities.Kind, ID: 5}}}
		token := key.Encode() + "_0123"
		db := &entities{key, appengine.Entity{{Name: "sid", Value: []any{token}}, {Name: "last_activity", Value: time.Now()}}}
		old, err := gaeutilities.New(gaeutilities.Config{Datastore: db, ExpireTime: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		m := manager(t, &sojourn.Adopt{From: []adopt.Format{formats.From(old)}, Map: toSession})
		cookie := gaeutilities.DefaultName + "=" + token
		user, _ := visit(t, m, cookie, func(s *sojourn.Session) {
			if got := time.Until(s.Info().IdleExpires); got != time.Hour {
				t.Errorf("idle timeout %v", got)
			}
		})
		if user != "anna" {
			t.Fatal(user)
		}
		visit(t, m, cookie, (*sojourn.Session).Logout)
		if db.session != nil {
			t.Error("the entity is still there")
		}
	})
}

func TestSessionsOfOneVisitorAreAdoptedTogether(t *testing.T) {
	w := &world{}
	data, err := webapp2.New(webapp2.Config{Secret: secret, Backend: webapp2.Memcache, Memcache: &w.memcache, MaxAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := webapp2.New(webapp2.Config{Secret: secret, Name: "auth", MaxAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	one, two := &legacy.Session{Data: value.NewDict()}, &legacy.Session{Data: value.NewDict()}
	one.Data.Set("visits", int64(7))
	two.Data.Set("_user", []any{int64(12), int64(1), "token", now.Unix(), now.Unix()})
	ctx := context.Background()
	fields, err := data.Write(ctx, one, now)
	more, err2 := auth.Write(ctx, two, now)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	both := formats.Together("webapp2", formats.From(auth), formats.From(data))
	m := manager(t, &sojourn.Adopt{From: []adopt.Format{both}, Map: toSession})
	cookie := legacytest.Header(append(fields, more...)...).Get("Cookie")
	user, set := visit(t, m, cookie, func(s *sojourn.Session) {
		if visits.Get(s) != 7 {
			t.Errorf("visits %d", visits.Get(s))
		}
	})
	if user != "12" {
		t.Errorf("user %q", user)
	}
	if all := strings.Join(set, "\n"); !strings.Contains(all, "session=;") || !strings.Contains(all, "auth=;") {
		t.Errorf("cookies stay: %q", set)
	}
	visit(t, m, cookie, (*sojourn.Session).Logout)
	if !w.empty() {
		t.Error("the values are still in memcache")
	}
	if user, _ := visit(t, m, cookie, nil); user != "" {
		t.Error("the old cookies bring it back")
	}
	visit(t, m, "something=else", nil)
	if got := ops.For(m).AdoptStats()["webapp2"].Refused; len(got) != 1 || got["ended"] != 1 {
		t.Errorf("no session is no refusal: %v", got)
	}
	if user, _ := visit(t, m, "auth=damaged|1|x", nil); user != "" {
		t.Error(user)
	}
	if got := ops.For(m).AdoptStats()["webapp2"].Refused["bad_signature"]; got != 1 {
		t.Errorf("%+v", ops.For(m).AdoptStats())
	}
}

func TestEveryRecordedSessionIsFoundOrRefused(t *testing.T) {
	files, err := filepath.Glob("../testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := vectors.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range f.Cases {
			if c.Pickle != nil {
				continue
			}
			old, header, now, err := c.Setup()
			if err != nil {
				t.Fatal(err)
			}
			found, err := formats.From(old).Find(context.Background(), header, now)
			var why adopt.Refusal
			switch {
			case err != nil && !errors.As(err, &why):
				t.Errorf("%s: %v", c.Name, err)
			case c.Optional:
			case c.Expect.Valid != (found != nil):
				t.Errorf("%s: found %v, %v", c.Name, found != nil, err)
			case found != nil && (found.Values == nil || len(found.Credential) == 0 || len(found.State) == 0):
				t.Errorf("%s: %+v", c.Name, found)
			}
		}
	}
}
