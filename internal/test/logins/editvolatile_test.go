package logins_test

import (
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

func TestAnEditSeesAndKeepsVolatileValuesOfACache(t *testing.T) {
	clicks := sojourn.NewKey[int]("clicks", sojourn.Volatile)
	front, err := tiered.New(memory.New(), tiered.Layer{Cache: shared{tiered.NewMemory(1 << 20)}})
	if err != nil {
		t.Fatal(err)
	}
	s, v := sitetest.NewLab(t, func(c *sojourn.Config) { c.Store = front }), sitetest.NewGuest(t)
	var handle string
	s.Do(v, func(session *sojourn.Session) {
		session.Login("ada")
		clicks.Set(session, 1)
		handle = session.Handle()
	})
	s.Do(v, func(session *sojourn.Session) { _ = session.User() })
	for range 2 {
		s.Do(v, func(session *sojourn.Session) { clicks.Update(session, sitetest.AddOne) })
	}
	if got := s.Stats().VolatileSaves; got == 0 {
		t.Fatal("nothing was kept in a cache")
	}
	if err := s.Edit(t.Context(), handle, func(session *sojourn.Session) error {
		if got := clicks.Get(session); got != 3 {
			t.Errorf("Edit sees %d", got)
		}
		roles.Set(session, []string{"editor"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s.Do(v, func(session *sojourn.Session) {
		if got := clicks.Get(session); got != 3 || len(roles.Get(session)) != 1 {
			t.Errorf("after the edit there are %d, %q", got, roles.Get(session))
		}
	})
}
