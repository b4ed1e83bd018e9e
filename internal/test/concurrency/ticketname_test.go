package concurrency_test

import (
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

func TestTicketsOfAKindWhoseNameBeginsAnothersStayApart(t *testing.T) {
	short, long := sojourn.NewTicket[int]("a", time.Hour), sojourn.NewTicket[int]("a.b", time.Minute)
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	var nonces []string
	s.Do(v, func(session *sojourn.Session) {
		for i := range 8 {
			nonces = append(nonces, long.Issue(session, i))
		}
		for i := range 8 {
			short.Issue(session, i)
		}
	})
	s.Do(v, func(session *sojourn.Session) {
		for i, nonce := range nonces {
			if got, err := long.Lookup(session, nonce); err != nil || got != i {
				t.Errorf("ticket %d: %d, %v", i, got, err)
			}
		}
	})
}
