package lifetimes_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
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

func TestAStreamLearnsOfTheEndOfItsSession(t *testing.T) {
	logout := func(s *sitetest.Lab, v *sitetest.Guest) { s.Do(v, func(session *sojourn.Session) { session.Logout() }) }
	for name, test := range map[string]struct {
		end  func(*sitetest.Lab, *sitetest.Guest)
		want error
	}{
		"logout": {logout, sojourn.ErrEnded},
		"login": {func(s *sitetest.Lab, v *sitetest.Guest) {
			s.Do(v, func(session *sojourn.Session) { session.Login("eva") })
		}, sojourn.ErrEnded},
		"login as the same user": {func(s *sitetest.Lab, v *sitetest.Guest) {
			s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
		}, sojourn.ErrEnded},
		"idle timeout":  {func(*sitetest.Lab, *sitetest.Guest) { time.Sleep(6*time.Hour + 2*time.Millisecond) }, sojourn.ErrExpired},
		"lifetime":      {useUntil(20 * time.Hour), sojourn.ErrExpired},
		"Manager.Close": {func(s *sitetest.Lab, v *sitetest.Guest) { _ = s.Close() }, sojourn.ErrClosed},
		"a shorter expiry": {func(s *sitetest.Lab, v *sitetest.Guest) {
			s.Do(v, func(session *sojourn.Session) { session.SetExpiry(time.Hour, 0) })
			time.Sleep(time.Hour + 2*time.Millisecond)
		}, sojourn.ErrExpired},
		"a lifetime that is over": {func(s *sitetest.Lab, v *sitetest.Guest) {
			time.Sleep(time.Hour)
			s.Do(v, func(session *sojourn.Session) { session.SetExpiry(0, time.Minute) })
		}, sojourn.ErrExpired},
		"a logout, hours later": {func(s *sitetest.Lab, v *sitetest.Guest) {
			time.Sleep(5 * time.Hour)
			logout(s, v)
		}, sojourn.ErrEnded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := sitetest.NewLab(t, func(c *sojourn.Config) { c.IdleTimeout, c.Lifetime = 6*time.Hour, 20*time.Hour })
				v := sitetest.NewGuest(t)
				s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
				stream(s, v.Copy(), func(session *sojourn.Session) {
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
func useUntil(d time.Duration) func(*sitetest.Lab, *sitetest.Guest) {
	return func(s *sitetest.Lab, v *sitetest.Guest) {
		for range d / (4 * time.Hour) {
			s.Do(v, func(session *sojourn.Session) { _ = session.User() })
			time.Sleep(4 * time.Hour)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestWaitingForTheEndIsNoActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t, func(c *sojourn.Config) { c.IdleTimeout = time.Hour })
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
		touches, saves := s.Store.Touches.Load(), s.Store.Saves.Load()
		stream(s, v, func(session *sojourn.Session) {
			time.Sleep(time.Hour)
			if isDone(session) {
				t.Error("over at its very deadline")
			}
			time.Sleep(2 * time.Millisecond)
			if !isDone(session) {
				t.Error("not over")
			}
		})
		if s.Store.Touches.Load() != touches || s.Store.Saves.Load() != saves {
			t.Error("the store was written to")
		}
	})
}

func TestAStreamGoesOnWhileOtherRequestsUseTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t, func(c *sojourn.Config) { c.IdleTimeout = time.Hour })
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
		stream(s, v, func(session *sojourn.Session) {
			done := session.Done()
			for range 10 {
				time.Sleep(50 * time.Minute)
				s.Do(v.Copy(), func(other *sojourn.Session) { _ = sitetest.CartKey.Get(other) })
			}
			if isDone(session) || session.Done() != done {
				t.Error("over although it was used")
			}
			time.Sleep(time.Hour + 2*time.Millisecond)
			if !isDone(session) {
				t.Error("not over")
			}
		})
	})
}

func TestAnOutageOfTheStoreEndsNoStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t, func(c *sojourn.Config) { c.IdleTimeout = time.Hour })
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
		stream(s, v, func(session *sojourn.Session) {
			_ = session.Done()
			time.Sleep(30 * time.Minute)
			s.Do(v.Copy(), func(other *sojourn.Session) { _ = sitetest.CartKey.Get(other) })
			s.Store.Down.Store(true)
			time.Sleep(35 * time.Minute)
			if isDone(session) {
				t.Error("over, although nobody can know")
			}
			s.Store.Down.Store(false)
			time.Sleep(2 * time.Second)
			if isDone(session) {
				t.Error("over although it was used")
			}
			time.Sleep(time.Hour)
			if !isDone(session) {
				t.Error("not over")
			}
		})
	})
}

