package operation_test

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

// Sessions were lost after a restart, as reported in kataras/iris#1814 and #1841.
func TestSessionsOutliveTheirManager(t *testing.T) {
	db, keys := memory.New(), sitetest.Keys(t)
	start := func() *sitetest.Site {
		return sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db, Keys: keys}))
	}
	inline, stored := sitetest.NewBrowser(), sitetest.NewBrowser()
	before := start()
	sitetest.Does(t, inline, before, func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
	sitetest.Does(t, stored, before, func(s *sojourn.Session) { s.Login("anna") })
	if err := before.Manager.Close(); err != nil {
		t.Error(err)
	}
	after := start()
	if sitetest.IsNew(t, inline, after) || sitetest.IsNew(t, stored, after) {
		t.Error("a session is gone")
	}
}

func TestAClosedManagerAnswersThatItIsClosed(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		closed := make(chan error)
		go func() { closed <- s.Close() }()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if got := sitetest.CartKey.Get(session); got != 1 {
			t.Errorf("the cart is %d", got)
		}
		w.WriteHeader(http.StatusOK) // reading is not refused
	})
	sitetest.WantStatus(t, resp, http.StatusOK)
	resp = s.Serve(v, func(http.ResponseWriter, *http.Request, *sojourn.Session) { t.Error("served") })
	sitetest.WantStatus(t, resp, http.StatusServiceUnavailable)
	if _, _, err := sitetest.Begin(t.Context(), s.Manager, http.Header{}); !errors.Is(err, sojourn.ErrClosed) {
		t.Errorf("Open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
}

func TestCloseRefusesChangesAndLetsReadersFinish(t *testing.T) {
	for what, touch := range map[string]struct {
		change func(*sojourn.Session)
		status int
	}{
		"reader": {func(session *sojourn.Session) { sitetest.CartKey.Get(session) }, http.StatusOK},
		"writer": {func(session *sojourn.Session) { sitetest.CartKey.Set(session, 2) }, http.StatusServiceUnavailable},
	} {
		for due, wait := range map[string]time.Duration{"nothing": 0, "its activity": 2 * time.Hour} {
			for reseal, second := range map[string]string{"": "published", " and a newer key": "active"} {
				t.Run(what+" who is due "+due+reseal, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						old, next := olderKey(), keys.Generate()
						first := sitetest.NewLab(t, func(c *sojourn.Config) { c.Keys = sitetest.Parse(t, old) })
						s := sitetest.NewLab(t, func(c *sojourn.Config) {
							c.Keys, c.Store = sitetest.Parse(t, sitetest.KeyText(old, sitetest.WithState(next, second))), first.Store
						})
						v := sitetest.NewGuest(t)
						first.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
						time.Sleep(wait)
						sitetest.WantStatus(t, s.Serve(v, func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
							if err := s.Close(); err != nil {
								t.Error(err)
							}
							touch.change(session)
						}), touch.status)
					})
				})
			}
		}
	}
}
