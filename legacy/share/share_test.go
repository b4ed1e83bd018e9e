package share_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/beaker"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/gaesessions"
	"github.com/sojourn-go/sojourn/legacy/gorilla"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/memcachevars"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/share"
	"github.com/sojourn-go/sojourn/legacy/value"
	"github.com/sojourn-go/sojourn/legacy/webapp2"
)

var (
	secret = []byte("a secret of the old application!")
	ctx    = context.Background()
)

// world are the stores of an old application.
type world struct {
	memcache  legacytest.Memcache
	datastore legacytest.Datastore
	files     legacytest.Store
}

func (w *world) fail(err error) {
	w.memcache.Err, w.datastore.Err, w.files.Err = err, err, err
}

// formats makes each shareable format. Those whose name ends in "cookie" have no
// server side.
var formats = map[string]func(*world) (legacy.Format, error){
	"webapp2 cookie": func(*world) (legacy.Format, error) {
		return webapp2.New(webapp2.Config{Secret: secret})
	},
	"webapp2 memcache": func(w *world) (legacy.Format, error) {
		return webapp2.New(webapp2.Config{Secret: secret, Backend: webapp2.Memcache, Memcache: &w.memcache})
	},
	"webapp2 datastore": func(w *world) (legacy.Format, error) {
		return webapp2.New(webapp2.Config{Secret: secret, Backend: webapp2.Datastore, Memcache: &w.memcache, Datastore: &w.datastore, App: "s~app"})
	},
	"gae-sessions cookie": func(w *world) (legacy.Format, error) {
		return gaesessions.New(gaesessions.Config{Key: secret, Memcache: &w.memcache, Datastore: &w.datastore})
	},
	"gae-sessions": func(w *world) (legacy.Format, error) {
		return gaesessions.New(gaesessions.Config{Key: secret, CookieOnlyThreshold: -1, Memcache: &w.memcache, Datastore: &w.datastore})
	},
	"beaker cookie": func(*world) (legacy.Format, error) {
		return beaker.New(beaker.Config{ValidateKey: secret, Timeout: time.Hour})
	},
	"beaker": func(w *world) (legacy.Format, error) {
		return beaker.New(beaker.Config{Type: beaker.File, Secret: secret, Store: &w.files, Timeout: time.Hour})
	},
	"memcache variables": func(w *world) (legacy.Format, error) {
		return memcachevars.New(memcachevars.Config{Names: []string{"n", "user", "list"}, Memcache: &w.memcache})
	},
}

// visitor is a browser and the applications that it uses.
type visitor struct {
	t      *testing.T
	shared *share.Sessions
	old    legacy.Format
	jar    map[string]string
}

func newVisitor(t *testing.T, old legacy.Format) *visitor {
	t.Helper()
	shared, err := share.New(share.Config{Format: old})
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{t, shared, old, map[string]string{}}
}

func (v *visitor) header() http.Header {
	var pairs []string
	for name, raw := range v.jar {
		pairs = append(pairs, name+"="+raw)
	}
	return http.Header{"Cookie": {strings.Join(pairs, "; ")}}
}

func (v *visitor) keep(lines []string) {
	for _, line := range lines {
		name, raw, removed := cookies.ParseSet(line)
		if removed {
			delete(v.jar, name)
		} else {
			v.jar[name] = raw
		}
	}
}

func (v *visitor) open() *share.Session {
	v.t.Helper()
	s, err := v.shared.Open(ctx, v.header())
	if err != nil {
		v.t.Fatal(err)
	}
	return s
}

// do is a request to the Go application.
func (v *visitor) do(f func(*share.Session)) {
	v.t.Helper()
	s := v.open()
	f(s)
	out := http.Header{}
	if err := s.Save(ctx, out); err != nil {
		v.t.Fatal(err)
	}
	v.keep(out["Set-Cookie"])
}

