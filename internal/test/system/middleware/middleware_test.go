package middleware

import (
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/NYTimes/gziphandler"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/klauspost/compress/gzhttp"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

var (
	theme = sojourn.NewKey[string]("theme")
	cart  = sojourn.NewKey[int]("cart", sojourn.ServerSide)
)

// shaky is a store that can be switched off.
type shaky struct {
	*memory.Store
	down, full atomic.Bool
}

var errDown = errors.New("the store is down")

func (s *shaky) Load(ctx context.Context, id store.ID) (store.Record, error) {
	if s.down.Load() {
		return store.Record{}, errDown
	}
	return s.Store.Load(ctx, id)
}

// Save refuses permanently when the store is full, so that it is not retried.
func (s *shaky) Save(ctx context.Context, rec store.Record, base store.Base) error {
	if s.full.Load() {
		return store.ErrTooLarge
	}
	return s.Store.Save(ctx, rec, base)
}

func newManager(t *testing.T) (*sojourn.Manager, *shaky) {
	t.Helper()
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	db := &shaky{Store: memory.New()}
	m, err := sojourn.New(sojourn.Config{Keys: keys, Store: db, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m, db
}

func listen(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// get sends a request as a browser does, cookies of earlier responses included.
func get(t *testing.T, address string, before ...*http.Response) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", address, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", "gzip, deflate")
	for _, resp := range before {
		for _, c := range resp.Cookies() {
			r.AddCookie(c)
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// readable returns the body as a browser reads it.
func readable(t *testing.T, resp *http.Response) string {
	t.Helper()
	body := io.Reader(resp.Body)
	var err error
	switch encoding := strings.Join(resp.Header["Content-Encoding"], ", "); encoding {
	case "":
	case "gzip":
		body, err = gzip.NewReader(body)
	case "deflate":
		body = flate.NewReader(body)
	default:
		t.Fatalf("Content-Encoding %q", encoding)
	}
	if err != nil {
		t.Fatalf("the body is not what Content-Encoding says: %v", err)
	}
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("the body is not what Content-Encoding says: %v", err)
	}
	return string(b)
}

func wantStatus(t *testing.T, resp *http.Response, want int) {
	t.Helper()
	if resp.StatusCode != want {
		t.Fatalf("status %d, want %d", resp.StatusCode, want)
	}
}

func TestCompressorsInsideAndOutside(t *testing.T) {
	page := strings.Repeat("A page that is worth compressing. ", 500)
	for name, compress := range map[string]func(http.Handler) http.Handler{
		"chi Compress":    middleware.Compress(5),
		"klauspost":       func(h http.Handler) http.Handler { return gzhttp.GzipHandler(h) },
		"NYTimes":         gziphandler.GzipHandler,
		"NYTimes, always": func(h http.Handler) http.Handler { return gziphandler.MustNewGzipLevelHandler(6)(h) },
	} {
		for where, mount := range map[string]func(*sojourn.Manager, http.Handler) http.Handler{
			"inside":  func(m *sojourn.Manager, h http.Handler) http.Handler { return m.Wrap(compress(h)) },
			"outside": func(m *sojourn.Manager, h http.Handler) http.Handler { return compress(m.Wrap(h)) },
		} {
			for what, test := range map[string]struct {
				before func(*shaky)
				status int
				text   string
			}{
				"the page is kept":           {func(*shaky) {}, http.StatusOK, page},
				"the commit fails":           {func(db *shaky) { db.full.Store(true) }, http.StatusRequestEntityTooLarge, "does not fit"},
				"the load fails":             {func(db *shaky) { db.down.Store(true) }, http.StatusServiceUnavailable, "not available"},
				"the handler answers itself": {func(*shaky) {}, http.StatusBadGateway, page},
			} {
				t.Run(name+" "+where+", "+what, func(t *testing.T) {
					m, db := newManager(t)
					address := listen(t, mount(m, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						session, err := m.Get(r.Context())
						if err != nil {
							m.ServeError(w, r, err)
							return
						}
						cart.Update(session, func(n int) int { return n + 1 })
						w.Header().Set("Content-Type", "text/html; charset=utf-8")
						if test.status == http.StatusBadGateway && r.URL.Path == "/again" {
							w.WriteHeader(test.status)
						}
						io.WriteString(w, page)
					})))
					first := get(t, address)
					wantStatus(t, first, http.StatusOK)
					if len(first.Cookies()) != 1 || readable(t, first) != page {
						t.Errorf("first page: cookies %v", first.Cookies())
					}
					test.before(db)
					resp := get(t, address+"/again", first)
					wantStatus(t, resp, test.status)
					if got := readable(t, resp); !strings.Contains(got, test.text) {
						t.Errorf("body %.80q", got)
					}
					if test.status != http.StatusOK && len(resp.Cookies()) > 0 {
						t.Errorf("an error answer sets %v", resp.Cookies())
					}
				})
			}
		}
	}
}

func TestCompressorsStreamWithTheCookie(t *testing.T) {
	for name, mount := range map[string]func(*sojourn.Manager, http.Handler) http.Handler{
		"chi Compress inside":  func(m *sojourn.Manager, h http.Handler) http.Handler { return m.Wrap(middleware.Compress(5)(h)) },
		"chi Compress outside": func(m *sojourn.Manager, h http.Handler) http.Handler { return middleware.Compress(5)(m.Wrap(h)) },
		"klauspost inside":     func(m *sojourn.Manager, h http.Handler) http.Handler { return m.Wrap(gzhttp.GzipHandler(h)) },
		"klauspost outside":    func(m *sojourn.Manager, h http.Handler) http.Handler { return gzhttp.GzipHandler(m.Wrap(h)) },
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := newManager(t)
			next := make(chan struct{})
			address := listen(t, mount(m, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				session, err := m.Get(r.Context())
				if err != nil {
					t.Error(err)
					return
				}
				theme.Set(session, "dark")
				w.Header().Set("Content-Type", "text/plain; charset=utf-8")
				for range 2 {
					io.WriteString(w, strings.Repeat("tick ", 1000))
					if err := http.NewResponseController(w).Flush(); err != nil {
						t.Errorf("Flush: %v", err)
					}
					<-next
				}
			})))
			resp := get(t, address) // while the handler waits
			if len(resp.Cookies()) != 1 {
				t.Errorf("cookies %v", resp.Cookies())
			}
			next <- struct{}{}
			next <- struct{}{}
			if got := readable(t, resp); len(got) != 10_000 {
				t.Errorf("%d bytes", len(got))
			}
		})
	}
}

