package gae_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/appengine/v2"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/gae"
	"github.com/sojourn-go/sojourn/store/datastore/internal/suite"
)

var clicks = sojourn.NewKey[int]("clicks", sojourn.ServerSide)

func increment(n int) int { return n + 1 }

// serve starts a site behind App Engine's middleware, and returns a visitor's
// way to it.
func serve(t *testing.T, m *sojourn.Manager, jar http.CookieJar, handlers map[string]func(http.ResponseWriter, *http.Request, *sojourn.Session)) func(ctx context.Context, path string) (status int, body string, err error) {
	t.Helper()
	mux := http.NewServeMux()
	for path, h := range handlers {
		mux.Handle(path, m.Handler(h))
	}
	server := httptest.NewTLSServer(appengine.Middleware(m.Wrap(mux)))
	t.Cleanup(server.Close)
	client := server.Client()
	client.Jar = jar
	return func(ctx context.Context, path string) (int, string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
		if err != nil {
			return 0, "", err
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body), err
	}
}

func newJar(t *testing.T) http.CookieJar {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return jar
}

func testContextsThatTheManagerDerives(t *testing.T) {
	db, err := gae.New(gae.Options{})
	if err != nil {
		t.Fatal(err)
	}

	t.Run("a change is kept although the client has gone", func(t *testing.T) {
		reached, gone := make(chan struct{}), make(chan struct{})
		get := serve(t, sitetest.Manager(t, sojourn.Config{Store: db}), newJar(t), map[string]func(http.ResponseWriter, *http.Request, *sojourn.Session){
			"/start": func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) { clicks.Set(s, 1) },
			"/slow": func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
				close(reached)
				<-r.Context().Done()
				clicks.Update(s, increment)
				if err := s.Save(r.Context()); err != nil {
					t.Errorf("Save after the client has gone: %v", err)
				}
				close(gone)
			},
			"/clicks": func(w http.ResponseWriter, _ *http.Request, s *sojourn.Session) { fmt.Fprint(w, clicks.Get(s)) },
		})
		if status, body, err := get(t.Context(), "/start"); status != http.StatusOK {
			t.Fatalf("the first request got %d %s, %v", status, body, err)
		}
		ctx, leave := context.WithCancel(t.Context())
		go func() { <-reached; leave() }()
		if _, _, err := get(ctx, "/slow"); !errors.Is(err, context.Canceled) {
			t.Fatalf("the client that leaves: %v", err)
		}
		<-gone
		if _, body, err := get(t.Context(), "/clicks"); body != "2" {
			t.Errorf("the count is %s, %v; want 2", body, err)
		}
	})

	t.Run("parallel requests to two instances all count", func(t *testing.T) {
		keys, jar := sitetest.Keys(t), newJar(t)
		const each = 10
		click := map[string]func(http.ResponseWriter, *http.Request, *sojourn.Session){
			"/click": func(w http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
				fmt.Fprint(w, clicks.Update(s, increment))
			},
		}
		cfg := sojourn.Config{Store: db, Keys: keys, Timeout: time.Minute}
		instances := []func(context.Context, string) (int, string, error){
			serve(t, sitetest.Manager(t, cfg), jar, click),
			serve(t, sitetest.Manager(t, cfg), jar, click),
		}
		if status, body, err := instances[0](t.Context(), "/click"); status != http.StatusOK {
			t.Fatalf("the first request got %d %s, %v", status, body, err)
		}
		var wg sync.WaitGroup
		for _, get := range instances {
			for range each {
				wg.Go(func() {
					if status, body, err := get(t.Context(), "/click"); status != http.StatusOK {
						t.Errorf("a click got %d %s, %v", status, body, err)
					}
				})
			}
		}
		wg.Wait()
		if _, body, err := instances[1](t.Context(), "/click"); body != fmt.Sprint(2*each+2) {
			t.Errorf("the count is %s, %v; want %d", body, err, 2*each+2)
		}
	})

	t.Run("the namespace of a request does not matter", func(t *testing.T) {
		rec := suite.Session(1)
		s := inRequest{db, request(t), nil}
		suite.Save(t, s, rec, store.Base{})
		ctx, err := appengine.Namespace(s.in(t.Context()), "tenant-7")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := db.Load(ctx, rec.ID); err != nil || got.Version != rec.Version {
			t.Errorf("Load in another namespace: version %d, %v; want the same session", got.Version, err)
		}
	})
}

func TestOutsideOfARequestTheErrorSaysSo(t *testing.T) {
	s, err := gae.New(gae.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := gae.NewCache(gae.CacheOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	rec := suite.Session(1)
	rec.User = store.UserHash{1}
	for name, call := range map[string]func() error{
		"Load":        func() error { _, err := s.Load(ctx, rec.ID); return err },
		"Save":        func() error { return s.Save(ctx, rec, store.Base{}) },
		"Delete":      func() error { return s.Delete(ctx, rec.ID, rec.Deadline) },
		"Touch":       func() error { return s.Touch(ctx, rec.ID, rec.Seen, rec.Deadline) },
		"Sweep":       func() error { _, err := s.Sweep(ctx, time.Hour, 10); return err },
		"ByUser":      func() error { _, err := s.ByUser(ctx, rec.User); return err },
		"SaveLimited": func() error { _, err := s.SaveLimited(ctx, rec, store.UserLimit{Max: 1}); return err },
		"Ends":        func() error { _, err := s.Ends(ctx, store.FeedFromNow, 10); return err },
		"Scan":        func() error { _, _, err := s.Scan(ctx, "", 10); return err },
		"Count":       func() error { _, err := s.Count(ctx); return err },
		"Cache.Get":   func() error { _, _, err := c.Get(ctx, rec.ID); return err },
		"Cache.Add":   func() error { _, err := c.Add(ctx, rec.ID, nil, time.Minute); return err },
		"Cache.Swap":  func() error { return c.Swap(ctx, rec.ID, 1, nil, time.Minute) },
		"Cache.Delete": func() error {
			return c.Delete(ctx, rec.ID)
		},
	} {
		if err := call(); !errors.Is(err, gae.ErrNoRequest) || !strings.Contains(err.Error(), "appengine.Middleware") {
			t.Errorf("%s: %v, want ErrNoRequest, and what to do about it", name, err)
		}
		background := name == "Sweep" || name == "Ends"
		if err := call(); errors.Is(err, errors.ErrUnsupported) != background {
			t.Errorf("%s: %v; errors.ErrUnsupported is for what the manager does in the background", name, err)
		}
	}
}

func TestAManagerAroundTheMiddlewareIsAnOutageThatTheLogExplains(t *testing.T) {
	s, err := gae.New(gae.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	m := sitetest.Manager(t, sojourn.Config{Store: s, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	site := m.Wrap(appengine.Middleware(m.Handler(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) { clicks.Set(s, 1) })))
	w := httptest.NewRecorder()
	site.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "https://shop.test/", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("the answer is %d, want 503", w.Code)
	}
	if !strings.Contains(logged.String(), gae.ErrNoRequest.Error()) {
		t.Errorf("the log does not say why:\n%s", logged.String())
	}
}

func TestTheManagersOwnSweepsDoNothing(t *testing.T) {
	s, err := gae.New(gae.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := sitetest.Manager(t, sojourn.Config{Store: s})
	if n, err := ops.For(m).Sweep(context.Background()); n != 0 || err != nil {
		t.Errorf("Sweep outside of a request: %d, %v; want 0, nil: the cron handler is what cleans up", n, err)
	}
}
