package responses_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// Flash messages wait for a page that a visitor sees.

// messages returns the messages of a visitor's next page.
func messages(s *sitetest.Lab, v *sitetest.Guest) (texts []string) {
	s.T.Helper()
	s.Serve(v, func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		for _, f := range session.Flashes() {
			texts = append(texts, f.Level+" "+f.Text)
		}
	})
	return texts
}

// withMessage runs f for a visitor with a pending message, in the cookie and in
// the store.
func withMessage(t *testing.T, f func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest)) {
	t.Helper()
	for name, start := range map[string]func(*sojourn.Session){
		"in the cookie": func(session *sojourn.Session) { session.Flash("info", "Saved") },
		"in the store":  func(session *sojourn.Session) { session.Flash("info", "Saved"); sitetest.CartKey.Set(session, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
			s.Do(v, start)
			f(t, s, v)
		})
	}
}

// page is a handler that renders the messages, and answers with that status.
func page(status int, edit ...func(*sojourn.Session)) func(http.ResponseWriter, *http.Request, *sojourn.Session) {
	return func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		list := session.Flashes()
		for _, f := range edit {
			f(session)
		}
		if 300 < status && status < 400 && status != http.StatusNotModified {
			w.Header().Set("Location", "/next")
		}
		w.WriteHeader(status)
		if status == http.StatusOK {
			fmt.Fprint(w, list)
		}
	}
}

func TestARequestThatNobodySeesLeavesTheFlashMessages(t *testing.T) {
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Add(name, value) }
	}
	for name, edit := range map[string]func(*http.Request){
		"HEAD":                           func(r *http.Request) { r.Method = http.MethodHead },
		"prefetch":                       header("Sec-Purpose", "prefetch"),
		"prerender":                      header("Sec-Purpose", "prefetch;prerender"),
		"prerender alone":                header("Sec-Purpose", "prerender"),
		"through a proxy of the browser": header("Sec-Purpose", "prefetch;anonymous-client-ip"),
		"older Chromium and Safari":      header("Purpose", "prefetch"),
		"older Firefox":                  header("X-Moz", "prefetch"),
		"Safari's top sites":             header("X-Purpose", "preview"),
		"Turbo":                          header("X-Sec-Purpose", "prefetch"),
		"htmx":                           header("HX-Preloaded", "true"),
		"background":                     header("Sojourn-Background", "1"),
		"second of two header lines":     func(r *http.Request) { r.Header["Purpose"] = []string{"", "Prefetch"} },
	} {
		t.Run(name, func(t *testing.T) {
			withMessage(t, func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
				for range 2 {
					resp := v.Get(s.Handler(page(http.StatusOK)), edit)
					sitetest.WantStatus(t, resp, http.StatusOK)
					sitetest.WantCookies(t, resp)
					if text := sitetest.Body(t, resp); strings.Contains(text, "Saved") {
						t.Errorf("it is handed out, and would be again: %s", text)
					}
				}
				if got := messages(s, v); !slices.Equal(got, []string{"info Saved"}) {
					t.Errorf("the next page shows %q", got)
				}
				if got := messages(s, v); len(got) != 0 {
					t.Errorf("the page after it shows %q", got)
				}
			})
		})
	}
}

func TestAResponseThatBrowsersDoNotShowLeavesTheFlashMessages(t *testing.T) {
	for _, status := range []int{204, 205, 301, 302, 303, 304, 307, 308, 500, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			withMessage(t, func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
				sitetest.WantStatus(t, s.Serve(v, page(status)), status)
				// What else the request does is kept.
				if got := messages(s, v); !slices.Equal(got, []string{"info Saved"}) {
					t.Errorf("the next page shows %q", got)
				}
			})
		})
	}
}

func TestAPageThatBrowsersShowTakesTheFlashMessages(t *testing.T) {
	// 300 without a Location is a page that lets people choose.
	for _, status := range []int{200, 201, 206, 300, 400, 404, 422} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			withMessage(t, func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
				sitetest.WantStatus(t, s.Serve(v, page(status)), status)
				if got := messages(s, v); len(got) != 0 {
					t.Errorf("the next page shows %q again", got)
				}
			})
		})
	}
}

func TestWhatAnUnseenResponseChangesIsKeptAllTheSame(t *testing.T) {
	withMessage(t, func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
		s.Serve(v, page(http.StatusSeeOther, func(session *sojourn.Session) {
			sitetest.ThemeKey.Set(session, "dark")
			session.Flash("info", "Another")
		}))
		if got := messages(s, v); !slices.Equal(got, []string{"info Saved", "info Another"}) {
			t.Errorf("the next page shows %q", got)
		}
		s.Do(v, func(session *sojourn.Session) {
			if sitetest.ThemeKey.Get(session) != "dark" {
				t.Error("the value is lost")
			}
		})
	})
}

