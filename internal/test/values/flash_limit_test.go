package values_test

import (
	"fmt"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

func TestOfTooManyFlashMessagesTheNewestWait(t *testing.T) {
	for name, edit := range map[string]func(*sojourn.Config){"stored": sitetest.StoredOnly, "in the cookie": func(c *sojourn.Config) { sitetest.CookieOnly(c); c.InlineLimit = 15_000 }} {
		s := sitetest.NewLab(t, edit)
		v := sitetest.NewGuest(t)
		for i := range 10 { // requests of a client that never asks for a page
			s.Do(v, func(session *sojourn.Session) {
				for j := range 15 {
					session.Flash("info", fmt.Sprint(15*i+j))
				}
			})
		}
		s.Do(v, func(session *sojourn.Session) {
			got := session.Flashes()
			if len(got) != 100 || got[0].Text != "50" || got[99].Text != "149" {
				t.Errorf("%s: %d messages: %v", name, len(got), got)
			}
		})
		s.Do(v, func(session *sojourn.Session) {
			if got := session.Flashes(); len(got) != 0 {
				t.Errorf("%s: again %d", name, len(got))
			}
		})
	}
}
