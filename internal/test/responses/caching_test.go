package responses_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
)

func TestCachesAreToldExactlyWhenTheSessionWasAskedFor(t *testing.T) {
	ask := func(s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
		if _, err := s.Get(r.Context()); err != nil {
			t.Error(err)
		}
	}
	for name, test := range map[string]struct {
		serve func(*sitetest.Lab, http.ResponseWriter, *http.Request)
		want  []string
		told  bool
	}{
		"untouched": {func(*sitetest.Lab, http.ResponseWriter, *http.Request) {}, nil, false},
		"untouched, with the handler's own": {
			func(_ *sitetest.Lab, w http.ResponseWriter, _ *http.Request) { w.Header().Set("Vary", "Accept") },
			[]string{"Accept"},
			false,
		},
		"asked for": {ask, []string{"Cookie"}, true},
		"asked for, with the handler's own": {
			func(s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Vary", "Accept")
				ask(s, w, r)
			},
			[]string{"Accept, Cookie"},
			true,
		},
		"asked for after the first byte": {
			func(s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusOK)
				ask(s, w, r)
			},
			nil, false,
		},
		"asked for in vain": {
			func(s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
				s.Store.Down.Store(true)
				if _, err := s.Get(r.Context()); err == nil {
					t.Error("loaded from a store that is down")
				}
				w.WriteHeader(http.StatusOK) // as for an anonymous visitor
			},
			[]string{"Cookie"},
			true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := sitetest.NewLab(t)
			v := sitetest.NewGuest(t)
			s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
			resp := v.Get(s.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { test.serve(s, w, r) })))
			if got := resp.Header["Vary"]; !slices.Equal(got, test.want) {
				t.Errorf("Vary %q, want %q", got, test.want)
			}
			sitetest.WantCookies(t, resp)
			want := []string{"private"}
			if !test.told {
				want = nil
			}
			if got := resp.Header["Cache-Control"]; !slices.Equal(got, want) {
				t.Errorf("Cache-Control %q, want %q", got, want)
			}
		})
	}
}

// allowsSharing returns what in h lets a shared cache keep the response, with
// an independent parser.
func allowsSharing(h http.Header) string {
	forbidden := false
	for name, lines := range h {
		for _, line := range lines {
			line = strings.ToLower(line)
			switch name := strings.ToLower(name); {
			case name == "cache-control":
				for part := range strings.SplitSeq(line, ",") {
					switch part = strings.TrimSpace(part); {
					case part == "private" || part == "no-store":
						forbidden = true
					case part == "public" || strings.HasPrefix(part, "s-maxage"):
						return name + ": " + line
					}
				}
			case name == "x-accel-expires":
				if line != "0" {
					return name + ": " + line
				}
			case name == "surrogate-control" || name == "edge-control" || strings.HasSuffix(name, "-cache-control"):
				if line != "no-store" {
					return name + ": " + line
				}
			}
		}
	}
	if !forbidden {
		return "no Cache-Control that forbids it"
	}
	return ""
}

// wantPrivate checks that no shared cache may keep a response, and that it
// varies on all of that, in one line.
func wantPrivate(t *testing.T, h http.Header, vary string) {
	t.Helper()
	if why := allowsSharing(h); why != "" {
		t.Errorf("a shared cache may keep the response: %s", why)
	}
	if got := h["Vary"]; !slices.Equal(got, []string{vary}) {
		t.Errorf("Vary %q, want the one line %q", got, vary)
	}
}

// Which fields mean what is tested in internal/caching.
func TestAPageThatReadTheSessionIsPrivateWhateverTheHandlerSaysInPassing(t *testing.T) {
	passing := http.Header{
		"cache-control": {"max-age=60", "public, private"}, "Vary": {"Accept"}, "Cdn-Cache-Control": {"max-age=60"}, "X-Accel-Expires": {"60"},
	}
	for _, set := range []http.Header{passing, {"Cache-Control": {"public, max-age=60"}, "Vary": {"Accept"}, "Surrogate-Control": {"max-age=60"}, "Set-Cookie": {"a=b"}}} {
		for who, begin := range map[string]func(*sojourn.Session){
			"a first visit":  func(*sojourn.Session) {},
			"a session":      func(session *sojourn.Session) { session.Login("ada") },
			"a small change": func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "light") },
		} {
			s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
			s.Do(v, begin)
			resp := s.Serve(v, func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
				maps.Copy(w.Header(), set)
				if who == "a small change" {
					sitetest.ThemeKey.Set(session, "dark")
				}
			})
			wantPrivate(t, resp.Header, "Accept, Cookie")
			if got := resp.Header["Cache-Control"]; !slices.Equal(got, []string{"max-age=60, private"}) {
				t.Errorf("%s: Cache-Control %q", who, got)
			}
			if got := s.Log.With("shared caches"); len(got) > 0 {
				t.Errorf("%s: logged %q", who, got)
			}
		}
	}
}

