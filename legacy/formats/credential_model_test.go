package formats_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/formats"
	"github.com/sojourn-go/sojourn/legacy/value"
	"github.com/sojourn-go/sojourn/store/memory"
)

// A smaller version of the library's model of a visitor's credentials, with the
// real formats: they differ in copies, in what extends a session, and in the
// information about it. The test's own ledger records which sessions have
// ended; after each sequence of events every legacy cookie that was ever issued
// is presented, alone and beside each reference.

const (
	modelIdle     = 2 * time.Hour
	modelLifetime = 10 * time.Hour
)

// numbered is the session's number in the ledger.
var numbered = sojourn.NewKey[int]("visits", sojourn.ServerSide)

type modelLife struct {
	end, used time.Time
	ended     string
}

type modelBrowser struct {
	cookies map[string]string
	life    *modelLife // that its last answer was about
	handle  string
}

type modelRun struct {
	t       *testing.T
	m       *sojourn.Manager
	old     legacy.Format
	visitor *modelBrowser
	other   *modelBrowser
	lives   []*modelLife
	here    map[string]time.Time // when each session was used here, by its handle
	jars    []map[string]string  // that there ever were
	wrong   []string
	adopted int
}

func newModelRun(t *testing.T, open func(*world) (legacy.Format, error), keys *sojourn.KeyRing) *modelRun {
	old, err := open(&world{tokens: tokens{}})
	if err != nil {
		t.Fatal(err)
	}
	r := &modelRun{t: t, old: old, here: map[string]time.Time{}, visitor: &modelBrowser{}, other: &modelBrowser{}}
	a := &sojourn.Adopt{
		From: []adopt.Format{formats.From(old)}, Until: time.Now().Add(1000 * time.Hour),
		Map: func(old *adopt.Session, s *sojourn.Session) error {
			var n int
			if err := old.Get("visits", &n); err != nil {
				return err
			}
			numbered.Set(s, n)
			s.Login("anna")
			return nil
		},
		Back: &sojourn.WriteBack{To: formats.Writer(old), Values: func(s *sojourn.Session) (map[string]any, error) {
			return map[string]any{"visits": numbered.Get(s), "user": s.User()}, nil
		}},
	}
	r.m, err = sojourn.New(sojourn.Config{
		Keys: keys, Store: memory.New(), Adopt: a, Limit: sojourn.Limit{Max: 1}, IdleTimeout: modelIdle, Lifetime: modelLifetime,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *modelRun) over(l *modelLife) string {
	switch now := time.Now(); {
	case l.ended != "":
		return l.ended
	case now.After(l.end):
		return "its lifetime"
	case now.Sub(l.used) > modelIdle:
		return "its idle timeout"
	}
	return ""
}

func cookieHeader(jar map[string]string) string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(jar)) {
		pairs = append(pairs, name+"="+jar[name])
	}
	return strings.Join(pairs, "; ")
}

// send sends a request with a jar, and checks its session.
func (r *modelRun) send(jar map[string]string, do func(*sojourn.Session)) (found *modelLife, handle string, setCookie []string) {
	req := httptest.NewRequestWithContext(r.t.Context(), http.MethodPost, "https://shop.example/", nil)
	if len(jar) > 0 {
		req.Header.Set("Cookie", cookieHeader(jar))
	}
	w := httptest.NewRecorder()
	var session *sojourn.Session
	r.m.Handler(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
		session = s
		n := numbered.Get(s)
		if n == 0 && s.User() != "" || n > len(r.lives) {
			r.wrong = append(r.wrong, fmt.Sprintf("the session %d is %q's", n, s.User()))
			return
		}
		if n > 0 {
			found = r.lives[n-1]
			why := r.over(found)
			if why != "" {
				r.wrong = append(r.wrong, fmt.Sprintf("the session %d is served, although it is over: %s", n, why))
			}
			if late := s.Info().Expires.Sub(found.end); late > 5*time.Millisecond {
				r.wrong = append(r.wrong, fmt.Sprintf("the session %d lasts %v longer than it may", n, late))
			}
			found.used = time.Now()
			if r.here[s.Handle()].IsZero() {
				r.adopted++
			}
			r.here[s.Handle()] = time.Now()
		}
		if do != nil {
			do(s)
		}
	}).ServeHTTP(w, req)
	if session != nil {
		handle = session.Handle()
		if n := numbered.Get(session); n > 0 && n <= len(r.lives) {
			r.here[handle] = time.Now()
		}
	}
	return found, handle, w.Header()["Set-Cookie"]
}

