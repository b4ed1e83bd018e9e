package responses_test

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
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// They were impossible, as reported in alexedwards/scs#141.
func TestServerSentEventsCarryTheCookieWithTheirFirstFlush(t *testing.T) {
	s := sitetest.NewLab(t)
	next, over := make(chan string), make(chan struct{})
	address := listen(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		defer close(over)
		sitetest.ThemeKey.Set(session, "dark")
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
	sitetest.WantStatus(t, resp, http.StatusOK) // before any event
	sitetest.WantCookies(t, resp, sitetest.StateCookie)
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
	s := sitetest.NewLab(t)
	s.Store.SaveDown.Store(true)
	address := listen(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.CartKey.Set(session, 1)
		w.(http.Flusher).Flush() // whose error nobody sees
		<-r.Context().Done()
	}))
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	resp := fetch(t, "GET", address, func(r *http.Request) { *r = *r.WithContext(ctx) })
	sitetest.WantStatus(t, resp, http.StatusServiceUnavailable)
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); !strings.Contains(line, "not available") {
		t.Errorf("body %q, %v", line, err)
	}
}

// As asked for in gorilla/sessions#39.
func TestAStreamMayGoOnChangingAStoredSession(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		_ = http.NewResponseController(w).Flush()
		sitetest.CartKey.Set(session, 2)
		if err := session.Save(r.Context()); err != nil {
			t.Errorf("Save: %v", err)
		}
		if got := sitetest.CartOf(s, v.Copy()); got != 2 {
			t.Errorf("after Save another request sees %d", got)
		}
		sitetest.CartKey.Set(session, 3) // kept when the handler returns
	})
	sitetest.WantStatus(t, resp, http.StatusOK)
	if got := sitetest.CartOf(s, v); got != 3 {
		t.Errorf("after the stream: %d", got)
	}
}

// It must not be lost in silence, as reported in gorilla/sessions#39.
func TestALateChangeThatNeedsACookieIsAnErrorLoggedAndCounted(t *testing.T) {
	for name, change := range map[string]func(*sojourn.Session){
		"a new session": func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) },
		"an inline one": func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") },
		"a login":       func(session *sojourn.Session) { session.Login("anna") },
	} {
		t.Run(name, func(t *testing.T) {
			s := sitetest.NewLab(t)
			resp := s.Serve(sitetest.NewGuest(t), func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				io.WriteString(w, "first byte")
				change(session)
				if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrTooLate) {
					t.Errorf("Save: %v", err)
				}
			})
			sitetest.WantStatus(t, resp, http.StatusOK)
			sitetest.WantCookies(t, resp)
			if n := s.Stats().LateChanges; n != 1 {
				t.Errorf("LateChanges is %d", n)
			}
			if lines := s.Log.With("ERROR changes made after the response had started"); len(lines) != 1 {
				t.Errorf("log: %q", s.Log.All())
			}
			if s.Store.Saves.Load() != 0 {
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
			s := sitetest.NewLab(t)
			v := sitetest.NewGuest(t)
			s.Do(v, func(session *sojourn.Session) { session.Login("anna"); sitetest.CartKey.Set(session, 1) })
			s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				io.WriteString(w, "first byte")
				session.Logout()
				after(w, session)
			})
			if live := sitetest.Rows(t, s.Store); live != 0 {
				t.Error("the session lives on")
			}
		})
	}
}