func TestChiRecovererInsideAndOutside(t *testing.T) {
	for where, mount := range map[string]func(*sojourn.Manager, chi.Router){
		"inside":  func(m *sojourn.Manager, r chi.Router) { r.Use(m.Wrap, middleware.Recoverer) },
		"outside": func(m *sojourn.Manager, r chi.Router) { r.Use(middleware.Recoverer, m.Wrap) },
	} {
		for when, early := range map[string]bool{"before the first byte": false, "after it": true} {
			t.Run(where+", "+when, func(t *testing.T) {
				m, _ := newManager(t)
				router := chi.NewRouter()
				router.Use(middleware.RequestLogger(quiet{}))
				mount(m, router)
				router.Get("/", func(w http.ResponseWriter, r *http.Request) {
					session, err := m.Get(r.Context())
					if err != nil {
						t.Error(err)
						return
					}
					cart.Update(session, func(n int) int { return n + 1 })
					io.WriteString(w, "page")
				})
				router.Get("/panic", func(w http.ResponseWriter, r *http.Request) {
					session, err := m.Get(r.Context())
					if err != nil {
						t.Error(err)
						return
					}
					if early {
						io.WriteString(w, "first")
					}
					cart.Set(session, 100)
					panic("boom")
				})
				router.Get("/cart", func(w http.ResponseWriter, r *http.Request) {
					session, err := m.Get(r.Context())
					if err != nil {
						t.Error(err)
						return
					}
					io.WriteString(w, strings.Repeat("x", cart.Get(session)))
				})
				address := listen(t, router)
				first := get(t, address)
				resp := get(t, address+"/panic", first)
				if !early {
					wantStatus(t, resp, http.StatusInternalServerError)
				}
				if len(resp.Cookies()) > 0 {
					t.Errorf("cookies %v", resp.Cookies())
				}
				if got := readable(t, get(t, address+"/cart", first)); got != "x" {
					t.Errorf("the cart has %d", len(got))
				}
			})
		}
	}
}

// quiet is a log for chi that discards everything.
type quiet struct{}

func (quiet) NewLogEntry(*http.Request) middleware.LogEntry { return quiet{} }

func (quiet) Write(int, int, http.Header, time.Duration, any) {}
func (quiet) Panic(any, []byte)                               {}

func TestTwoManagersInAChiRouter(t *testing.T) {
	m, _ := newManager(t)
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	staff, err := sojourn.New(sojourn.Config{Name: "staff", Keys: keys, Store: memory.New(), Mode: sojourn.StoredOnly})
	if err != nil {
		t.Fatal(err)
	}
	router := chi.NewRouter()
	router.Use(m.Wrap)
	router.Get("/", func(w http.ResponseWriter, r *http.Request) {
		session, err := m.Get(r.Context())
		if err != nil {
			t.Error(err)
			return
		}
		theme.Set(session, "dark")
		if _, err := staff.Get(r.Context()); !errors.Is(err, sojourn.ErrNoMiddleware) {
			t.Errorf("outside its route: %v", err)
		}
	})
	router.Route("/admin", func(router chi.Router) {
		router.Use(staff.Wrap)
		router.Get("/", func(w http.ResponseWriter, r *http.Request) {
			visitor, err := m.Get(r.Context())
			if err != nil {
				t.Error(err)
				return
			}
			member, err := staff.Get(r.Context())
			if err != nil {
				t.Error(err)
				return
			}
			member.Login("root")
			io.WriteString(w, theme.Get(visitor))
		})
	})
	address := listen(t, router)
	first := get(t, address)
	resp := get(t, address+"/admin", first)
	if got := readable(t, resp); got != "dark" {
		t.Errorf("body %q", got)
	}
	if c := resp.Cookies(); len(c) != 1 || c[0].Name != "__Host-staff" {
		t.Errorf("cookies %v", c)
	}
}
