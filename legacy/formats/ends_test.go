package formats_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/formats"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store/memory"
)

// backed is a manager that writes its sessions back to a format that it adopts.
type backed struct {
	t   *testing.T
	m   *sojourn.Manager
	old legacy.Format
	w   *world
}

func newBacked(t *testing.T, open func(*world) (legacy.Format, error), limit int) *backed {
	t.Helper()
	w := &world{tokens: tokens{}}
	old, err := open(w)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	m, err := sojourn.New(sojourn.Config{
		Keys: ring, Store: memory.New(), Limit: sojourn.Limit{Max: limit}, IdleTimeout: time.Hour, Lifetime: 10 * time.Hour,
		Adopt: &sojourn.Adopt{
			From: []adopt.Format{formats.From(old)}, Map: toSession, Until: time.Now().Add(100 * 24 * time.Hour),
			Back: &sojourn.WriteBack{To: formats.Writer(old), Values: func(s *sojourn.Session) (map[string]any, error) {
				return map[string]any{"visits": visits.Get(s), "user": s.User()}, nil
			}},
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return &backed{t, m, old, w}
}

// device is a browser. Its request returns the session's user.
type device struct {
	b   *backed
	jar map[string]string
}

func (b *backed) device() *device { return &device{b, map[string]string{}} }

func (d *device) header() http.Header {
	if len(d.jar) == 0 {
		return http.Header{}
	}
	return http.Header{"Cookie": {cookieHeader(d.jar)}}
}

func (d *device) do(f func(*sojourn.Session)) (user string) {
	d.b.t.Helper()
	out := http.Header{}
	s, x, err := sitetest.Begin(d.b.t.Context(), d.b.m, d.header())
	if err != nil {
		d.b.t.Fatal(err)
	}
	user = s.User()
	if f != nil {
		f(s)
	}
	if err := x.Commit(http.StatusOK, out); err != nil && !errors.Is(err, sojourn.ErrEnded) {
		d.b.t.Fatal(err)
	}
	d.keep(out["Set-Cookie"])
	return user
}

func (d *device) keep(lines []string) {
	for _, line := range lines {
		name, raw, removed := cookies.ParseSet(line)
		if removed {
			delete(d.jar, name)
		} else {
			d.jar[name] = raw
		}
	}
}

// legacyOnly is the request of a browser that has lost the manager's own cookies.
func (d *device) legacyOnly() http.Header {
	pairs := map[string]string{}
	for name, raw := range d.jar {
		if !strings.HasPrefix(name, "__Host-") {
			pairs[name] = raw
		}
	}
	return http.Header{"Cookie": {cookieHeader(pairs)}}
}

func login(s *sojourn.Session) { s.Login("anna"); visits.Set(s, 1) }

func TestEveryEndOfASessionEndsItsLegacyForm(t *testing.T) {
	for name, open := range allFormats {
		for end, f := range map[string]func(b *backed, d *device){
			"a logout": func(_ *backed, d *device) { d.do((*sojourn.Session).Logout) },
			"a logout of all others by the user": func(b *backed, _ *device) {
				other := b.device()
				other.do(login)
				other.do(func(s *sojourn.Session) {
					if _, err := b.m.RevokeUser(b.t.Context(), "anna", s.Handle()); err != nil {
						b.t.Fatal(err)
					}
				})
				other.do((*sojourn.Session).Logout)
			},
			"a change of the password": func(b *backed, _ *device) {
				if n, err := b.m.RevokeUser(b.t.Context(), "anna"); n != 1 || err != nil {
					b.t.Fatalf("%d, %v", n, err)
				}
			},
			"a revocation by its handle": func(b *backed, d *device) {
				d.do(func(s *sojourn.Session) {
					if err := b.m.Revoke(b.t.Context(), "anna", s.Handle()); err != nil {
						b.t.Fatal(err)
					}
				})
			},
			"two logins elsewhere": func(b *backed, _ *device) {
				for range 2 { // the limit is two
					b.device().do(login)
					time.Sleep(time.Minute)
				}
				if _, err := b.m.RevokeUser(b.t.Context(), "nobody"); err != nil {
					b.t.Fatal(err)
				}
			},
			"the login of somebody else": func(_ *backed, d *device) {
				d.do(func(s *sojourn.Session) { s.Login("bob"); visits.Set(s, 1) })
				d.do((*sojourn.Session).Logout)
			},
			"its idle timeout": func(*backed, *device) { time.Sleep(90 * time.Minute) },
			"its lifetime": func(_ *backed, d *device) {
				for range 25 {
					time.Sleep(30 * time.Minute)
					d.do(nil)
				}
			},
		} {
			t.Run(name+", "+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBacked(t, open, 2)
					b.w.memcache.Now = time.Now()
					d := b.device()
					d.do(login)
					time.Sleep(time.Minute)
					d.do(func(s *sojourn.Session) { visits.Set(s, 2) }) // written back once more
					time.Sleep(time.Minute)
					before := d.legacyOnly()
					if found, err := b.old.Read(t.Context(), before, time.Now()); err != nil || value.PlainDict(found.Data)["user"] != "anna" {
						t.Fatalf("not written back: %v", err)
					}
					f(b, d)
					b.w.memcache.Now = time.Now()

					found, err := b.old.Read(t.Context(), before, time.Now())
					timed := strings.HasPrefix(end, "its ") // then no request ends it
					if !timed && err == nil && !found.Copies {
						t.Errorf("the old application still finds %s", value.MarshalTagged(found.Data))
					}
					time.Sleep(2 * time.Minute)
					s, _, err := sitetest.Begin(t.Context(), b.m, before)
					if err != nil || s.User() != "" {
						t.Errorf("the legacy cookie brings back %q, %v", s.User(), err)
					}
				})
			})
		}
	}
}