func TestALogoutIsKeptAlthoughTheRestOfItsCommitFails(t *testing.T) {
	for name, test := range map[string]struct {
		before func(*sitetest.Lab, *sitetest.Guest, *sojourn.Session) // the Logout
		after  func(*sojourn.Session)
		status int
	}{
		"a value that cannot be encoded": {after: func(session *sojourn.Session) { session.Set("bad", func() {}) }, status: http.StatusInternalServerError},
		"a value that is too large":      {after: func(session *sojourn.Session) { session.Set("big", strings.Repeat("x", 2<<20)) }, status: http.StatusRequestEntityTooLarge},
		"a value that another request took first": {
			before: func(s *sitetest.Lab, v *sitetest.Guest, session *sojourn.Session) {
				sitetest.CartKey.Pop(session)
				s.Do(v.Copy(), func(other *sojourn.Session) { sitetest.CartKey.Pop(other) })
			},
			after: func(*sojourn.Session) {}, status: http.StatusConflict,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := sitetest.NewLab(t)
			v := sitetest.NewGuest(t)
			s.Do(v, func(session *sojourn.Session) { session.Login("anna"); sitetest.CartKey.Set(session, 1) })
			resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				if test.before != nil {
					test.before(s, v, session)
				}
				session.Logout()
				test.after(session)
			})
			sitetest.WantStatus(t, resp, test.status)
			sitetest.WantCookies(t, resp, "-"+sitetest.RefCookie)
			if live := sitetest.Rows(t, s.Store); live != 0 {
				t.Error("the session lives on")
			}
		})
	}
}

func TestAFailedLogoutForgetsTheCookieAndAnswersAnError(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
	s.Store.SaveDown.Store(true)
	resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) { session.Logout() })
	sitetest.WantStatus(t, resp, http.StatusServiceUnavailable)
	sitetest.WantCookies(t, resp, "-"+sitetest.RefCookie)
}

// slow is a handler that continues after its timeout.
type slow struct {
	saved  error // what its Save returned in the end
	loaded error // what Get returned then
	done   chan struct{}
}

func (h *slow) serve(s *sitetest.Lab) http.Handler {
	h.done = make(chan struct{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(h.done)
		session, err := s.Get(r.Context())
		if err != nil {
			s.T.Errorf("Get: %v", err)
			return
		}
		sitetest.CartKey.Set(session, 2)
		<-r.Context().Done()
		time.Sleep(time.Second) // of the fake clock: well after the answer
		sitetest.CartKey.Update(session, func(n int) int { return n + 1 })
		_, _ = sitetest.CartKey.Get(session), session.Handle()
		session.Flash("info", "late")
		_, h.loaded = s.Get(r.Context())
		h.saved = session.Save(context.WithoutCancel(r.Context()))
		w.Header().Set("X-Late", "yes")
		io.WriteString(w, "late page")
	})
}

func TestTimeoutHandlerInsideAndOutsideKeepsNothing(t *testing.T) {
	for name, mount := range map[string]func(*sitetest.Lab, http.Handler) http.Handler{
		"inside": func(s *sitetest.Lab, h http.Handler) http.Handler {
			return s.Wrap(http.TimeoutHandler(h, time.Minute, "too slow"))
		},
		"outside": func(s *sitetest.Lab, h http.Handler) http.Handler {
			return http.TimeoutHandler(s.Wrap(h), time.Minute, "too slow")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := sitetest.NewLab(t)
				v := sitetest.NewGuest(t)
				s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
				saves := s.Store.Saves.Load()

				var h slow
				resp := v.Get(mount(s, h.serve(s)))
				sitetest.WantStatus(t, resp, http.StatusServiceUnavailable)
				sitetest.WantCookies(t, resp)
				if got := sitetest.Body(t, resp); got != "too slow" {
					t.Errorf("body %q", got)
				}
				<-h.done
				if h.loaded != nil {
					t.Errorf("Get after the timeout: %v", h.loaded)
				}
				if !errors.Is(h.saved, sojourn.ErrTooLate) {
					t.Errorf("Save after the timeout: %v", h.saved)
				}
				if n := s.Store.Saves.Load() - saves; n != 0 {
					t.Errorf("%d saves", n)
				}
				if got := sitetest.CartOf(s, v); got != 1 {
					t.Errorf("the cart is %d", got)
				}
			})
		})
	}
}

