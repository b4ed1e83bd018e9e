package sojourn_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
)

// isDone reports whether the channel is closed, in a bubble of fake time.
func isDone(session *sojourn.Session) bool {
	synctest.Wait()
	select {
	case <-session.Done():
		return true
	default:
		return false
	}
}

// stream runs f in a stream of v that has sent its first byte.
func (s *site) stream(v *guest, f func(*sojourn.Session)) {
	s.t.Helper()
	s.serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		if err := http.NewResponseController(w).Flush(); err != nil {
			s.t.Errorf("Flush: %v", err)
		}
		f(session)
	})
}

func TestAStreamLearnsOfTheEndOfItsSession(t *testing.T) {
	logout := func(s *site, v *guest) { s.do(v, func(session *sojourn.Session) { session.Logout() }) }
	for name, test := range map[string]struct {
		end  func(*site, *guest)
		want error
	}{
		"logout": {logout, sojourn.ErrEnded},
		"login": {func(s *site, v *guest) {
			s.do(v, func(session *sojourn.Session) { session.Login("eva") })
		}, sojourn.ErrEnded},
		"login as the same user": {func(s *site, v *guest) {
			s.do(v, func(session *sojourn.Session) { session.Login("anna") })
		}, sojourn.ErrEnded},
		"idle timeout":  {func(*site, *guest) { wait(6*time.Hour + 2*time.Millisecond) }, sojourn.ErrExpired},
		"lifetime":      {useUntil(20 * time.Hour), sojourn.ErrExpired},
		"Manager.Close": {func(s *site, v *guest) { _ = s.Close() }, sojourn.ErrClosed},
		"a shorter expiry": {func(s *site, v *guest) {
			s.do(v, func(session *sojourn.Session) { session.SetExpiry(time.Hour, 0) })
			wait(time.Hour + 2*time.Millisecond)
		}, sojourn.ErrExpired},
		"a lifetime that is over": {func(s *site, v *guest) {
			wait(time.Hour)
			s.do(v, func(session *sojourn.Session) { session.SetExpiry(0, time.Minute) })
		}, sojourn.ErrExpired},
		"a logout, hours later": {func(s *site, v *guest) {
			wait(5 * time.Hour)
			logout(s, v)
		}, sojourn.ErrEnded},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T) {
				s := newSite(t, func(c *sojourn.Config) { c.IdleTimeout, c.Lifetime = 6*time.Hour, 20*time.Hour })
				v := newGuest(t)
				s.do(v, func(session *sojourn.Session) { session.Login("anna") })
				s.stream(v.copy(), func(session *sojourn.Session) {
					if isDone(session) || session.Err() != nil {
						t.Fatalf("over before its end: %v", session.Err())
					}
					test.end(s, v)
					if !isDone(session) || !errors.Is(session.Err(), test.want) {
						t.Errorf("done: %v, Err: %v, want %v", isDone(session), session.Err(), test.want)
					}
				})
			})
		})
	}
}

// useUntil uses the session every few hours, until its lifetime is over.
func useUntil(d time.Duration) func(*site, *guest) {
	return func(s *site, v *guest) {
		for range d / (4 * time.Hour) {
			s.do(v, func(session *sojourn.Session) { _ = session.User() })
			wait(4 * time.Hour)
		}
		wait(2 * time.Millisecond)
	}
}

func TestWaitingForTheEndIsNoActivity(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s := newSite(t, func(c *sojourn.Config) { c.IdleTimeout = time.Hour })
		v := newGuest(t)
		s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 1) })
		touches, saves := s.store.touches.Load(), s.store.saves.Load()
		s.stream(v, func(session *sojourn.Session) {
			wait(time.Hour)
			if isDone(session) {
				t.Error("over at its very deadline")
			}
			wait(2 * time.Millisecond)
			if !isDone(session) {
				t.Error("not over")
			}
		})
		if s.store.touches.Load() != touches || s.store.saves.Load() != saves {
			t.Error("the store was written to")
		}
	})
}

func TestAStreamGoesOnWhileOtherRequestsUseTheSession(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s := newSite(t, func(c *sojourn.Config) { c.IdleTimeout = time.Hour })
		v := newGuest(t)
		s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 1) })
		s.stream(v, func(session *sojourn.Session) {
			done := session.Done()
			for range 10 {
				wait(50 * time.Minute)
				s.do(v.copy(), func(other *sojourn.Session) { _ = cartKey.Get(other) })
			}
			if isDone(session) || session.Done() != done {
				t.Error("over although it was used")
			}
			wait(time.Hour + 2*time.Millisecond)
			if !isDone(session) {
				t.Error("not over")
			}
		})
	})
}

func TestAnOutageOfTheStoreEndsNoStream(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s := newSite(t, func(c *sojourn.Config) { c.IdleTimeout = time.Hour })
		v := newGuest(t)
		s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 1) })
		s.stream(v, func(session *sojourn.Session) {
			_ = session.Done()
			wait(30 * time.Minute)
			s.do(v.copy(), func(other *sojourn.Session) { _ = cartKey.Get(other) })
			s.store.down.Store(true)
			wait(35 * time.Minute)
			if isDone(session) {
				t.Error("over, although nobody can know")
			}
			s.store.down.Store(false)
			wait(2 * time.Second)
			if isDone(session) {
				t.Error("over although it was used")
			}
			wait(time.Hour)
			if !isDone(session) {
				t.Error("not over")
			}
		})
	})
}