func TestAWriteBackThatIsOvertakenByTheEndLeavesNothing(t *testing.T) {
	for _, name := range []string{"beaker", "webapp2 memcache", "gae-sessions"} {
		t.Run(name, func(t *testing.T) {
			b := newBacked(t, allFormats[name], 5)
			d := b.device()
			d.do(login)
			end := func() {
				if n, err := b.m.RevokeUser(context.Background(), "anna"); n != 1 || err != nil {
					t.Errorf("%d, %v", n, err)
				}
			}
			switch name {
			case "beaker":
				b.w.files.BeforeSet = end
			case "webapp2 memcache":
				b.w.memcache.BeforeSet = end
			default:
				b.w.datastore.BeforePut = end
			}
			d.do(func(s *sojourn.Session) { visits.Set(s, 3) })
			if !b.w.empty() {
				t.Error("the end was overtaken by what a request had still to write")
			}
		})
	}
}

func TestNothingIsWrittenBackOverWhatCannotBeRead(t *testing.T) {
	const hostile = "\x80\x02}X\x01\x00\x00\x00nX\x01\x00\x00\x00xQs."
	for _, name := range []string{"webapp2 memcache", "webapp2 datastore", "gae-sessions", "beaker", "gorilla", "scs"} {
		t.Run(name, func(t *testing.T) {
			b := newBacked(t, allFormats[name], 5)
			spoiled := 0
			spoil := func(_ string, v []byte) []byte {
				spoiled++
				if name == "gorilla" {
					return v[:len(v)-1]
				}
				return []byte(hostile)
			}
			count := func() uint64 { return ops.For(b.m).AdoptStats()[b.old.About().Name].WriteErrors }
			d := b.device()
			d.do(login)
			time.Sleep(time.Millisecond)
			b.w.files.Edit(spoil)
			b.w.memcache.Edit(spoil)
			b.w.datastore.Edit(spoil)
			for token, v := range b.w.tokens {
				b.w.tokens[token] = v[:len(v)-3]
				spoiled++
			}
			before := b.contents()
			old := d.legacyOnly()

			// By its own session, with and without its cookie, and by a session
			// without a link to it.
			d.do(func(s *sojourn.Session) { visits.Set(s, 2) })
			own := map[string]string{}
			for name, raw := range d.jar {
				if strings.HasPrefix(name, "__Host-") {
					own[name] = raw
				}
			}
			(&device{b, own}).do(func(s *sojourn.Session) { visits.Set(s, 3) })
			stranger := b.device()
			_, raw, _ := strings.Cut(old.Get("Cookie"), "=")
			stranger.jar[strings.TrimSuffix(old.Get("Cookie"), "="+raw)] = raw
			stranger.do(func(s *sojourn.Session) { visits.Set(s, 9) })
			if got := stranger.legacyOnly().Get("Cookie"); got != old.Get("Cookie") {
				t.Errorf("the cookie %q took the place of %q", got, old.Get("Cookie"))
			}
			if after := b.contents(); after != before || spoiled == 0 {
				t.Errorf("%d entries were spoiled, and then written over: %q, %q", spoiled, before, after)
			}
			if n := count(); n != 3 {
				t.Errorf("%d failures are counted", n)
			}
			if _, err := b.old.Read(t.Context(), old, time.Now()); !reason.IsUnreadable(err) {
				t.Error(err)
			}
		})
	}
}

func (b *backed) contents() string {
	var out strings.Builder
	note := func(key string, v []byte) []byte { out.WriteString(key + string(v)); return v }
	b.w.files.Edit(note)
	b.w.memcache.Edit(note)
	b.w.datastore.Edit(note)
	for k, v := range b.w.tokens {
		out.WriteString(k + string(v))
	}
	return out.String()
}