// python is a request to the old application, which writes what it has read.
func (v *visitor) python(f func(*value.Dict)) {
	v.t.Helper()
	s, err := v.old.Read(ctx, v.header(), time.Now())
	if err != nil {
		s = &legacy.Session{Data: value.NewDict()}
	}
	f(s.Data)
	lines, err := v.old.Write(ctx, s, time.Now())
	if err != nil {
		v.t.Fatal(err)
	}
	v.keep(lines)
}

func each(t *testing.T, f func(t *testing.T, name string, w *world, v *visitor)) {
	for name, open := range formats {
		t.Run(name, func(t *testing.T) {
			w := &world{}
			old, err := open(w)
			if err != nil {
				t.Fatal(err)
			}
			f(t, name, w, newVisitor(t, old))
		})
	}
}

func number(s *share.Session) int {
	var n int
	_ = s.Get("n", &n)
	return n
}

func add(v any) any {
	n, _ := v.(int64)
	return n + 1
}

func TestBothApplicationsSeeEachOthersChanges(t *testing.T) {
	each(t, func(t *testing.T, _ string, _ *world, v *visitor) {
		v.python(func(d *value.Dict) { d.Set("n", int64(1)); d.Set("user", "anna") })
		v.do(func(s *share.Session) {
			if s.IsNew() || number(s) != 1 {
				t.Fatalf("new %v (%s), n %d", s.IsNew(), s.Refused(), number(s))
			}
			if err := errors.Join(s.Set("n", 2), s.Set("list", []string{"a", "b"})); err != nil {
				t.Fatal(err)
			}
		})
		v.python(func(d *value.Dict) {
			if d.Get("n") != int64(2) || d.Get("user") != "anna" || !value.Equal(d.Get("list"), []any{"a", "b"}) {
				t.Errorf("the old application reads %s", value.MarshalTagged(d))
			}
			d.Set("n", int64(3))
			d.Delete("user")
		})
		v.do(func(s *share.Session) {
			var list []string
			if err := s.Get("list", &list); err != nil || len(list) != 2 || s.Has("user") || number(s) != 3 {
				t.Errorf("list %v, %v; names %v", list, err, s.Names())
			}
			if err := s.Get("user", new(string)); !errors.Is(err, sojourn.ErrNoValue) {
				t.Error(err)
			}
			if err := s.Get("n", new([]string)); !errors.Is(err, sojourn.ErrBadValue) {
				t.Error(err)
			}
			s.Delete("list")
		})
		v.python(func(d *value.Dict) {
			if d.Get("list") != nil {
				t.Error("not deleted")
			}
		})
	})
}

func TestASessionThatStartsHereIsOneThere(t *testing.T) {
	each(t, func(t *testing.T, _ string, _ *world, v *visitor) {
		s := v.open()
		if !s.IsNew() || s.Refused() != reason.Missing {
			t.Fatalf("%v %s", s.IsNew(), s.Refused())
		}
		_ = s.Update("n", add)
		out := http.Header{}
		for range 2 { // the second finds the session that the first has started
			if err := s.Save(ctx, out); err != nil {
				t.Fatal(err)
			}
			_ = s.Update("n", add)
		}
		v.keep(out["Set-Cookie"])
		v.python(func(d *value.Dict) {
			if d.Get("n") != int64(2) {
				t.Errorf("n is %v", d.Get("n"))
			}
		})
		if out.Get("Vary") != "Cookie" || out.Get("Cache-Control") != "private" {
			t.Errorf("%v", out)
		}
	})
}

func TestNothingIsWrittenThatDidNotChange(t *testing.T) {
	each(t, func(t *testing.T, name string, w *world, v *visitor) {
		out := http.Header{}
		if err := v.open().Save(ctx, out); err != nil || len(out["Set-Cookie"]) > 0 || w.memcache.Len()+w.datastore.Len()+w.files.Len() > 0 {
			t.Errorf("a new session: %v, %v", err, out)
		}
		v.python(func(d *value.Dict) { d.Set("n", int64(1)) })
		if err := v.open().Save(ctx, out); err != nil || (len(out["Set-Cookie"]) > 0) != strings.HasPrefix(name, "beaker") {
			t.Errorf("%v, %v: only Beaker notes each use", err, out)
		}
	})
}

