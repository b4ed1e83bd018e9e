// Package large measures how many bytes a request allocates whose session has
// twenty values of 1,000 bytes each, to detect copies of the record on its way
// to or from a store. It does not work under the race detector, which allocates
// itself.
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

// Cost is the allocations of one request, in bytes.
type Cost struct {
	Read, Write           float64 // one of twenty values is read, or changed
	SmallRead, SmallWrite float64 // the same in a session with one value of two bytes
	Record                float64 // size of the sealed record of twenty values
}

// OnEngine fails the test unless a store with records outside of the process
// makes one copy of each record that it reads, and few of each that it writes.
// A request's fixed cost is not counted.
func OnEngine(t *testing.T, db store.Store) {
	t.Helper()
	c := of(t, db)
	c.atMost(t, "reading", c.Read-c.SmallRead, 1.3*c.Record)
}

// InProcess fails the test unless a store with records in the process makes no
// copies on reads.
func InProcess(t *testing.T, db store.Store) {
	t.Helper()
	c := of(t, db)
	c.atMost(t, "reading", c.Read, 8<<10)
}

// atMost fails the test if an operation allocates more than that.
func (c *Cost) atMost(t *testing.T, doing string, bytes, most float64) {
	t.Helper()
	if bytes > most {
		t.Errorf("%s one of twenty values, in a record of %.0f bytes, allocates %.0f, want at most %.0f", doing, c.Record, bytes, most)
	}
}

// of returns the cost of requests with sessions in db, which must be empty and
// implement Scanner.
func of(t *testing.T, db store.Store) (c Cost) {
	t.Helper()
	manager := sitetest.Manager(t, sojourn.Config{Store: db, Mode: sojourn.StoredOnly})
	var values [20]sojourn.Key[string]
	for i := range values {
		values[i] = sojourn.NewKey[string](fmt.Sprintf("page%02d", i))
	}
	large := newVisitor(t, manager)
	large.visit(func(s *sojourn.Session) {
		for _, v := range values {
			v.Set(s, strings.Repeat("a", 1000))
		}
	})
	recs, _, err := db.(store.Scanner).Scan(t.Context(), "", 100)
	if err != nil || len(recs) != 1 {
		t.Fatalf("%d records (%v), want 1", len(recs), err)
	}
	c.Record = float64(len(recs[0].Data))
	c.Read, c.Write = large.cost(values[7], 1000)
	small := newVisitor(t, manager)
	small.visit(func(s *sojourn.Session) { values[7].Set(s, "aa") })
	c.SmallRead, c.SmallWrite = small.cost(values[7], 2)
	t.Logf("a record of %.0f bytes: read %.0f, write %.0f; a small one: read %.0f, write %.0f", c.Record, c.Read, c.Write, c.SmallRead, c.SmallWrite)
	return c
}

// A visitor makes requests with few additional allocations.
type visitor struct {
	t       *testing.T
	handler http.Handler
	do      func(*sojourn.Session)
	jar     map[string]string
	r       *http.Request
	header  http.Header
}

func newVisitor(t *testing.T, manager *sojourn.Manager) *visitor {
	v := &visitor{t: t, jar: map[string]string{}, header: http.Header{}}
	v.r = httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/", nil)
	v.handler = manager.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s, err := manager.Get(r.Context())
		if err != nil {
			t.Error(err)
			return
		}
		v.do(s)
	}))
	return v
}

// Header, Write and WriteHeader implement http.ResponseWriter.
func (v *visitor) Header() http.Header         { return v.header }
func (v *visitor) Write(b []byte) (int, error) { return len(b), nil }
func (v *visitor) WriteHeader(status int) {
	if status != http.StatusOK {
		v.t.Errorf("answered %d", status)
	}
}

func (v *visitor) visit(do func(*sojourn.Session)) {
	v.do = do
	clear(v.header)
	v.handler.ServeHTTP(v, v.r)
	set := v.header["Set-Cookie"]
	if set == nil {
		return
	}
	for _, line := range set {
		if c, err := http.ParseSetCookie(line); err == nil {
			v.jar[c.Name] = c.Value
		}
	}
	v.r.Header.Del("Cookie")
	for name, value := range v.jar {
		v.r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
}

// cost returns the cost to read and to change a value of that many letters a.
func (v *visitor) cost(key sojourn.Key[string], size int) (read, write float64) {
	text := [2]string{strings.Repeat("a", size), strings.Repeat("b", size)}
	look := func(s *sojourn.Session) {
		if key.Get(s) != text[0] {
			v.t.Error("the session has lost a value")
		}
	}
	change := [2]func(*sojourn.Session){
		func(s *sojourn.Session) { key.Set(s, text[0]) },
		func(s *sojourn.Session) { key.Set(s, text[1]) },
	}
	read = allocated(func(int) { v.visit(look) })
	write = allocated(func(i int) { v.visit(change[(i+1)%2]) })
	return read, write
}

// allocated returns how many bytes one of many calls allocates: the least of a
// few rounds, because other goroutines may also allocate.
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
