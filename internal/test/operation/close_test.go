package operation_test

import (
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
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