func TestNoChangeOfTwoRequestsIsLost(t *testing.T) {
	each(t, func(t *testing.T, name string, _ *world, v *visitor) {
		if strings.HasSuffix(name, "cookie") {
			t.Log("the last response stands")
			return
		}
		v.python(func(d *value.Dict) { d.Set("n", int64(0)) })
		const n = 12
		var all sync.WaitGroup
		for range n {
			s := v.open()
			all.Go(func() {
				_ = s.Update("n", add)
				if err := s.Save(ctx, http.Header{}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if got := number(v.open()); got != n {
			t.Errorf("%d of %d increments", got, n)
		}
	})
}

func TestAChangeOfTheOldApplicationBeforeSaveStays(t *testing.T) {
	each(t, func(t *testing.T, name string, _ *world, v *visitor) {
		if strings.HasSuffix(name, "cookie") {
			return
		}
		v.python(func(d *value.Dict) { d.Set("n", int64(1)) })
		s := v.open()
		_ = s.Update("n", add)
		v.python(func(d *value.Dict) { d.Set("n", int64(10)); d.Set("user", "anna") })
		if err := s.Save(ctx, http.Header{}); err != nil {
			t.Fatal(err)
		}
		if number(s) != 11 || !s.Has("user") {
			t.Errorf("%d, %v", number(s), s.Names())
		}
		v.python(func(d *value.Dict) {
			if d.Get("n") != int64(11) || d.Get("user") != "anna" {
				t.Errorf("the old application reads %s", value.MarshalTagged(d))
			}
		})
	})
}

func TestAChangeOfTheOldApplicationWhileSaveIsAtWorkStays(t *testing.T) {
	each(t, func(t *testing.T, name string, w *world, v *visitor) {
		if strings.HasSuffix(name, "cookie") {
			return
		}
		v.python(func(d *value.Dict) { d.Set("n", int64(1)) })
		s := v.open()
		_ = s.Update("n", add)
		other := func() { v.python(func(d *value.Dict) { d.Set("n", int64(10)); d.Set("user", "anna") }) }
		switch name {
		case "beaker":
			w.files.BeforeSet = other
		case "webapp2 datastore", "gae-sessions":
			w.datastore.BeforePut = other
		default:
			w.memcache.BeforeSet = other
		}
		if err := s.Save(ctx, http.Header{}); err != nil {
			t.Fatal(err)
		}
		v.python(func(d *value.Dict) {
			if d.Get("n") != int64(11) || d.Get("user") != "anna" {
				t.Errorf("the old application reads %s", value.MarshalTagged(d))
			}
		})
	})
}

func TestAnEndHereIsOneThere(t *testing.T) {
	each(t, func(t *testing.T, name string, w *world, v *visitor) {
		v.python(func(d *value.Dict) { d.Set("n", int64(1)) })
		before := v.header()
		slow := v.open()
		_ = slow.Set("n", 2)
		s := v.open()
		out := http.Header{}
		if err := s.End(ctx, out); err != nil || s.Has("n") || !s.IsNew() {
			t.Fatal(err)
		}
		v.keep(out["Set-Cookie"])
		if len(v.jar) > 0 || w.memcache.Len()+w.datastore.Len()+w.files.Len() > 0 {
			t.Errorf("left: %v", v.jar)
		}
		if strings.HasSuffix(name, "cookie") {
			return
		}
		if _, err := v.old.Read(ctx, before, time.Now()); reason.Of(err) != reason.NotFound {
			t.Errorf("the old application finds it: %v", err)
		}
		if err := slow.Save(ctx, http.Header{}); !errors.Is(err, sojourn.ErrEnded) {
			t.Errorf("a slower request: %v", err)
		}
	})
}

func TestRenewChangesTheIdentifier(t *testing.T) {
	each(t, func(t *testing.T, name string, _ *world, v *visitor) {
		v.python(func(d *value.Dict) { d.Set("n", int64(1)) })
		before := v.header()
		v.do(func(s *share.Session) { s.Renew(); _ = s.Set("user", "anna") })
		if s := v.open(); number(s) != 1 || !s.Has("user") {
			t.Errorf("%v", s.Names())
		}
		if strings.HasSuffix(name, "cookie") {
			return
		}
		if _, err := v.old.Read(ctx, before, time.Now()); reason.Of(err) != reason.NotFound {
			t.Errorf("the identifier before the login still works: %v", err)
		}
	})
}

func TestAnOutageIsAnErrorAndKeepsTheChangesPending(t *testing.T) {
	each(t, func(t *testing.T, name string, w *world, v *visitor) {
		if strings.HasSuffix(name, "cookie") {
			return
		}
		v.python(func(d *value.Dict) { d.Set("n", int64(1)) })
		s := v.open()
		_ = s.Update("n", add)
		w.fail(errors.New("down"))
		if _, err := v.shared.Open(ctx, v.header()); !errors.Is(err, sojourn.ErrUnavailable) {
			t.Errorf("Open: %v", err)
		}
		if err := s.Save(ctx, http.Header{}); !errors.Is(err, sojourn.ErrUnavailable) {
			t.Errorf("Save: %v", err)
		}
		w.fail(nil)
		if err := s.Save(ctx, http.Header{}); err != nil || number(v.open()) != 2 {
			t.Errorf("Save again: %v", err)
		}
	})
}

func TestWhatTheFormatCannotHoldIsRefused(t *testing.T) {
	old, err := formats["webapp2 cookie"](&world{})
	if err != nil {
		t.Fatal(err)
	}
	v := newVisitor(t, old)
	s := v.open()
	if err := s.Set("n", make(chan int)); !errors.Is(err, sojourn.ErrBadValue) {
		t.Error(err)
	}
	_ = s.Set("n", value.Date{Year: 2026, Month: 1, Day: 1}) // JSON has no dates
	if err := s.Save(ctx, http.Header{}); !errors.Is(err, sojourn.ErrBadValue) {
		t.Error(err)
	}
	s = v.open()
	_ = s.Set("n", strings.Repeat("x", 5000))
	if err := s.Save(ctx, http.Header{}); !errors.Is(err, sojourn.ErrTooLarge) {
		t.Error(err)
	}
	if _, err := share.New(share.Config{}); err == nil {
		t.Error("no Format is fine")
	}
}

func TestFlashMessagesOfWebapp2AreShared(t *testing.T) {
	for _, name := range []string{"webapp2 cookie", "webapp2 memcache", "webapp2 datastore"} {
		old, err := formats[name](&world{})
		if err != nil {
			t.Fatal(err)
		}
		v := newVisitor(t, old)
		v.python(func(d *value.Dict) { d.Set("_flash", []any{value.Tuple{"Saved", "info"}}) })
		v.do(func(s *share.Session) {
			var got []webapp2.Flash
			err := s.Edit(func(l *legacy.Session) error { got = webapp2.Flashes(l, ""); return nil })
			if err != nil || len(got) != 1 || got[0] != (webapp2.Flash{Value: "Saved", Level: "info"}) {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		})
		v.python(func(d *value.Dict) {
			if d.Get("_flash") != nil {
				t.Errorf("%s: handed out twice", name)
			}
		})
	}
}

func TestGoValuesKeepTheirTypes(t *testing.T) {
	old, err := gorilla.New(gorilla.Config{Name: "s", Keys: []gorilla.KeyPair{{Hash: secret}}})
	if err != nil {
		t.Fatal(err)
	}
	v := newVisitor(t, old)
	v.do(func(s *share.Session) { _ = s.Set("n", 7) })
	if got := v.open().Value("n"); got != 7 {
		t.Errorf("%T", got)
	}
}
