package sojourn_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
)

func TestServerSentEventsCarryTheCookieWithTheirFirstFlush(t *testing.T) {
	s := newSite(t)
	next, over := make(chan string), make(chan struct{})
	address := listen(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		defer close(over)
		themeKey.Set(session, "dark")
		rc := http.NewResponseController(w)
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			if err := rc.Flush(); err != nil {
				t.Errorf("Flush: %v", err)
			}
			select {
			case <-r.Context().Done():
				return
			case event := <-next:
				fmt.Fprintf(w, "data: %s\n\n", event)
			}
		}
	}))
	ctx, hangUp := context.WithCancel(t.Context())
	resp := fetch(t, "GET", address, func(r *http.Request) { *r = *r.WithContext(ctx) })
	wantStatus(t, resp, http.StatusOK) // before any event
	wantCookies(t, resp, stateCookie)
	lines := bufio.NewScanner(resp.Body)
	for _, event := range []string{"one", "two"} {
		next <- event
		if lines.Scan(); lines.Text() != "data: "+event {
			t.Errorf("read %q", lines.Text())
		}
		lines.Scan()
	}
	hangUp()
	<-over
}

func TestAStreamWhoseSessionCannotBeKeptAnswersAtOnce(t *testing.T) {
	s := newSite(t)
	s.store.saveDown.Store(true)
	address := listen(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		cartKey.Set(session, 1)
		w.(http.Flusher).Flush() // whose error nobody sees
		<-r.Context().Done()
	}))
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	resp := fetch(t, "GET", address, func(r *http.Request) { *r = *r.WithContext(ctx) })
	wantStatus(t, resp, http.StatusServiceUnavailable)
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); !strings.Contains(line, "not available") {
		t.Errorf("body %q, %v", line, err)
	}
}

func TestAStreamMayGoOnChangingAStoredSession(t *testing.T) {
	s := newSite(t)
	v := newGuest(t)
	s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 1) })
	resp := s.serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		_ = http.NewResponseController(w).Flush()
		cartKey.Set(session, 2)
		if err := session.Save(r.Context()); err != nil {
			t.Errorf("Save: %v", err)
		}
		if got := cartOf(s, v.copy()); got != 2 {
			t.Errorf("after Save another request sees %d", got)
		}
		cartKey.Set(session, 3) // kept when the handler returns
	})
	wantStatus(t, resp, http.StatusOK)
	if got := cartOf(s, v); got != 3 {
		t.Errorf("after the stream: %d", got)
	}
}

func cartOf(s *site, v *guest) (n int) {
	s.t.Helper()
	s.do(v, func(session *sojourn.Session) { n = cartKey.Get(session) })
	return n
}

func TestALateChangeThatNeedsACookieIsAnErrorLoggedAndCounted(t *testing.T) {
	for name, change := range map[string]func(*sojourn.Session){
		"a new session": func(session *sojourn.Session) { cartKey.Set(session, 1) },
		"an inline one": func(session *sojourn.Session) { themeKey.Set(session, "dark") },
		"a login":       func(session *sojourn.Session) { session.Login("anna") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			resp := s.serve(newGuest(t), func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				io.WriteString(w, "first byte")
				change(session)
				if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrTooLate) {
					t.Errorf("Save: %v", err)
				}
			})
			wantStatus(t, resp, http.StatusOK)
			wantCookies(t, resp)
			if n := s.Stats().LateChanges; n != 1 {
				t.Errorf("LateChanges is %d", n)
			}
			if lines := s.log.with("ERROR changes made after the response had started"); len(lines) != 1 {
				t.Errorf("log: %q", s.log.all())
			}
			if s.store.saves.Load() != 0 {
				t.Error("something was stored that no cookie leads to")
			}
		})
	}
}

func TestALogoutDuringAStreamIsKeptWhateverElseFails(t *testing.T) {
	for name, after := range map[string]func(http.ResponseWriter, *sojourn.Session){
		"alone":                 func(http.ResponseWriter, *sojourn.Session) {},
		"with a flash message":  func(_ http.ResponseWriter, session *sojourn.Session) { session.Flash("info", "Signed out") },
		"with a value too many": func(_ http.ResponseWriter, session *sojourn.Session) { session.Set("bad", func() {}) },
		"and a failing handler": func(w http.ResponseWriter, _ *sojourn.Session) { w.WriteHeader(http.StatusInternalServerError) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			v := newGuest(t)
			s.do(v, func(session *sojourn.Session) { session.Login("anna"); cartKey.Set(session, 1) })
			s.serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				io.WriteString(w, "first byte")
				session.Logout()
				after(w, session)
			})
			if live, _ := s.store.rows(t); live != 0 {
				t.Error("the session lives on")
			}
		})
	}
}

