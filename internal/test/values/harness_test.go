package values_test

import (
	"errors"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store/memory"
)

func newSite(t *testing.T) *sitetest.Site {
	t.Helper()
	return sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: memory.New()}))
}

// serve is Manager.Handler for one request.
func serve(s *sitetest.Site, b *sitetest.Browser, f func(http.ResponseWriter, *http.Request, *sojourn.Session)) *sitetest.Answer {
	return b.VisitHTTP(s, func(w http.ResponseWriter, r *http.Request) {
		session, err := s.Manager.Get(r.Context())
		if err != nil {
			s.Manager.ServeError(w, r, err)
			return
		}
		f(w, r, session)
	})
}

// visit runs f in a request that has to be answered 200.
func visit(t *testing.T, s *sitetest.Site, b *sitetest.Browser, f func(*sojourn.Session)) {
	t.Helper()
	if a := b.Visit(s, f); a.Status != http.StatusOK {
		t.Fatalf("the request was answered %d %s", a.Status, a.Body)
	}
}

func wantStatus(t *testing.T, a *sitetest.Answer, want int) {
	t.Helper()
	if a.Status != want {
		t.Errorf("the request was answered %d %s, want %d", a.Status, a.Body, want)
	}
}

// roundTrip keeps a value with its key, and returns what the next request reads.
func roundTrip[T any](t *testing.T, value T, opts ...sojourn.KeyOption) (T, error) {
	t.Helper()
	s, b := newSite(t), sitetest.NewBrowser()
	key := sojourn.NewKey[T]("value", opts...)
	var got T
	err := errors.New("not read")
	visit(t, s, b, func(session *sojourn.Session) { key.Set(session, value) })
	visit(t, s, b, func(session *sojourn.Session) { got, err = key.Lookup(session) })
	return got, err
}

type (
	nested   struct{ Inner struct{ f func() } }
	withFunc struct {
		Name string
		Call func()
	}
	withoutFunc struct {
		Name string
		Call func()   `cbor:"-"`
		Wait chan int `json:"-"`
	}
	list struct {
		Value int
		Next  *list
	}
	tree  map[string]tree
	deep  struct{ Children []deep }
	empty struct{}
)

func TestNewKeyPanicsOnTypesThatWouldNotComeBack(t *testing.T) {
	for name, test := range map[string]struct {
		make func()
		want string // "" = it can be kept
	}{
		"func":                     {func() { sojourn.NewKey[func()]("n") }, "func()"},
		"chan":                     {func() { sojourn.NewKey[chan int]("n") }, "chan int"},
		"error":                    {func() { sojourn.NewKey[error]("n") }, "interface with methods"},
		"complex":                  {func() { sojourn.NewKey[complex128]("n") }, "complex128"},
		"uintptr":                  {func() { sojourn.NewKey[uintptr]("n") }, "uintptr"},
		"slice of func":            {func() { sojourn.NewKey[[]func()]("n") }, "func()"},
		"map of chan":              {func() { sojourn.NewKey[map[string]chan int]("n") }, "chan int"},
		"pointer to func":          {func() { sojourn.NewKey[*func()]("n") }, "func()"},
		"array of interfaces":      {func() { sojourn.NewKey[[2]error]("n") }, "interface with methods"},
		"unexported fields only":   {func() { sojourn.NewKey[strings.Reader]("n") }, "no exported field"},
		"deep inside":              {func() { sojourn.NewKey[map[string][]nested]("n") }, "Inner"},
		"a field":                  {func() { sojourn.NewKey[withFunc]("n") }, "field Call"},
		"a field that is left out": {func() { sojourn.NewKey[withoutFunc]("n") }, ""},
		"any":                      {func() { sojourn.NewKey[any]("n") }, ""},
		"a recursive struct":       {func() { sojourn.NewKey[list]("n") }, ""},
		"a recursive map":          {func() { sojourn.NewKey[tree]("n") }, ""},
		"a recursive slice":        {func() { sojourn.NewKey[deep]("n") }, ""},
		"an empty struct":          {func() { sojourn.NewKey[empty]("n") }, ""},
		"time.Time":                {func() { sojourn.NewKey[time.Time]("n") }, ""},
		"url.URL":                  {func() { sojourn.NewKey[*url.URL]("n") }, ""},
		"netip.Addr":               {func() { sojourn.NewKey[netip.Addr]("n") }, ""},
		"big.Int":                  {func() { sojourn.NewKey[*big.Int]("n") }, ""},
		"bytes":                    {func() { sojourn.NewKey[[]byte]("n") }, ""},
	} {
		text := sitetest.Panics(test.make)
		if (text == "") != (test.want == "") || !strings.Contains(text, test.want) {
			t.Errorf("%s: panics with %q, want %q", name, text, test.want)
		}
		if text != "" && !strings.Contains(text, `NewKey("n")`) {
			t.Errorf("%s: %q does not say which key", name, text)
		}
	}
}
