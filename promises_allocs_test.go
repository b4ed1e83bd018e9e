//go:build !race

package sojourn_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store/memory"
)

// The race detector allocates for itself, so this part of promise 1 is measured
// without it.
func TestPromise01UntouchedAllocatesAtMostTwice(t *testing.T) {
	db := faults.Wrap(memory.New())
	site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db}))
	anna := sitetest.NewBrowser()
	anna.Visit(site, func(s *sojourn.Session) { s.Login("anna") })

	bare := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	measure := func(h http.Handler) float64 {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		for name, value := range anna.Cookies() {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
		w := httptest.NewRecorder()
		return testing.AllocsPerRun(1000, func() { h.ServeHTTP(w, r) })
	}
	calls := db.Calls()
	if more := measure(site.Manager.Wrap(bare)) - measure(bare); more > 2 {
		t.Errorf("an untouched request costs %v allocations more than the bare handler, want at most 2", more)
	}
	if db.Calls() != calls {
		t.Error("an untouched request called the store")
	}
}