func TestAPageIsSharedOnlyOnPurposeAndNeverWithACookie(t *testing.T) {
	const allow = "public, max-age=60"
	s := sitetest.NewLab(t)
	serve := func(f func(*sojourn.Session)) *http.Response {
		return s.Serve(sitetest.NewGuest(t), func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			f(session)
			w.Header().Set("Cache-Control", allow)
			w.Header().Set("CDN-Cache-Control", "max-age=60")
		})
	}
	for range 2 {
		resp := serve(func(*sojourn.Session) {})
		if got := resp.Header.Get("Cache-Control"); got != allow {
			t.Errorf("Cache-Control %q, want the handler's %q", got, allow)
		}
		if got := resp.Header.Get("CDN-Cache-Control"); got != "max-age=60" {
			t.Errorf("CDN-Cache-Control %q", got)
		}
		if got := resp.Header["Vary"]; !slices.Equal(got, []string{"Cookie"}) {
			t.Errorf("Vary %q", got)
		}
	}
	if got := s.Log.With("WARN a response that depends on the session allows shared caches to keep it"); len(got) != 1 {
		t.Errorf("warned %d times, want once: %q", len(got), s.Log.All())
	}
	resp := serve(func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") })
	sitetest.WantCookies(t, resp, sitetest.StateCookie)
	wantPrivate(t, resp.Header, "Cookie")
}

func TestEveryKindOfAnswerThatReadTheSessionIsPrivate(t *testing.T) {
	ask := func(t *testing.T, s *sitetest.Lab, r *http.Request) *sojourn.Session {
		session, err := s.Get(r.Context())
		if err != nil {
			t.Error(err)
		}
		return session
	}
	for name, serve := range map[string]func(*testing.T, *sitetest.Lab, http.ResponseWriter, *http.Request){
		"nothing written": func(t *testing.T, s *sitetest.Lab, _ http.ResponseWriter, r *http.Request) { ask(t, s, r) },
		"header set after Get": func(t *testing.T, s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
			ask(t, s, r)
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Add("CDN-Cache-Control", "max-age=60")
			io.WriteString(w, "page")
		},
		"redirect": func(t *testing.T, s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
			ask(t, s, r)
			http.Redirect(w, r, "/cart", http.StatusMovedPermanently)
		},
		"not modified": func(t *testing.T, s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
			ask(t, s, r)
			w.Header().Set("ETag", `"1"`)
			w.WriteHeader(http.StatusNotModified)
		},
		"not found": func(t *testing.T, s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
			ask(t, s, r)
			http.NotFound(w, r)
		},
		"server error": func(t *testing.T, s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
			ask(t, s, r)
			http.Error(w, "no", http.StatusBadGateway)
		},
		"ServeError": func(t *testing.T, s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Accel-Expires", "60")
			s.ServeError(w, r, sojourn.ErrTaken)
		},
		"a commit that failed": func(t *testing.T, s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
			session := ask(t, s, r)
			s.Store.SaveDown.Store(true)
			sitetest.CartKey.Set(session, 2)
			w.Header().Set("CDN-Cache-Control", "max-age=60")
			io.WriteString(w, "page")
		},
		"stream": func(t *testing.T, s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
			ask(t, s, r)
			w.Header().Set("Content-Type", "text/event-stream")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
		},
		"http.ServeContent": func(t *testing.T, s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
			ask(t, s, r)
			http.ServeContent(w, r, "a.txt", time.Now(), strings.NewReader("page"))
		},
		"http.TimeoutHandler inside": func(t *testing.T, s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancel(r.Context())
			answered := make(chan struct{})
			defer close(answered)
			http.TimeoutHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				ask(t, s, r)
				cancel() // like the timeout
				<-answered
			}), time.Hour, "too slow").ServeHTTP(w, r.WithContext(ctx))
		},
		"the caller gave up loading": func(t *testing.T, s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancel(r.Context())
			s.Store.OnLoad = func(context.Context, store.ID) (store.Record, error) {
				cancel()
				return store.Record{}, faults.ErrLost
			}
			if _, err := s.Get(ctx); err == nil {
				t.Error("loaded")
			}
			io.WriteString(w, "page for nobody in particular")
		},
		"Attach inside Wrap": func(t *testing.T, s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
			session, _, err := sitetest.Begin(r.Context(), s.Manager, r.Header)
			if err != nil {
				t.Error(err)
				return
			}
			fmt.Fprint(w, sitetest.CartKey.Get(session))
		},
		"RequireRecent": func(t *testing.T, s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
			again := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) })
			s.RequireRecent(time.Minute, again)(http.NotFoundHandler()).ServeHTTP(w, r)
		},
		"StatusHandler": func(t *testing.T, s *sitetest.Lab, w http.ResponseWriter, r *http.Request) {
			s.StatusHandler().ServeHTTP(w, r)
		},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(name+" "+method, func(t *testing.T) {
				s := sitetest.NewLab(t)
				v := sitetest.NewGuest(t)
				s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
				resp := v.Request(s.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(t, s, w, r) })), method, "https://shop.example/")
				wantPrivate(t, resp.Header, "Cookie")
			})
		}
	}
}

