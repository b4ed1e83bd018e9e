// Package large measures how many bytes a request allocates whose session has
// twenty values of 1,000 bytes each: a copy of the record on its way to or from a
// store shows. It is of no use under the race detector, which allocates for itself.
package large

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
)

// Cost is what one request allocates, in bytes.
type Cost struct {
	Read   float64 // one of the values is read
	Write  float64 // one of the values is changed
	Small  float64 // the only value of another session is read, which has 1,000 bytes
	Record float64 // how many bytes the sealed record has; not allocated
}

// Of returns what requests cost whose sessions are in db, which must be empty and
// can list its records.
func Of(t *testing.T, db store.Store) (c Cost) {
	t.Helper()
	manager := sitetest.Manager(t, sojourn.Config{Store: db, Mode: sojourn.StoredOnly})
	var values [20]sojourn.Key[string]
	for i := range values {
		values[i] = sojourn.NewKey[string](fmt.Sprintf("page%02d", i))
	}
	text := [2]string{strings.Repeat("a", 1000), strings.Repeat("b", 1000)}

	visit := visitor(t, manager)
	visit(func(s *sojourn.Session) {
		for _, v := range values {
			v.Set(s, text[0])
		}
	})
	recs, _, err := db.(store.Scanner).Scan(t.Context(), "", 100)
	if err != nil || len(recs) != 1 {
		t.Fatalf("%d records (%v), want 1", len(recs), err)
	}
	c.Record = float64(len(recs[0].Data))
	c.Read = allocated(func(int) {
		visit(func(s *sojourn.Session) {
			if values[7].Get(s) != text[0] {
				t.Error("the session has lost a value")
			}
		})
	})
	c.Write = allocated(func(i int) {
		visit(func(s *sojourn.Session) { values[7].Set(s, text[i%2]) })
	})

	visit = visitor(t, manager)
	visit(func(s *sojourn.Session) { values[7].Set(s, text[0]) })
	c.Small = allocated(func(int) {
		visit(func(s *sojourn.Session) {
			if values[7].Get(s) != text[0] {
				t.Error("the session has lost its value")
			}
		})
	})
	t.Logf("record %.0f, read %.0f, write %.0f, read of a small one %.0f bytes", c.Record, c.Read, c.Write, c.Small)
	return c
}

// visitor returns what makes requests of one visitor, with few allocations of its
// own.
func visitor(t *testing.T, manager *sojourn.Manager) func(func(*sojourn.Session)) {
	var do func(*sojourn.Session)
	h := manager.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s, err := manager.Get(r.Context())
		if err != nil {
			t.Error(err)
			return
		}
		do(s)
	}))
	jar := map[string]string{}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/", nil)
	return func(f func(*sojourn.Session)) {
		do = f
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Errorf("answered %d", w.Code)
		}
		if set := w.Header()["Set-Cookie"]; set != nil {
			for _, line := range set {
				if c, err := http.ParseSetCookie(line); err == nil {
					jar[c.Name] = c.Value
				}
			}
			r.Header.Del("Cookie")
			for name, value := range jar {
				r.AddCookie(&http.Cookie{Name: name, Value: value})
			}
		}
	}
}

// allocated returns how many bytes one of many calls allocates: the least of a few
// rounds, since others may allocate besides.
func allocated(call func(i int)) float64 {
	const rounds, calls = 5, 100
	least := math.Inf(1)
	for round := range rounds {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range calls {
			call(i)
		}
		runtime.ReadMemStats(&after)
		if round > 0 { // the first one fills pools
			least = min(least, float64(after.TotalAlloc-before.TotalAlloc)/calls)
		}
	}
	return least
}