func TestALogoutIsKeptAlthoughTheRestOfItsCommitFails(t *testing.T) {
	for name, test := range map[string]struct {
		before func(*site, *guest, *sojourn.Session) // the Logout
		after  func(*sojourn.Session)
		status int
	}{
		"a value that cannot be encoded": {after: func(session *sojourn.Session) { session.Set("bad", func() {}) }, status: http.StatusInternalServerError},
		"a value that is too large":      {after: func(session *sojourn.Session) { session.Set("big", strings.Repeat("x", 2<<20)) }, status: http.StatusRequestEntityTooLarge},
		"a value that another request took first": {
			before: func(s *site, v *guest, session *sojourn.Session) {
				cartKey.Pop(session)
				s.do(v.copy(), func(other *sojourn.Session) { cartKey.Pop(other) })
			},
			after: func(*sojourn.Session) {}, status: http.StatusConflict,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			v := newGuest(t)
			s.do(v, func(session *sojourn.Session) { session.Login("anna"); cartKey.Set(session, 1) })
			resp := s.serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				if test.before != nil {
					test.before(s, v, session)
				}
				session.Logout()
				test.after(session)
			})
			wantStatus(t, resp, test.status)
			wantCookies(t, resp, "-"+refCookie)
			if live, _ := s.store.rows(t); live != 0 {
				t.Error("the session lives on")
			}
		})
	}
}

func TestAFailedLogoutForgetsTheCookieAndAnswersAnError(t *testing.T) {
	s := newSite(t)
	v := newGuest(t)
	s.do(v, func(session *sojourn.Session) { session.Login("anna") })
	s.store.saveDown.Store(true)
	resp := s.serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) { session.Logout() })
	wantStatus(t, resp, http.StatusServiceUnavailable)
	wantCookies(t, resp, "-"+refCookie)
}

// slow is a handler that is still at work when its time is up, and goes on.
type slow struct {
	saved  error // what its Save returned in the end
	loaded error // what Get returned then
	done   chan struct{}
}

func (h *slow) serve(s *site) http.Handler {
	h.done = make(chan struct{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(h.done)
		session, err := s.Get(r.Context())
		if err != nil {
			s.t.Errorf("Get: %v", err)
			return
		}
		cartKey.Set(session, 2)
		<-r.Context().Done()
		wait(time.Second) // of the fake clock: well after the answer
		cartKey.Update(session, func(n int) int { return n + 1 })
		_, _ = cartKey.Get(session), session.Handle()
		session.Flash("info", "late")
		_, h.loaded = s.Get(r.Context())
		h.saved = session.Save(context.WithoutCancel(r.Context()))
		w.Header().Set("X-Late", "yes")
		io.WriteString(w, "late page")
	})
}

func TestTimeoutHandlerInsideAndOutsideKeepsNothing(t *testing.T) {
	for name, mount := range map[string]func(*site, http.Handler) http.Handler{
		"inside": func(s *site, h http.Handler) http.Handler {
			return s.Wrap(http.TimeoutHandler(h, time.Minute, "too slow"))
		},
		"outside": func(s *site, h http.Handler) http.Handler {
			return http.TimeoutHandler(s.Wrap(h), time.Minute, "too slow")
		},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T) {
				s := newSite(t)
				v := newGuest(t)
				s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 1) })
				saves := s.store.saves.Load()

				var h slow
				resp := v.get(mount(s, h.serve(s)))
				wantStatus(t, resp, http.StatusServiceUnavailable)
				wantCookies(t, resp)
				if got := body(t, resp); got != "too slow" {
					t.Errorf("body %q", got)
				}
				<-h.done
				if h.loaded != nil {
					t.Errorf("Get after the timeout: %v", h.loaded)
				}
				if !errors.Is(h.saved, sojourn.ErrTooLate) {
					t.Errorf("Save after the timeout: %v", h.saved)
				}
				if n := s.store.saves.Load() - saves; n != 0 {
					t.Errorf("%d saves", n)
				}
				if got := cartOf(s, v); got != 1 {
					t.Errorf("the cart is %d", got)
				}
			})
		})
	}
}