func TestASessionThatIsStillLoadingWhenTheResponseStartsMakesItPrivate(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	resp := v.Get(s.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, done := make(chan struct{}), make(chan struct{})
		started := make(chan struct{})
		s.Store.OnLoad = func(ctx context.Context, id store.ID) (store.Record, error) {
			close(asked)
			<-started
			return s.Store.Inner.Load(ctx, id)
		}
		go func() {
			defer close(done)
			if _, err := s.Get(r.Context()); err != nil {
				t.Error(err)
			}
		}()
		<-asked
		w.WriteHeader(http.StatusOK)
		close(started)
		<-done
	})))
	wantPrivate(t, resp.Header, "Cookie")
}

func TestAnErrorHandlerCannotLetCachesShareItsAnswerInPassing(t *testing.T) {
	for name, write := range map[string]func(http.ResponseWriter){
		"with a status":      func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) },
		"with a body":        func(w http.ResponseWriter) { io.WriteString(w, "sorry") },
		"with nothing":       func(http.ResponseWriter) {},
		"with a flush":       func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
		"with a plain flush": func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
	} {
		for when, serve := range map[string]func(*sitetest.Lab, http.ResponseWriter, *http.Request, *sojourn.Session){
			"the commit failed": func(s *sitetest.Lab, w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
				s.Store.SaveDown.Store(true)
				sitetest.CartKey.Set(session, 1)
				io.WriteString(w, "page")
			},
			"ServeError": func(s *sitetest.Lab, w http.ResponseWriter, r *http.Request, _ *sojourn.Session) {
				s.ServeError(w, r, sojourn.ErrTaken)
			},
		} {
			t.Run(when+", answered "+name, func(t *testing.T) {
				s := sitetest.NewLab(t, func(c *sojourn.Config) {
					c.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) {
						w.Header().Set("Cache-Control", "max-age=5")
						w.Header().Set("Vary", "Accept-Language")
						w.Header().Set("Surrogate-Control", "max-age=5")
						write(w)
					}
				})
				resp := s.Serve(sitetest.NewGuest(t), func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) { serve(s, w, r, session) })
				wantPrivate(t, resp.Header, "Accept-Language, Cookie")
			})
		}
	}
}

func TestWhatARecoveringMiddlewareAnswersIsPrivate(t *testing.T) {
	s := sitetest.NewLab(t)
	recovering := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			_ = recover()
			http.Error(w, "something broke for ada", http.StatusInternalServerError)
		}()
		s.Handler(func(http.ResponseWriter, *http.Request, *sojourn.Session) { panic("boom") }).ServeHTTP(w, r)
	})
	wantPrivate(t, sitetest.NewGuest(t).Get(recovering).Header, "Cookie")
}

func TestTwoManagersTellCachesOnce(t *testing.T) {
	s := sitetest.NewLab(t)
	other := sitetest.NewLab(t, func(c *sojourn.Config) { c.Name = "staff" })
	for name, test := range map[string]struct {
		serve   func(*http.Request, http.ResponseWriter)
		private bool
	}{
		"both read":  {func(r *http.Request, _ http.ResponseWriter) { _, _ = s.Get(r.Context()); _, _ = other.Get(r.Context()) }, true},
		"inner read": {func(r *http.Request, _ http.ResponseWriter) { _, _ = s.Get(r.Context()) }, true},
		"outer read": {func(r *http.Request, _ http.ResponseWriter) { _, _ = other.Get(r.Context()) }, true},
		"inner is shared on purpose, outer sets a cookie": {func(r *http.Request, w http.ResponseWriter) {
			_, _ = s.Get(r.Context())
			w.Header().Set("Cache-Control", "public")
			if member, err := other.Get(r.Context()); err == nil {
				sitetest.ThemeKey.Set(member, "dark")
			}
		}, true},
		"neither": {func(*http.Request, http.ResponseWriter) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			resp := sitetest.NewGuest(t).Get(other.Wrap(s.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { test.serve(r, w) }))))
			if test.private {
				wantPrivate(t, resp.Header, "Cookie")
			} else if len(resp.Header) > 0 {
				t.Errorf("header %v", resp.Header)
			}
		})
	}
}