func TestTimeoutHandlerThatIsNotNeededChangesNothing(t *testing.T) {
	for name, mount := range map[string]func(*sitetest.Lab, http.Handler) http.Handler{
		"inside": func(s *sitetest.Lab, h http.Handler) http.Handler {
			return s.Wrap(http.TimeoutHandler(h, time.Minute, ""))
		},
		"outside": func(s *sitetest.Lab, h http.Handler) http.Handler {
			return http.TimeoutHandler(s.Wrap(h), time.Minute, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := sitetest.NewLab(t)
			v := sitetest.NewGuest(t)
			resp := v.Get(mount(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				session, err := s.Get(r.Context())
				if err != nil {
					t.Error(err)
					return
				}
				sitetest.CartKey.Set(session, 1)
				w.WriteHeader(http.StatusCreated)
				io.WriteString(w, "page")
			})))
			sitetest.WantStatus(t, resp, http.StatusCreated)
			sitetest.WantCookies(t, resp, sitetest.RefCookie)
			if got := sitetest.Body(t, resp); got != "page" {
				t.Errorf("body %q", got)
			}
			if got := sitetest.CartOf(s, v); got != 1 {
				t.Errorf("the cart is %d", got)
			}
		})
	}
}

func TestALogoutOfAHandlerThatTimedOutIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t)
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
		done := make(chan struct{})
		h := s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			defer close(done)
			session.Logout()
			session.Flash("info", "Signed out")
			<-r.Context().Done()
		})
		sitetest.WantStatus(t, v.Get(http.TimeoutHandler(h, time.Minute, "too slow")), http.StatusServiceUnavailable)
		<-done
		synctest.Wait()
		if live := sitetest.Rows(t, s.Store); live != 0 {
			t.Error("the session lives on")
		}
	})
}

func TestALateCommitUnderAContextDeadlineAnswers503(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t)
		h := s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			if r.URL.Path == "/change" {
				sitetest.CartKey.Set(session, 1)
			}
			<-r.Context().Done()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		limited := func(r *http.Request) { *r = *r.WithContext(ctx) }
		sitetest.WantStatus(t, sitetest.NewGuest(t).Request(h, "GET", "https://shop.example/change", limited), http.StatusServiceUnavailable)
		// A handler that only reads has nothing to lose.
		sitetest.WantStatus(t, sitetest.NewGuest(t).Request(h, "GET", "https://shop.example/read", limited), http.StatusOK)
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
		return sitetest.Body(t, resp)
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
	for name, mount := range map[string]func(*sitetest.Lab, http.Handler) http.Handler{
		"compressor inside":  func(s *sitetest.Lab, h http.Handler) http.Handler { return s.Wrap(compressor(h)) },
		"compressor outside": func(s *sitetest.Lab, h http.Handler) http.Handler { return compressor(s.Wrap(h)) },
	} {
		for what, test := range map[string]struct {
			before func(*sitetest.Lab)
			status int
			text   string
		}{
			"kept":            {func(*sitetest.Lab) {}, http.StatusOK, "page"},
			"commit fails":    {func(s *sitetest.Lab) { s.Store.SaveDown.Store(true) }, http.StatusServiceUnavailable, "not available"},
			"ServeError asks": {func(s *sitetest.Lab) { s.Store.Down.Store(true) }, http.StatusServiceUnavailable, "not available"},
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				s := sitetest.NewLab(t)
				v := sitetest.NewGuest(t)
				s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
				test.before(s)
				h := mount(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					session, err := s.Get(r.Context())
					if err != nil {
						s.ServeError(w, r, err)
						return
					}
					sitetest.CartKey.Set(session, 2)
					io.WriteString(w, strings.Repeat("page ", 1000))
				}))
				// Without the recorder: what really goes over the wire.
				server := httptest.NewServer(h)
				defer server.Close()
				resp := v.Keep(fetch(t, "GET", server.URL, func(r *http.Request) {
					v.Prepare(r)
					r.Header.Set("Accept-Encoding", "gzip")
				}))
				sitetest.WantStatus(t, resp, test.status)
				if got := readable(t, resp); !strings.Contains(got, test.text) {
					t.Errorf("body %.60q", got)
				}
			})
		}
	}
}