func TestTimeoutHandlerThatIsNotNeededChangesNothing(t *testing.T) {
	for name, mount := range map[string]func(*site, http.Handler) http.Handler{
		"inside":  func(s *site, h http.Handler) http.Handler { return s.Wrap(http.TimeoutHandler(h, time.Minute, "")) },
		"outside": func(s *site, h http.Handler) http.Handler { return http.TimeoutHandler(s.Wrap(h), time.Minute, "") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			v := newGuest(t)
			resp := v.get(mount(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				session, err := s.Get(r.Context())
				if err != nil {
					t.Error(err)
					return
				}
				cartKey.Set(session, 1)
				w.WriteHeader(http.StatusCreated)
				io.WriteString(w, "page")
			})))
			wantStatus(t, resp, http.StatusCreated)
			wantCookies(t, resp, refCookie)
			if got := body(t, resp); got != "page" {
				t.Errorf("body %q", got)
			}
			if got := cartOf(s, v); got != 1 {
				t.Errorf("the cart is %d", got)
			}
		})
	}
}

func TestALogoutOfAHandlerThatTimedOutIsKept(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s := newSite(t)
		v := newGuest(t)
		s.do(v, func(session *sojourn.Session) { session.Login("anna") })
		done := make(chan struct{})
		h := s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			defer close(done)
			session.Logout()
			session.Flash("info", "Signed out")
			<-r.Context().Done()
		})
		wantStatus(t, v.get(http.TimeoutHandler(h, time.Minute, "too slow")), http.StatusServiceUnavailable)
		<-done
		synctest.Wait()
		if live, _ := s.store.rows(t); live != 0 {
			t.Error("the session lives on")
		}
	})
}

func TestALateCommitUnderAContextDeadlineAnswers503(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s := newSite(t)
		h := s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			if r.URL.Path == "/change" {
				cartKey.Set(session, 1)
			}
			<-r.Context().Done()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		limited := func(r *http.Request) { *r = *r.WithContext(ctx) }
		wantStatus(t, newGuest(t).request(h, "GET", "https://shop.example/change", limited), http.StatusServiceUnavailable)
		// Who only reads has nothing to lose.
		wantStatus(t, newGuest(t).request(h, "GET", "https://shop.example/read", limited), http.StatusOK)
	})
}

// compressor is a compressing middleware of the simplest kind, which promises
// gzip before it knows what will be answered.
func compressor(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Add("Vary", "Accept-Encoding")
		zw := gzip.NewWriter(w)
		defer zw.Close()
		next.ServeHTTP(&gzipWriter{w, zw}, r)
	})
}

type gzipWriter struct {
	http.ResponseWriter
	zw *gzip.Writer
}

func (w *gzipWriter) Write(b []byte) (int, error) {
	w.Header().Del("Content-Length")
	return w.zw.Write(b)
}
func (w *gzipWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// readable returns the body as a browser reads it.
func readable(t *testing.T, resp *http.Response) string {
	t.Helper()
	switch encoding := resp.Header["Content-Encoding"]; {
	case len(encoding) == 0:
		return body(t, resp)
	case len(encoding) > 1 || encoding[0] != "gzip":
		t.Fatalf("Content-Encoding %q", encoding)
	}
	zr, err := gzip.NewReader(resp.Body)
	if err != nil {
		t.Fatalf("Content-Encoding says gzip: %v", err)
	}
	b, err := io.ReadAll(zr)
	if err != nil {
		t.Fatalf("Content-Encoding says gzip: %v", err)
	}
	return string(b)
}

func TestPagesAndErrorPagesAreReadableWithACompressorInsideOrOutside(t *testing.T) {
	for name, mount := range map[string]func(*site, http.Handler) http.Handler{
		"compressor inside":  func(s *site, h http.Handler) http.Handler { return s.Wrap(compressor(h)) },
		"compressor outside": func(s *site, h http.Handler) http.Handler { return compressor(s.Wrap(h)) },
	} {
		for what, test := range map[string]struct {
			before func(*site)
			status int
			text   string
		}{
			"kept":            {func(*site) {}, http.StatusOK, "page"},
			"commit fails":    {func(s *site) { s.store.saveDown.Store(true) }, http.StatusServiceUnavailable, "not available"},
			"ServeError asks": {func(s *site) { s.store.down.Store(true) }, http.StatusServiceUnavailable, "not available"},
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				s := newSite(t)
				v := newGuest(t)
				s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 1) })
				test.before(s)
				h := mount(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					session, err := s.Get(r.Context())
					if err != nil {
						s.ServeError(w, r, err)
						return
					}
					cartKey.Set(session, 2)
					io.WriteString(w, strings.Repeat("page ", 1000))
				}))
				// Without the recorder: what really goes over the wire.
				server := httptest.NewServer(h)
				defer server.Close()
				resp := v.keep(fetch(t, "GET", server.URL, func(r *http.Request) {
					v.prepare(r)
					r.Header.Set("Accept-Encoding", "gzip")
				}))
				wantStatus(t, resp, test.status)
				if got := readable(t, resp); !strings.Contains(got, test.text) {
					t.Errorf("body %.60q", got)
				}
			})
		}
	}
}
