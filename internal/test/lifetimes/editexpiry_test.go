package lifetimes_test

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

func TestAStreamEndsWithTheEarlierEndThatAnEditSets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
		var handle string
		s.Do(v, func(session *sojourn.Session) { session.Login("ada"); handle = session.Handle() })
		start := time.Now()
		go func() {
			time.Sleep(time.Second)
			if err := s.Edit(t.Context(), handle, func(session *sojourn.Session) error {
				session.SetExpiry(0, time.Minute)
				return nil
			}); err != nil {
				t.Error(err)
			}
		}()
		s.Serve(v, func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			w.WriteHeader(http.StatusOK)
			select {
			case <-session.Done():
				if !errors.Is(session.Err(), sojourn.ErrExpired) {
					t.Errorf("Err: %v", session.Err())
				}
			case <-time.After(time.Hour):
				t.Error("the stream goes on")
			}
		})
		if took := time.Since(start); took > 2*time.Minute {
			t.Errorf("the stream has ended after %v", took)
		}
	})
}