func TestASessionThatIsNotStoredEndsByItsLifetimeOrClose(t *testing.T) {
	for name, config := range map[string]func(*sojourn.Config){
		"Auto": func(*sojourn.Config) {}, "CookieOnly": cookieOnly,
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T) {
				s := newSite(t, config, func(c *sojourn.Config) { c.Lifetime, c.IdleTimeout = time.Hour, -1 })
				v := newGuest(t)
				s.do(v, func(session *sojourn.Session) { themeKey.Set(session, "dark") })
				s.stream(v.copy(), func(session *sojourn.Session) {
					_ = session.Done()
					s.do(v, func(session *sojourn.Session) { session.Logout() })
					if isDone(session) {
						t.Error("a session in a cookie cannot be told of a logout")
					}
					wait(time.Hour + 2*time.Millisecond)
					if !isDone(session) || !errors.Is(session.Err(), sojourn.ErrExpired) {
						t.Errorf("Err: %v", session.Err())
					}
				})
				s.stream(newGuest(t), func(session *sojourn.Session) {
					wait(1000 * 24 * time.Hour)
					if isDone(session) {
						t.Error("a session that does not exist has ended")
					}
					_ = s.Close()
					if !isDone(session) || !errors.Is(session.Err(), sojourn.ErrClosed) {
						t.Errorf("Err: %v", session.Err())
					}
				})
			})
		})
	}
}

func TestDoneAfterCloseIsClosed(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s := newSite(t)
		v := newGuest(t)
		s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 1) })
		s.stream(v, func(session *sojourn.Session) {
			_ = s.Close()
			if !isDone(session) || !errors.Is(session.Err(), sojourn.ErrClosed) {
				t.Errorf("Err: %v", session.Err())
			}
		})
	})
}

func TestDoneOfASessionThatTheStreamItselfEnds(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s := newSite(t)
		v := newGuest(t)
		s.do(v, func(session *sojourn.Session) { session.Login("anna") })
		s.stream(v, func(session *sojourn.Session) {
			_ = session.Done()
			session.Logout()
			if err := session.Save(t.Context()); err != nil {
				t.Errorf("Save: %v", err)
			}
			if !isDone(session) || !errors.Is(session.Err(), sojourn.ErrEnded) {
				t.Errorf("Err: %v", session.Err())
			}
		})
	})
}

func TestAThousandStreamsLeaveNothingBehind(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s := newSite(t)
		var streams sync.WaitGroup
		hangUp := make(chan struct{})
		guests := make([]*guest, 10)
		for i := range guests {
			guests[i] = newGuest(t)
			s.do(guests[i], func(session *sojourn.Session) { session.Login("anna") })
		}
		for i := range 1000 {
			streams.Go(func() {
				s.stream(guests[i%len(guests)].copy(), func(session *sojourn.Session) {
					select {
					case <-session.Done():
					case <-hangUp:
					}
				})
			})
		}
		synctest.Wait()
		if waiting := s.Streams(); waiting != 1000 {
			t.Errorf("%d are waiting", waiting)
		}
		for _, v := range guests[:5] { // half of them end, the others hang up
			s.do(v, func(session *sojourn.Session) { session.Logout() })
		}
		synctest.Wait()
		if waiting := s.Streams(); waiting != 500 {
			t.Errorf("%d are still waiting, want 500", waiting)
		}
		close(hangUp)
		streams.Wait()
		if waiting := s.Streams(); waiting != 0 {
			t.Errorf("%d are waiting", waiting)
		}
		// Had a timer been left, the store would be asked again.
		loads := s.store.loads.Load()
		wait(40 * 24 * time.Hour)
		if s.store.loads.Load() != loads {
			t.Error("somebody still looks")
		}
	})
}

func TestAStreamThatEndsWhileTheStoreIsAskedLeavesNothingBehind(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s := newSite(t, func(c *sojourn.Config) { c.IdleTimeout = time.Hour })
		v := newGuest(t)
		s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 1) })
		asked, answer := make(chan struct{}), make(chan struct{})
		s.stream(v, func(session *sojourn.Session) {
			_ = session.Done()
			wait(30 * time.Minute)
			s.do(v.copy(), func(other *sojourn.Session) { _ = cartKey.Get(other) })
			block := func() { close(asked); <-answer }
			s.store.onLoad.Store(&block)
			wait(31 * time.Minute) // its deadline as it was: the store is asked
			<-asked
			s.store.onLoad.Store(nil)
		})
		close(answer)
		synctest.Wait()
		loads := s.store.loads.Load()
		wait(40 * 24 * time.Hour)
		if s.store.loads.Load() != loads {
			t.Error("somebody still looks")
		}
	})
}

func TestDoneAskedForAfterTheRequestIsClosed(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s := newSite(t)
		v := newGuest(t)
		s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 1) })
		var leaked *sojourn.Session
		s.do(v, func(session *sojourn.Session) { leaked = session })
		if !isDone(leaked) || !errors.Is(leaked.Err(), sojourn.ErrTooLate) {
			t.Errorf("Err: %v", leaked.Err())
		}
		if waiting := s.Streams(); waiting != 0 {
			t.Error("it is waited for")
		}
	})
}

func TestDoneOfAnOpenedSessionIsReleasedWithItsContext(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s := newSite(t)
		v := newGuest(t)
		s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 1) })
		ctx, cancel := context.WithCancel(t.Context())
		session, err := s.Open(ctx, http.Header{"Cookie": {v.header()}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = session.Done()
		if waiting := s.Streams(); waiting != 1 {
			t.Error("it is not waited for")
		}
		cancel()
		synctest.Wait()
		if waiting := s.Streams(); waiting != 0 {
			t.Error("it is still waited for")
		}
	})
}
