package lifetimes_test

import (
	"context"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

const aDay = 24 * time.Hour

// Somebody who came every day was logged out on day 31, as reported in
// multica-ai/multica#8486.
func TestASessionWithoutALifetimeLastsAsLongAsItIsUsed(t *testing.T) {
	for name, f := range map[string]func(*sojourn.Session){
		"inline":          func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") },
		"stored":          func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) },
		"a login":         func(s *sojourn.Session) { s.Login("anna") },
		"its own setting": func(s *sojourn.Session) { sitetest.Visits.Set(s, 1); s.SetExpiry(0, sojourn.NoLimit) },
	} {
		for _, idle := range []time.Duration{30 * aDay, sojourn.NoLimit} {
			cfg := sojourn.Config{IdleTimeout: idle, Lifetime: sojourn.NoLimit}
			if name == "its own setting" {
				cfg.Lifetime = 40 * aDay
			}
			sitetest.Days(t, cfg, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
				anna := sitetest.NewBrowser()
				sitetest.Does(t, anna, shop, f)
				for day := 0; day < 1200; day += 20 {
					time.Sleep(20 * aDay)
					if sitetest.IsNew(t, anna, shop) { // only reads
						t.Fatalf("%s, idle timeout %v: it has ended by day %d", name, idle, day+20)
					}
				}
				sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
					if left := time.Until(s.Info().Expires); left < 190*aDay || left > 400*aDay {
						t.Errorf("%s: the record, its index entry and its cookie are kept for another %v", name, left)
					}
				})
				pause := 31 * aDay
				if idle < 0 {
					pause = 401 * aDay
				}
				time.Sleep(pause)
				if !sitetest.IsNew(t, anna, shop) {
					t.Errorf("%s, idle timeout %v: it is still there after %v without a visit", name, idle, pause)
				}
			})
		}
	}
}

func TestWhatCountsAsNoActivityDoesNotMoveTheEndOn(t *testing.T) {
	sitetest.Days(t, sojourn.Config{IdleTimeout: sojourn.NoLimit, Lifetime: sojourn.NoLimit}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		end := sitetest.Only(t, db).Expires
		time.Sleep(399 * aDay)
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Background() })
		if got := sitetest.Only(t, db).Expires; !got.Equal(end) {
			t.Errorf("a poll has moved the end from %v to %v", end, got)
		}
	})
}

func TestALoginStartsTheTimeOfASessionWithoutALifetimeAnew(t *testing.T) {
	sitetest.Days(t, sojourn.Config{Lifetime: sojourn.NoLimit}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		for range 60 {
			time.Sleep(5 * aDay)
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { _ = sitetest.Visits.Get(s) })
		}
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna") })
		sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
			if left := time.Until(s.Info().Expires); left < 399*aDay {
				t.Errorf("after the login it ends in %v", left)
			}
		})
	})
}

func TestAChangeThatIsNoActivityDoesNotMoveTheEndOn(t *testing.T) {
	edit := func(shop *sitetest.Site, handle string) error {
		return shop.Manager.Edit(context.Background(), handle, func(s *sojourn.Session) error { sitetest.Visits.Set(s, 2); return nil })
	}
	poll := func(s *sojourn.Session) { s.Background(); sitetest.Visits.Set(s, 2) }
	for name, change := range map[string]func(*testing.T, *sitetest.Browser, *sitetest.Site, string){
		"Edit": func(t *testing.T, _ *sitetest.Browser, shop *sitetest.Site, handle string) {
			if err := edit(shop, handle); err != nil {
				t.Error(err)
			}
		},
		"a poll": func(t *testing.T, anna *sitetest.Browser, shop *sitetest.Site, _ string) {
			sitetest.Does(t, anna, shop, poll)
		},
	} {
		sitetest.Days(t, sojourn.Config{IdleTimeout: sojourn.NoLimit, Lifetime: sojourn.NoLimit}, func(t *testing.T, shop *sitetest.Site, db *faults.Store) {
			anna := sitetest.NewBrowser()
			var handle string
			sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); handle = s.Handle() })
			end := sitetest.Only(t, db).Expires
			time.Sleep(399 * aDay)
			change(t, anna, shop, handle)
			if got := sitetest.Only(t, db).Expires; !got.Equal(end) {
				t.Errorf("%s has moved the end from %v to %v", name, end, got)
			}
			sitetest.Look(t, anna, shop, func(s *sojourn.Session) {
				if sitetest.Visits.Get(s) != 2 {
					t.Errorf("%s: the change was lost", name)
				}
			})
		})
	}
}
