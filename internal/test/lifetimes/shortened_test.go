package lifetimes_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store/memory"
)

// A session older than the currently configured lifetime has ended. Otherwise
// it could be read until its saved end, and the first change would be answered
// with 200 and lost.
func TestAShorterLifetimeHoldsForSessionsThatAreThere(t *testing.T) {
	const day = 24 * time.Hour
	for what, change := range map[string]func(*sojourn.Config){
		"inline":     func(*sojourn.Config) {},
		"stored":     sitetest.StoredOnly,
		"CookieOnly": sitetest.CookieOnly,
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, keys := faults.Wrap(memory.New()), sitetest.Keys(t)
				at := func(lifetime time.Duration) *sitetest.Lab {
					return sitetest.NewLab(t, func(c *sojourn.Config) {
						c.Keys, c.Store, c.Lifetime, c.IdleTimeout = keys, db, lifetime, -1
						change(c)
					})
				}
				before, after := at(90*day), at(30*day)
				old, young := sitetest.NewGuest(t), sitetest.NewGuest(t)
				before.Do(old, func(s *sojourn.Session) { testValue.Set(s, "old") })
				time.Sleep(35 * day)
				before.Do(young, func(s *sojourn.Session) { testValue.Set(s, "young") })
				time.Sleep(25 * day)
				after.Do(young, func(s *sojourn.Session) {
					if got := testValue.Get(s); got != "young" {
						t.Errorf("a session of 25 days holds %q", got)
					}
				})
				after.Do(old, func(s *sojourn.Session) {
					if !s.IsNew() || testValue.Get(s) != "" {
						t.Error("a session of 60 days is still there")
					}
					testValue.Set(s, "new")
				})
				after.Do(old, func(s *sojourn.Session) {
					if got := testValue.Get(s); got != "new" {
						t.Errorf("the change reads %q", got)
					}
				})
			})
		})
	}
}

var testValue = sojourn.NewKey[string]("value")