// visit is send, and keeps the answer.
func (r *modelRun) visit(b *modelBrowser, do func(*sojourn.Session)) (before *modelLife) {
	before, handle, lines := r.send(b.cookies, do)
	b.keep(lines)
	b.life, b.handle = before, handle
	r.jars = append(r.jars, b.cookies)
	return before
}

// keep takes a response's cookies. Values may be quoted.
func (b *modelBrowser) keep(lines []string) {
	b.cookies = maps.Clone(b.cookies)
	if b.cookies == nil {
		b.cookies = map[string]string{}
	}
	for _, line := range lines {
		name, rest, _ := strings.Cut(line, "=")
		end := strings.IndexByte(rest, ';')
		if strings.HasPrefix(rest, `"`) {
			end = 1 + strings.IndexByte(rest[1:], '"') + 1
		}
		if end < 0 {
			end = len(rest)
		}
		if v := rest[:end]; v == "" || v == `""` || strings.Contains(rest, "Max-Age=0") || strings.Contains(strings.ToLower(rest), "1970") {
			delete(b.cookies, name)
		} else {
			b.cookies[name] = v
		}
	}
}

func (r *modelRun) login(b *modelBrowser) bool {
	l := &modelLife{}
	before := r.visit(b, func(s *sojourn.Session) {
		s.Login("anna")
		numbered.Set(s, len(r.lives)+1)
	})
	if before != nil && before.ended == "" {
		before.ended = "a login in its browser"
	}
	for _, other := range r.lives { // no more than one for each user
		if r.over(other) == "" && !r.unused(other) {
			other.ended = "a login"
		}
	}
	l.used, l.end = time.Now(), time.Now().Add(modelLifetime)
	r.lives = append(r.lives, l)
	b.life = l
	r.here[b.handle] = time.Now()
	return true
}

// unused reports whether a session is only alive in the old application: nothing
// ends it here.
func (r *modelRun) unused(l *modelLife) bool {
	for _, b := range []*modelBrowser{r.visitor, r.other} {
		if b.life == l && time.Since(r.here[b.handle]) <= modelIdle {
			return false
		}
	}
	return true
}

var modelEvents = map[string]func(*modelRun) bool{
	"login":     func(r *modelRun) bool { return r.login(r.visitor) },
	"elsewhere": func(r *modelRun) bool { r.other = &modelBrowser{}; return r.login(r.other) },
	"read": func(r *modelRun) bool {
		jar := cookieHeader(r.visitor.cookies)
		r.visit(r.visitor, nil)
		return cookieHeader(r.visitor.cookies) != jar
	},
	"logout": func(r *modelRun) bool {
		before := r.visit(r.visitor, (*sojourn.Session).Logout)
		if before != nil && before.ended == "" {
			before.ended = "a logout"
		}
		r.visitor.life = nil
		return before != nil
	},
	"revoke": func(r *modelRun) bool {
		if _, err := r.m.RevokeUser(r.t.Context(), "anna"); err != nil {
			r.wrong = append(r.wrong, err.Error())
		}
		for _, l := range r.lives {
			if l.ended == "" {
				l.ended = "a revocation"
			}
		}
		return len(r.lives) > 0
	},
	"idle": func(r *modelRun) bool {
		time.Sleep(modelIdle + time.Second)
		return len(r.lives) > 0
	},
	// The old application serves the visitor, and writes the session.
	"old-use": func(r *modelRun) bool {
		ctx, in := context.Background(), http.Header{"Cookie": {cookieHeader(r.visitor.cookies)}}
		s, err := r.old.Read(ctx, in, time.Now())
		if err != nil {
			return false
		}
		plain := adopt.Session{Values: value.PlainDict(s.Data)}
		var n int
		if plain.Get("visits", &n) != nil || n == 0 {
			return false
		}
		lines, err := r.old.Write(ctx, s, time.Now())
		if err != nil {
			r.wrong = append(r.wrong, "the old application: "+err.Error())
		}
		r.visitor.keep(lines)
		r.jars = append(r.jars, r.visitor.cookies)
		r.lives[n-1].used = time.Now()
		return true
	},
}