func TestASessionThatIsAskedForTooLateForCachesIsWarnedAboutOnce(t *testing.T) {
	const warning = "WARN Get was called after the response had started"
	late := func(t *testing.T, method string, before func(http.ResponseWriter), more func(*sitetest.Lab, *http.Request)) *sitetest.Lab {
		t.Helper()
		s := sitetest.NewLab(t)
		for range 2 {
			sitetest.NewGuest(t).Request(s.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				before(w)
				more(s, r)
				if _, err := s.Get(r.Context()); err != nil {
					t.Error(err)
				}
			})), method, "https://shop.example/")
		}
		return s
	}
	write := func(w http.ResponseWriter) { io.WriteString(w, "hello ") }
	nothing := func(*sitetest.Lab, *http.Request) {}
	if s := late(t, "GET", write, nothing); len(s.Log.With(warning)) != 1 {
		t.Errorf("logged %q", s.Log.All())
	}
	for name, s := range map[string]*sitetest.Lab{
		"a POST": late(t, "POST", write, nothing),
		"no-store": late(t, "GET", func(w http.ResponseWriter) {
			w.Header().Set("Cache-Control", "no-store")
			write(w)
		}, nothing),
		"not late":           late(t, "GET", func(http.ResponseWriter) {}, nothing),
		"switched protocols": late(t, "GET", func(w http.ResponseWriter) { w.WriteHeader(http.StatusSwitchingProtocols) }, nothing),
	} {
		if got := s.Log.With(warning); len(got) > 0 {
			t.Errorf("%s: logged %q", name, got)
		}
	}
	// Once asked for in time, it may be asked for again.
	s := sitetest.NewLab(t)
	s.Serve(sitetest.NewGuest(t), func(w http.ResponseWriter, r *http.Request, _ *sojourn.Session) {
		write(w)
		if _, _, err := sitetest.Begin(r.Context(), s.Manager, r.Header); err != nil {
			t.Error(err)
		}
	})
	if got := s.Log.With(warning); len(got) > 0 {
		t.Errorf("in time: logged %q", got)
	}
}

// onlyMethods is a ResponseHeader that is no http.Header.
type onlyMethods struct{ sojourn.ResponseHeader }

func TestCommitTellsCachesThatTheResponseDependsOnTheSession(t *testing.T) {
	for name, as := range map[string]func(http.Header) sojourn.ResponseHeader{
		"http.Header":              func(h http.Header) sojourn.ResponseHeader { return h },
		"another kind of a header": func(h http.Header) sojourn.ResponseHeader { return onlyMethods{h} },
	} {
		for _, down := range []bool{false, true} {
			s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
			s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
			s.Store.Down.Store(down)
			ctx, x := s.Attach(t.Context(), func() sojourn.RequestInfo {
				return sojourn.RequestInfo{Method: "GET", Header: http.Header{"Cookie": {v.Header()}}}
			})
			if _, err := s.Get(ctx); (err != nil) != down {
				t.Errorf("Get: %v", err)
			}
			out := http.Header{"Cache-Control": {"public"}, "Vary": {"Accept", "Accept-Language"}, "Cdn-Cache-Control": {"max-age=9"}, "Other": {"1"}}
			if !down {
				out["Cache-Control"] = []string{"max-age=60"}
			}
			if err := x.Commit(http.StatusOK, as(out)); err != nil {
				t.Error(err)
			}
			if got := out.Get("Vary"); got != "Accept, Accept-Language, Cookie" || len(out["Vary"]) != 1 {
				t.Errorf("%s: Vary %q", name, out["Vary"])
			}
			if want := map[bool]string{false: "max-age=60, private", true: "public"}[down]; out.Get("Cache-Control") != want {
				t.Errorf("%s: Cache-Control %q, want %q", name, out["Cache-Control"], want)
			}
			if !down && out.Get("Cdn-Cache-Control") != "no-store" {
				t.Errorf("%s: Cdn-Cache-Control %q", name, out["Cdn-Cache-Control"])
			}
			if out.Get("Other") != "1" {
				t.Errorf("%s: the header is %q", name, out)
			}
		}
	}
}

func TestARequestThatIsNotHTTPGetsNoFieldsForCaches(t *testing.T) {
	s := sitetest.NewLab(t)
	session, x, err := sitetest.Begin(t.Context(), s.Manager, http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	sitetest.CartKey.Set(session, 1)
	out := http.Header{}
	if err := x.Commit(http.StatusOK, out); err != nil || len(out) != 1 || len(out["Set-Cookie"]) != 1 {
		t.Errorf("%q, %v", out, err)
	}
}
