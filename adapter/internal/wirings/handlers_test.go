package wirings

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/felixge/httpsnoop"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/starfederation/datastar-go/datastar"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adapter/adaptertest"
)

// failing is a handler that returns an error, as many programs have their own.
type failing func(w http.ResponseWriter, r *http.Request) error

// ServeHTTP answers an error, after marking the request as failed, so that the
// handler's changes are not kept, whatever the status.
func (f failing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := f(w, r); err != nil {
		sojourn.Fail(r.Context())
		status, text := adaptertest.ErrorAnswer(err)
		http.Error(w, text, status)
	}
}

// handler is the application as a handler of net/http. Each edit may change how
// the call is answered.
func handler(app adaptertest.App, upgrade upgrader, edits ...func(*adaptertest.Call, http.ResponseWriter, *http.Request)) http.Handler {
	return failing(func(w http.ResponseWriter, r *http.Request) error {
		call := adaptertest.HTTPCall(w, r)
		call.WebSocket = upgrade(w, r)
		for _, edit := range edits {
			edit(call, w, r)
		}
		return app(call)
	})
}

// counting measures responses as an access log does.
func counting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httpsnoop.CaptureMetrics(next, w, r)
	})
}

func TestHandlersOfNetHTTP(t *testing.T) {
	for name, wire := range map[string]func(sessions *sojourn.Manager, app adaptertest.App) http.Handler{
		"ServeMux, gorilla/websocket": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/", handler(app, withGorilla))
			return sessions.Wrap(mux)
		},
		"ServeMux, coder/websocket": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/", handler(app, withCoder))
			return sessions.Wrap(mux)
		},
		"chi, Wrap as its middleware": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			router := chi.NewRouter()
			router.Use(middleware.RequestID, sessions.Wrap, middleware.Recoverer)
			router.Handle("/*", handler(app, withCoder))
			return router
		},
		"chi, with its middlewares inside and outside": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			router := chi.NewRouter()
			router.Use(middleware.Recoverer, middleware.StripSlashes)
			router.Mount("/", handler(app, withGorilla))
			silent := middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: nowhere{}, NoColor: true})
			return silent(sessions.Wrap(router))
		},
		"httpsnoop outside and inside": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			return counting(sessions.Wrap(counting(handler(app, withGorilla))))
		},
		"otelhttp outside and inside": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			return otelhttp.NewHandler(sessions.Wrap(otelhttp.NewHandler(handler(app, withCoder), "inside")), "outside")
		},
		"otelhttp around chi": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			router := chi.NewRouter()
			router.Use(sessions.Wrap)
			router.Handle("/*", handler(app, withGorilla))
			return otelhttp.NewHandler(router, "shop")
		},
		"datastar": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			return sessions.Wrap(handler(app, withCoder, inDatastar))
		},
		"htmx": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			return sessions.Wrap(handler(app, withCoder, forHTMX))
		},
	} {
		t.Run(name, func(t *testing.T) {
			adaptertest.Run(t, adaptertest.Wiring{
				Start: func(t testing.TB, sessions *sojourn.Manager, app adaptertest.App) adaptertest.Client {
					return adaptertest.Serve(t, wire(sessions, app))
				},
			})
		})
	}
}

// nowhere is a log that discards everything.
type nowhere struct{}

func (nowhere) Print(...any) {}

// inDatastar streams with datastar. NewSSE panics if the header cannot be sent,
// so the session is committed before it.
func inDatastar(call *adaptertest.Call, w http.ResponseWriter, r *http.Request) {
	call.Stream = func(body func(func(string) error) error) error {
		if err := sojourn.Commit(r.Context()); err != nil {
			return err
		}
		sse := datastar.NewSSE(w, r)
		return body(func(line string) error {
			return sse.PatchElements("<p id=line>" + line + "</p>")
		})
	}
}

// forHTMX answers with a fragment of a page and an event, for htmx.
func forHTMX(call *adaptertest.Call, w http.ResponseWriter, _ *http.Request) {
	respond := call.Respond
	call.Respond = func(status int, text string) error {
		event, err := json.Marshal(map[string]string{"changed": text})
		if err != nil {
			return err
		}
		w.Header().Set("HX-Trigger", string(event))
		w.Header().Add("Vary", "HX-Request")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		return respond(status, fmt.Sprintf("<p id=text>%s</p>", text))
	}
}
