package concurrency_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

type oauth struct{ Verifier, Next string }

var flows = sojourn.NewTicket[oauth]("oauth", 10*time.Minute)

func TestATicketComesBackOnce(t *testing.T) {
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	var nonces []string
	s.Do(v, func(session *sojourn.Session) {
		for i := range 3 { // three tabs
			nonces = append(nonces, flows.Issue(session, oauth{fmt.Sprint("secret", i), "/"}))
		}
	})
	s.Do(v, func(session *sojourn.Session) {
		if names := session.Names(); len(names) > 0 {
			t.Errorf("the names are %q", names)
		}
		for range 2 {
			if got, err := flows.Lookup(session, nonces[1]); err != nil || got.Verifier != "secret1" {
				t.Errorf("Lookup: %+v, %v", got, err)
			}
		}
	})
	for _, i := range []int{2, 0, 1} {
		s.Do(v, func(session *sojourn.Session) {
			if got, err := flows.Redeem(t.Context(), session, nonces[i]); err != nil || got != (oauth{fmt.Sprint("secret", i), "/"}) {
				t.Errorf("Redeem: %+v, %v", got, err)
			}
			if got, err := flows.Redeem(t.Context(), session, nonces[i]); !errors.Is(err, sojourn.ErrTaken) || got != (oauth{}) {
				t.Errorf("Redeem again: %+v, %v", got, err)
			}
		})
		s.Do(v, func(session *sojourn.Session) {
			if _, err := flows.Redeem(t.Context(), session, nonces[i]); !errors.Is(err, sojourn.ErrTaken) {
				t.Errorf("Redeem in another request: %v", err)
			}
			if _, err := flows.Lookup(session, nonces[i]); !errors.Is(err, sojourn.ErrTaken) {
				t.Errorf("Lookup in another request: %v", err)
			}
		})
	}
}

func TestWhatIsNoTicketOfTheSession(t *testing.T) {
	s, v, other := sitetest.NewLab(t), sitetest.NewGuest(t), sitetest.NewGuest(t)
	var nonce string
	s.Do(v, func(session *sojourn.Session) { nonce = flows.Issue(session, oauth{"secret", "/"}) })
	s.Do(other, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	s.Do(other, func(session *sojourn.Session) {
		for _, text := range []string{nonce, "", "x", nonce + "A", strings.Repeat("A", 22), strings.Repeat("A", 5000), "../" + nonce} {
			if _, err := flows.Redeem(t.Context(), session, text); !errors.Is(err, sojourn.ErrNoValue) {
				t.Errorf("%.30q: %v", text, err)
			}
		}
	})
	another := sojourn.NewTicket[oauth]("another", time.Minute)
	s.Do(v, func(session *sojourn.Session) {
		if _, err := another.Redeem(t.Context(), session, nonce); !errors.Is(err, sojourn.ErrNoValue) {
			t.Errorf("of another kind: %v", err)
		}
	})
}

func TestATicketExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
		var nonce string
		s.Do(v, func(session *sojourn.Session) { nonce = flows.Issue(session, oauth{"secret", "/"}) })
		time.Sleep(10*time.Minute + time.Millisecond)
		s.Do(v, func(session *sojourn.Session) {
			if _, err := flows.Redeem(t.Context(), session, nonce); !errors.Is(err, sojourn.ErrNoValue) {
				t.Errorf("Redeem: %v", err)
			}
		})
	})
}

func TestASessionKeepsTheEightNewestTicketsOfAKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
		var nonces []string
		for i := range 11 {
			time.Sleep(time.Second)
			s.Do(v, func(session *sojourn.Session) {
				nonces = append(nonces, flows.Issue(session, oauth{fmt.Sprint(i), "/"}))
			})
		}
		s.Do(v, func(session *sojourn.Session) {
			for i, nonce := range nonces {
				if _, err := flows.Lookup(session, nonce); (err == nil) != (i >= 3) {
					t.Errorf("ticket %d: %v", i, err)
				}
			}
		})
	})
}

// A double click on the provider's page causes two parallel callbacks. One gets
// the ticket and logs in; the others get the error that it was redeemed, even
// if the login has replaced their session by then.
func TestOfParallelCallbacksOneGetsTheTicket(t *testing.T) {
	for _, login := range []bool{false, true} {
		s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
		var nonce string
		s.Do(v, func(session *sojourn.Session) { nonce = flows.Issue(session, oauth{"secret", "/"}) })
		var mu sync.Mutex
		won, lost := 0, 0
		callback := s.Handler(func(_ http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			_, err := flows.Redeem(r.Context(), session, nonce)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				if won++; login {
					session.Login("ada")
				}
			case errors.Is(err, sojourn.ErrTaken), errors.Is(err, sojourn.ErrEnded):
				lost++
			default:
				t.Errorf("Redeem: %v", err)
			}
		})
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() { v.Copy().Get(callback) })
		}
		wg.Wait()
		v.Copy().Get(callback) // later, with the old cookie
		if won != 1 || lost != 16 {
			t.Errorf("login %t: %d have won, %d have lost", login, won, lost)
		}
	}
}

func TestATicketThatCouldNotBeSavedStaysGood(t *testing.T) {
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	var nonce string
	s.Do(v, func(session *sojourn.Session) { nonce = flows.Issue(session, oauth{"secret", "/"}) })
	s.Store.SaveDown.Store(true)
	s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		if got, err := flows.Redeem(r.Context(), session, nonce); !errors.Is(err, sojourn.ErrUnavailable) || got != (oauth{}) {
			t.Errorf("Redeem: %+v, %v", got, err)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	s.Store.SaveDown.Store(false)
	s.Do(v, func(session *sojourn.Session) {
		if got, err := flows.Redeem(t.Context(), session, nonce); err != nil || got.Verifier != "secret" {
			t.Errorf("Redeem: %+v, %v", got, err)
		}
	})
}

func TestTicketsNeedAStore(t *testing.T) {
	s, v := sitetest.NewLab(t, sitetest.CookieOnly), sitetest.NewGuest(t)
	resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		flows.Issue(session, oauth{"secret", "/"})
		if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrNoStore) {
			t.Errorf("Save: %v", err)
		}
	})
	sitetest.WantStatus(t, resp, http.StatusInternalServerError)
	for name, f := range map[string]func(){
		"an empty name":   func() { sojourn.NewTicket[int]("", time.Minute) },
		"a long name":     func() { sojourn.NewTicket[int](strings.Repeat("x", 201), time.Minute) },
		"no time to live": func() { sojourn.NewTicket[int]("t", 0) },
		"a bad type":      func() { sojourn.NewTicket[chan int]("t", time.Minute) },
	} {
		if text := sitetest.Panics(f); !strings.Contains(text, "sojourn:") {
			t.Errorf("%s: %q", name, text)
		}
	}
}
