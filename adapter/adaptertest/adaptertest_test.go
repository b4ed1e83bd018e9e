package adaptertest_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adapter/adaptertest"
)

// serve starts a server of net/http around the handler that wire makes.
func serve(wire func(sessions *sojourn.Manager, app http.Handler) http.Handler) func(testing.TB, *sojourn.Manager, adaptertest.App) adaptertest.Client {
	return func(t testing.TB, sessions *sojourn.Manager, app adaptertest.App) adaptertest.Client {
		return adaptertest.Serve(t, wire(sessions, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := app(adaptertest.HTTPCall(w, r)); err != nil {
				sojourn.Fail(r.Context())
				status, text := adaptertest.ErrorAnswer(err)
				http.Error(w, text, status)
			}
		})))
	}
}

var noSockets = map[adaptertest.Ability]string{adaptertest.WebSockets: "net/http has none"}

func TestWrapAroundAMux(t *testing.T) {
	adaptertest.Run(t, adaptertest.Wiring{
		Start: serve(func(sessions *sojourn.Manager, app http.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/", app)
			return sessions.Wrap(mux)
		}),
		Cannot: noSockets,
	})
}

func TestWrapAsAMiddlewareOfOneRoute(t *testing.T) {
	adaptertest.Run(t, adaptertest.Wiring{
		Start: serve(func(sessions *sojourn.Manager, app http.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/", sessions.Wrap(app))
			return mux
		}),
		Cannot: noSockets,
	})
}

// bufferedWriter keeps the response until the handler has returned.
type bufferedWriter struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (w *bufferedWriter) WriteHeader(status int)      { w.status = status }
func (w *bufferedWriter) Write(b []byte) (int, error) { return w.body.Write(b) }
func (w *bufferedWriter) Flush()                      {}

func (w *bufferedWriter) end() {
	if w.status != 0 {
		w.ResponseWriter.WriteHeader(w.status)
	}
	w.ResponseWriter.Write(w.body.Bytes())
}

// statusWriter records the status, and hides the writer's other methods.
type statusWriter struct {
	w      http.ResponseWriter
	status int
}

func (w *statusWriter) Header() http.Header         { return w.w.Header() }
func (w *statusWriter) Write(b []byte) (int, error) { return w.w.Write(b) }
func (w *statusWriter) WriteHeader(status int)      { w.status = status; w.w.WriteHeader(status) }

func buffered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := &bufferedWriter{ResponseWriter: w}
		defer b.end()
		next.ServeHTTP(b, r)
	})
}

// wantFailures checks that these checks are among those that fail.
func wantFailures(t *testing.T, failures []adaptertest.Failure, want []string) {
	t.Helper()
	for _, name := range want {
		if !slices.ContainsFunc(failures, func(f adaptertest.Failure) bool { return f.Check == name }) {
			t.Errorf("this check passes: %s", name)
		}
	}
	for _, f := range failures {
		t.Logf("%s: %s", f.Check, strings.TrimSpace(f.Text))
	}
}

// Each of these wirings works at first sight.
func TestAWiringThatLooksRightFails(t *testing.T) {
	for name, test := range map[string]struct {
		start func(testing.TB, *sojourn.Manager, adaptertest.App) adaptertest.Client
		fails []string
	}{
		"no middleware": {
			serve(func(_ *sojourn.Manager, app http.Handler) http.Handler { return app }),
			[]string{"a session is there in the next request"},
		},
		"a middleware that buffers outside": {
			serve(func(sessions *sojourn.Manager, app http.Handler) http.Handler { return buffered(sessions.Wrap(app)) }),
			[]string{"a stream sends the cookie first and each line at once", "a stream ends with its session"},
		},
		"a middleware that buffers inside": {
			serve(func(sessions *sojourn.Manager, app http.Handler) http.Handler { return sessions.Wrap(buffered(app)) }),
			[]string{"a stream sends the cookie first and each line at once", "a stream ends with its session"},
		},
		"a writer that hides Flush and Hijack": {
			serve(func(sessions *sojourn.Manager, app http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					sessions.Wrap(app).ServeHTTP(&statusWriter{w: w}, r)
				})
			}),
			[]string{"a stream sends the cookie first and each line at once", "a connection that is taken over has the cookie"},
		},
		"the request goes on with the session, and the writer does not": {
			serve(func(sessions *sojourn.Manager, app http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					sessions.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						app.ServeHTTP(w, r)
					})).ServeHTTP(w, r)
				})
			}),
			[]string{
				"a session is there in the next request", "a commit that fails is answered with an error",
				"an answer of 500 or above keeps nothing but a logout", "a connection that is taken over has the cookie",
			},
		},
		"an error is rendered and nobody says that the request has failed": {
			func(t testing.TB, sessions *sojourn.Manager, app adaptertest.App) adaptertest.Client {
				return adaptertest.Serve(t, sessions.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if err := app(adaptertest.HTTPCall(w, r)); err != nil {
						status, text := adaptertest.ErrorAnswer(err)
						http.Error(w, text, status)
					}
				})))
			},
			[]string{"an error that the handler returns keeps nothing but a logout"},
		},
		"by hand over Attach, with the commit after the answer": {
			serve(func(sessions *sojourn.Manager, app http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					ctx, exchange := sessions.Attach(r.Context(), func() sojourn.RequestInfo { return sojourn.InfoOf(r) })
					defer func() { _ = exchange.Finish() }()
					app.ServeHTTP(w, r.WithContext(ctx))
					if err := exchange.Commit(http.StatusOK, w.Header()); err != nil {
						fmt.Fprint(w, err)
					}
				})
			}),
			[]string{
				"a session is there in the next request", "a commit that fails is answered with an error",
				"an answer of 500 or above keeps nothing but a logout", "a stream sends the cookie first and each line at once",
			},
		},
		"what cannot be done is not said": {
			func(t testing.TB, sessions *sojourn.Manager, app adaptertest.App) adaptertest.Client {
				return adaptertest.Serve(t, sessions.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					call := adaptertest.HTTPCall(w, r)
					call.File = nil
					if err := app(call); err != nil {
						sessions.ServeError(w, r, err)
					}
				})))
			},
			[]string{"a big file arrives whole"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failures := adaptertest.Check(t, adaptertest.Wiring{Start: test.start, Cannot: noSockets, Patience: 2 * time.Second})
			wantFailures(t, failures, test.fails)
		})
	}
}

func TestAWiringThatIsRightHasNoFailures(t *testing.T) {
	failures := adaptertest.Check(t, adaptertest.Wiring{
		Start:  serve(func(sessions *sojourn.Manager, app http.Handler) http.Handler { return sessions.Wrap(app) }),
		Cannot: noSockets,
	})
	for _, f := range failures {
		t.Errorf("%s: %s", f.Check, f.Text)
	}
}