func TestAConditionalRequestOfServeContentLeavesTheFlashMessages(t *testing.T) {
	withMessage(t, func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
		changed := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		resp := v.Get(s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			text := fmt.Sprint(session.Flashes())
			http.ServeContent(w, r, "page.html", changed, strings.NewReader(text))
		}), func(r *http.Request) { r.Header.Set("If-Modified-Since", changed.Format(http.TimeFormat)) })
		sitetest.WantStatus(t, resp, http.StatusNotModified)
		if got := messages(s, v); !slices.Equal(got, []string{"info Saved"}) {
			t.Errorf("the next page shows %q", got)
		}
	})
}

func TestAMessageThatIsFlashedAgainIsKeptOnce(t *testing.T) {
	for _, status := range []int{http.StatusOK, http.StatusFound} {
		withMessage(t, func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
			s.Serve(v, func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
				for _, f := range session.Flashes() {
					session.Flash(f.Level, f.Text)
				}
				w.Header().Set("Location", "/next")
				w.WriteHeader(status)
			})
			if got := messages(s, v); !slices.Equal(got, []string{"info Saved"}) {
				t.Errorf("%d: the next page shows %q", status, got)
			}
			if got := messages(s, v); len(got) != 0 {
				t.Errorf("%d: the page after it shows %q", status, got)
			}
		})
	}
}

func TestFlashMessagesAreHandedOutOnceWithinARequest(t *testing.T) {
	withMessage(t, func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
		s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			if first, second := session.Flashes(), session.Flashes(); len(first) != 1 || len(second) != 0 {
				t.Errorf("handed out %v and %v", first, second)
			}
			// A Save does not know yet whether the page will be shown.
			if err := session.Save(r.Context()); err != nil {
				t.Errorf("Save: %v", err)
			}
			if again := session.Flashes(); len(again) != 0 {
				t.Errorf("after a Save: %v", again)
			}
			io.WriteString(w, "page")
		})
		if got := messages(s, v); len(got) != 0 {
			t.Errorf("the next page shows %q", got)
		}
	})
}

func TestFlashMessagesThatWereSavedBeforeARedirectWait(t *testing.T) {
	withMessage(t, func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
		s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			_ = session.Flashes()
			if err := session.Save(r.Context()); err != nil {
				t.Errorf("Save: %v", err)
			}
			http.Redirect(w, r, "/next", http.StatusSeeOther)
		})
		if got := messages(s, v); !slices.Equal(got, []string{"info Saved"}) {
			t.Errorf("the next page shows %q", got)
		}
	})
}

func TestAHandlerThatGoesToTheBackgroundAfterItTookMessagesLeavesThem(t *testing.T) {
	withMessage(t, func(t *testing.T, s *sitetest.Lab, v *sitetest.Guest) {
		s.Do(v, func(session *sojourn.Session) { _ = session.Flashes(); session.Background() })
		if got := messages(s, v); !slices.Equal(got, []string{"info Saved"}) {
			t.Errorf("the next page shows %q", got)
		}
	})
}

func TestAStreamTakesTheFlashMessagesOfAStoredSession(t *testing.T) {
	s, v := sitetest.NewLab(t), sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1); session.Flash("info", "Saved") })
	s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		_ = http.NewResponseController(w).Flush()
		fmt.Fprint(w, session.Flashes())
	})
	if got := messages(s, v); len(got) != 0 {
		t.Errorf("the next page shows %q", got)
	}
}

// A prefetched response may be discarded, so its cookie must not be the only
// valid one.
func TestARequestThatNobodySeesBringsNoNewCredential(t *testing.T) {
	for name, edit := range map[string]func(*http.Request){
		"HEAD":      func(r *http.Request) { r.Method = http.MethodHead },
		"Turbo":     func(r *http.Request) { r.Header.Set("X-Sec-Purpose", "prefetch") },
		"prerender": func(r *http.Request) { r.Header.Set("Sec-Purpose", "prefetch;prerender") },
		"Firefox":   func(r *http.Request) { r.Header.Set("X-Moz", "prefetch") },
	} {
		synctest.Test(t, func(t *testing.T) {
			s, v := sitetest.NewLab(t, func(c *sojourn.Config) { c.Rotation.Every = time.Hour }), sitetest.NewGuest(t)
			s.Do(v, func(session *sojourn.Session) { session.Login("anna") })
			time.Sleep(2 * time.Hour)
			if resp := v.Get(s.Handler(page(http.StatusOK)), edit); len(sitetest.SetNames(resp)) > 0 {
				t.Errorf("%s: sets %q", name, sitetest.SetNames(resp))
			}
			if resp := v.Get(s.Handler(page(http.StatusOK))); !slices.Contains(sitetest.SetNames(resp), sitetest.RefCookie) {
				t.Errorf("%s: the page after it sets %q", name, sitetest.SetNames(resp))
			}
		})
	}
}