func TestASessionThatIsNotStoredEndsByItsLifetimeOrClose(t *testing.T) {
	for name, config := range map[string]func(*sojourn.Config){
		"Auto": func(*sojourn.Config) {}, "CookieOnly": sitetest.CookieOnly,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := sitetest.NewLab(t, config, func(c *sojourn.Config) { c.Lifetime, c.IdleTimeout = time.Hour, -1 })
				v := sitetest.NewGuest(t)
				s.Do(v, func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") })
				stream(s, v.Copy(), func(session *sojourn.Session) {
					_ = session.Done()
					s.Do(v, func(session *sojourn.Session) { session.Logout() })
					if isDone(session) {
						t.Error("a session in a cookie cannot be told of a logout")
					}
					time.Sleep(time.Hour + 2*time.Millisecond)
					if !isDone(session) || !errors.Is(session.Err(), sojourn.ErrExpired) {
						t.Errorf("Err: %v", session.Err())
					}
				})
				stream(s, sitetest.NewGuest(t), func(session *sojourn.Session) {
					time.Sleep(1000 * 24 * time.Hour)
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
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t)
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
		stream(s, v, func(session *sojourn.Session) {
			_ = s.Close()
			if !isDone(session) || !errors.Is(session.Err(), sojourn.ErrClosed) {
				t.Errorf("Err: %v", session.Err())
			}
		})
	})
}

func TestDoneOfASessionThatTheStreamItselfEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t)
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
		stream(s, v, func(session *sojourn.Session) {
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
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t)
		var streams sync.WaitGroup
		hangUp := make(chan struct{})
		guests := make([]*sitetest.Guest, 10)
		for i := range guests {
			guests[i] = sitetest.NewGuest(t)
			s.Do(guests[i], func(session *sojourn.Session) { session.Login("anna") })
		}
		for i := range 1000 {
			streams.Go(func() {
				stream(s, guests[i%len(guests)].Copy(), func(session *sojourn.Session) {
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
			s.Do(v, func(session *sojourn.Session) { session.Logout() })
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
		loads := s.Store.Loads.Load()
		time.Sleep(40 * 24 * time.Hour)
		if s.Store.Loads.Load() != loads {
			t.Error("somebody still looks")
		}
	})
}

func TestAStreamThatEndsWhileTheStoreIsAskedLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t, func(c *sojourn.Config) { c.IdleTimeout = time.Hour })
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
		asked, answer := make(chan struct{}), make(chan struct{})
		stream(s, v, func(session *sojourn.Session) {
			_ = session.Done()
			time.Sleep(30 * time.Minute)
			s.Do(v.Copy(), func(other *sojourn.Session) { _ = sitetest.CartKey.Get(other) })
			s.Store.OnLoad = func(ctx context.Context, id store.ID) (store.Record, error) {
				close(asked)
				<-answer
				return s.Store.Inner.Load(ctx, id)
			}
			time.Sleep(31 * time.Minute) // its deadline as it was: the store is asked
			<-asked
			s.Store.OnLoad = nil
		})
		close(answer)
		synctest.Wait()
		loads := s.Store.Loads.Load()
		time.Sleep(40 * 24 * time.Hour)
		if s.Store.Loads.Load() != loads {
			t.Error("somebody still looks")
		}
	})
}

func TestDoneAskedForAfterTheRequestIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t)
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
		var leaked *sojourn.Session
		s.Do(v, func(session *sojourn.Session) { leaked = session })
		if !isDone(leaked) || !errors.Is(leaked.Err(), sojourn.ErrTooLate) {
			t.Errorf("Err: %v", leaked.Err())
		}
		if waiting := s.Streams(); waiting != 0 {
			t.Error("it is waited for")
		}
	})
}

func TestDoneOfAnAttachedRequestIsReleasedByFinishAndTheLastHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t)
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
		session, x, err := sitetest.Begin(t.Context(), s.Manager, http.Header{"Cookie": {v.Header()}})
		if err != nil {
			t.Fatal(err)
		}
		_ = session.Done()
		if waiting := s.Streams(); waiting != 1 {
			t.Error("it is not waited for")
		}
		one, two := x.Hold(), x.Hold()
		if err := x.Finish(); err != nil {
			t.Error(err)
		}
		one()
		one()
		if waiting := s.Streams(); waiting != 1 {
			t.Error("it was released although the exchange is held")
		}
		two()
		if waiting := s.Streams(); waiting != 0 {
			t.Error("it is still waited for")
		}
	})
}

// stream runs f in a stream of v that has sent its first byte.
func stream(s *sitetest.Lab, v *sitetest.Guest, f func(*sojourn.Session)) {
	s.T.Helper()
	s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		if err := http.NewResponseController(w).Flush(); err != nil {
			s.T.Errorf("Flush: %v", err)
		}
		f(session)
	})
}