// check presents every legacy cookie, alone and beside each reference.
func (r *modelRun) check(when string) {
	seen := map[string]bool{}
	var legacies, own []map[string]string
	for _, jar := range r.jars {
		ours, theirs := maps.Clone(jar), maps.Clone(jar)
		maps.DeleteFunc(ours, func(name, _ string) bool { return !strings.HasPrefix(name, "__Host-") })
		maps.DeleteFunc(theirs, func(name, _ string) bool { return strings.HasPrefix(name, "__Host-") })
		if text := cookieHeader(ours); !seen[text] {
			seen[text] = true
			own = append(own, ours)
		}
		if text := cookieHeader(theirs); !seen[text] {
			seen[text] = true
			legacies = append(legacies, theirs)
		}
	}
	legacies, own = append(legacies, nil), append(own, nil)
	for _, ours := range own {
		for _, theirs := range legacies {
			jar := maps.Clone(ours)
			if jar == nil {
				jar = map[string]string{}
			}
			maps.Copy(jar, theirs)
			r.send(jar, nil)
		}
	}
	for name, b := range map[string]*modelBrowser{"visitor": r.visitor, "other": r.other} {
		if l := b.life; l != nil && r.over(l) == "" && time.Since(r.here[b.handle]) <= modelIdle {
			if found, _, _ := r.send(b.cookies, nil); found != l {
				r.wrong = append(r.wrong, fmt.Sprintf("the %s has lost its session", name))
			}
		}
	}
	for i := range r.wrong {
		if !strings.Contains(r.wrong[i], ", ") {
			r.wrong[i] += ", " + when
		}
	}
}

func TestNoLegacyCredentialOfAnyFormatResurrectsASession(t *testing.T) {
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range allFormats {
		depth := 3                    // events in a sequence
		if name == "webapp2 cookie" { // tells of a session's use, and each use makes a copy
			depth = 4
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sequences, adopted, failed := 0, 0, 0
				var play func(events []string)
				play = func(events []string) {
					if len(events) > 0 {
						sequences++
						r := newModelRun(t, open, keys)
						defer r.m.Close()
						for _, e := range events {
							if !modelEvents[e](r) {
								return
							}
							time.Sleep(time.Second)
						}
						for _, when := range []string{"at once", "after the grace", "two minutes later"} {
							r.check(when)
							time.Sleep(2*time.Minute + time.Second)
						}
						adopted += r.adopted
						if len(r.wrong) > 0 {
							if failed++; failed <= 5 {
								t.Errorf("%s: %s", strings.Join(events, ", "), r.wrong[0])
							}
							return
						}
						if len(events) == depth {
							return
						}
					}
					for _, e := range slices.Sorted(maps.Keys(modelEvents)) {
						play(append(slices.Clip(events), e))
					}
				}
				play(nil)
				t.Logf("%d sequences, %d adopted, %d failed", sequences, adopted, failed)
				// A session that began long ago, in a format without its last use, is never adopted.
				if sequences < 50 || adopted == 0 && name == "webapp2 cookie" {
					t.Error("the model does not try what it is about")
				}
			})
		})
	}
}
