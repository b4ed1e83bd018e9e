package concurrency_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
)

// What an Update function may use while other goroutines use the same sessions.

// twoSessions runs f with the sessions of two managers, in fake time.
func twoSessions(t *testing.T, f func(a, b *sojourn.Session)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		one, two := sitetest.NewLab(t), sitetest.NewLab(t, func(c *sojourn.Config) { c.Name = "other" })
		one.Do(sitetest.NewGuest(t), func(a *sojourn.Session) {
			two.Do(sitetest.NewGuest(t), func(b *sojourn.Session) { f(a, b) })
		})
	})
}

func TestAnUpdateMayUseASessionThatIsBeingUpdatedElsewhere(t *testing.T) {
	for name, use := range map[string]func(*sojourn.Session){
		"reads":   func(b *sojourn.Session) { sitetest.CartKey.Get(b) },
		"writes":  func(b *sojourn.Session) { sitetest.ThemeKey.Set(b, "dark") },
		"updates": func(b *sojourn.Session) { sitetest.CartKey.Update(b, func(n int) int { return n + 1 }) },
		"flashes": func(b *sojourn.Session) { b.Flash("info", "hello") },
		"asks":    func(b *sojourn.Session) { _, _ = b.User(), b.Info() },
	} {
		t.Run(name, func(t *testing.T) {
			twoSessions(t, func(a, b *sojourn.Session) {
				inside, release := make(chan struct{}), make(chan struct{})
				var wg sync.WaitGroup
				wg.Go(func() {
					sitetest.CartKey.Update(b, func(n int) int {
						close(inside)
						<-release
						return n + 10
					})
				})
				<-inside
				var text string
				wg.Go(func() {
					text = sitetest.Panics(func() {
						sitetest.CartKey.Update(a, func(n int) int { use(b); return n + 1 })
					})
				})
				synctest.Wait() // the second one waits for the first
				time.Sleep(500 * time.Millisecond)
				close(release)
				wg.Wait()
				if text != "" {
					t.Errorf("panics with %q", text)
				}
				if got := sitetest.CartKey.Get(a); got != 1 {
					t.Errorf("a is %d, want 1", got)
				}
				if got := sitetest.CartKey.Get(b); got < 10 {
					t.Errorf("b is %d, want 10 or more", got)
				}
			})
		})
	}
}

// An Update may wait for a busy session as long as that session's updates make
// progress.
func TestAnUpdateWaitsForAsLongAsTheOthersGoOn(t *testing.T) {
	twoSessions(t, func(a, b *sojourn.Session) {
		stop, busy := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			begun := sync.OnceFunc(func() { close(busy) })
			for {
				select {
				case <-stop:
					return
				default:
					sitetest.CartKey.Update(b, func(n int) int { begun(); time.Sleep(700 * time.Millisecond); return n + 1 })
				}
			}
		})
		<-busy
		var text string
		wg.Go(func() {
			text = sitetest.Panics(func() {
				sitetest.CartKey.Update(a, func(n int) int { _ = sitetest.CartKey.Get(b); return n + 1 })
			})
		})
		time.Sleep(10 * time.Second)
		close(stop)
		wg.Wait()
		if text != "" {
			t.Errorf("panics with %q", text)
		}
	})
}

func TestTwoUpdatesThatWaitForEachOtherAreToldSo(t *testing.T) {
	twoSessions(t, func(a, b *sojourn.Session) {
		var ready, wg sync.WaitGroup
		ready.Add(2)
		texts := make(chan string, 2)
		for _, pair := range [][2]*sojourn.Session{{a, b}, {b, a}} {
			wg.Go(func() {
				texts <- sitetest.Panics(func() {
					sitetest.CartKey.Update(pair[0], func(n int) int {
						ready.Done()
						ready.Wait()
						return sitetest.CartKey.Get(pair[1]) + 1
					})
				})
			})
		}
		wg.Wait()
		told := 0
		for range 2 {
			if text := <-texts; strings.Contains(text, "must not use the session") {
				told++
			} else if text != "" {
				t.Errorf("panics with %q", text)
			}
		}
		if told == 0 {
			t.Error("nobody was told")
		}
		// Neither session is left locked.
		_, _ = sitetest.CartKey.Get(a), sitetest.CartKey.Get(b)
	})
}

// curious is a codec that reads a session.
type curious struct{ session **sojourn.Session }

func (c curious) Encode(n int) ([]byte, error) { c.look(); return json.Marshal(n) }
func (c curious) Decode(b []byte) (n int, err error) {
	c.look()
	return n, json.Unmarshal(b, &n)
}

func (c curious) look() {
	if *c.session != nil {
		_ = (*c.session).User()
	}
}

func TestACodecThatUsesTheSessionBlocksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var of *sojourn.Session
		key := sojourn.NewKeyCodec[int]("curious", curious{&of})
		s := sitetest.NewLab(t)
		s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) {
			of = session
			key.Set(session, 1)
			if got := key.Get(session); got != 1 {
				t.Errorf("Get: %d", got)
			}
			// Inside of an Update, its codec is a part of it.
			if text := sitetest.Panics(func() { key.Update(session, func(n int) int { return n + 1 }) }); !strings.Contains(text, "must not use the session") {
				t.Errorf("Update panics with %q", text)
			}
			if got, ok := key.Pop(session); got != 1 || !ok {
				t.Errorf("Pop: %d, %v", got, ok)
			}
			of = nil
		})
	})
}

// Outside of Update functions, an Update waits for a session that is locked for a commit.
func TestAnUpdateWaitsForTheCommitOfAnotherSession(t *testing.T) {
	one, two := sitetest.NewLab(t), sitetest.NewLab(t, func(c *sojourn.Config) { c.Name = "other" })
	saving, release := make(chan struct{}), make(chan struct{})
	two.Store.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
		close(saving)
		<-release
		return two.Store.Inner.Save(ctx, rec, base)
	}
	one.Do(sitetest.NewGuest(t), func(a *sojourn.Session) {
		two.Serve(sitetest.NewGuest(t), func(w http.ResponseWriter, r *http.Request, b *sojourn.Session) {
			sitetest.CartKey.Set(b, 5)
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := b.Save(r.Context()); err != nil {
					t.Errorf("Save: %v", err)
				}
			})
			<-saving
			two.Store.OnSave = nil
			wg.Go(func() {
				if got := sitetest.CartKey.Update(a, func(int) int { close(release); return sitetest.CartKey.Get(b) }); got != 5 {
					t.Errorf("the Update returns %d, want 5", got)
				}
			})
			wg.Wait()
		})
	})
}
