package wirings

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/go-chi/chi/v5"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adapter/adaptertest"
)

// failed is a transformer, which huma calls before it sends a response: after
// an operation's error only a logout is kept, whatever the status.
func failed(ctx huma.Context, _ string, body any) (any, error) {
	if _, ok := body.(huma.StatusError); ok {
		sojourn.Fail(ctx.Context())
	}
	return body, nil
}

// humaInput is an operation's input.
type humaInput struct{ query func(string) string }

// Resolve implements huma.Resolver.
func (i *humaInput) Resolve(ctx huma.Context) []error {
	i.query = ctx.Query
	return nil
}

// humaPage is an operation's output.
type humaPage struct {
	Status      int
	ContentType string `header:"Content-Type"`
	Body        []byte
}

// register adds the application to an API: as an operation that returns a page,
// and as one that streams.
func register(api huma.API, app adaptertest.App) {
	huma.Register(api, huma.Operation{OperationID: "page", Method: http.MethodGet, Path: "/"},
		func(ctx context.Context, in *humaInput) (*humaPage, error) {
			var page *humaPage
			err := app(&adaptertest.Call{
				Context: ctx,
				Param:   in.query,
				Respond: func(status int, text string) error {
					page = &humaPage{status, "text/plain", []byte(text)}
					return nil
				},
				Stream: func(func(func(string) error) error) error { return errors.New("the operation returns a page") },
			})
			return page, humaError(err)
		})
	huma.Register(api, huma.Operation{OperationID: "stream", Method: http.MethodGet, Path: "/stream"},
		func(ctx context.Context, in *humaInput) (response *huma.StreamResponse, err error) {
			err = app(&adaptertest.Call{
				Context: ctx,
				Param:   in.query,
				Respond: func(int, string) error { return errors.New("the operation streams") },
				Stream: func(body func(func(string) error) error) error {
					response = &huma.StreamResponse{Body: func(ctx huma.Context) {
						ctx.SetHeader("Content-Type", "text/event-stream")
						w := ctx.BodyWriter()
						_ = body(func(line string) error { // the client has gone
							if _, err := fmt.Fprintf(w, "data: %s\n\n", line); err != nil {
								return err
							}
							return http.NewResponseController(w.(http.ResponseWriter)).Flush()
						})
					}}
					return nil
				},
			})
			return response, humaError(err)
		})
}

// streamsApart routes requests for a stream to the stream operation.
func streamsApart(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("do") == "stream" {
			r.URL.Path = "/stream"
		}
		next.ServeHTTP(w, r)
	})
}

// humaError returns huma's error for an error of the application.
func humaError(err error) error {
	var own adaptertest.StatusError
	if err == nil {
		return nil
	}
	if errors.As(err, &own) {
		return huma.NewError(own.Status, own.Error())
	}
	status, text := adaptertest.ErrorAnswer(err)
	if status == http.StatusInternalServerError {
		return err // which huma answers with 500
	}
	return huma.NewError(status, text)
}

func humaConfig(transformers ...huma.Transformer) huma.Config {
	config := huma.DefaultConfig("shop", "1.0.0")
	config.Transformers = append(config.Transformers, transformers...)
	return config
}

const notHuma = "an operation of huma returns a value; such a handler is put beside it, on the mux"

// notInHuma lists what operations do not support.
var notInHuma = map[adaptertest.Ability]string{
	adaptertest.WebSockets: notHuma, adaptertest.Hijacking: notHuma, adaptertest.Files: notHuma, adaptertest.BodyLimits: notHuma,
}

func serveHuma(wire func(sessions *sojourn.Manager, app adaptertest.App) http.Handler) func(testing.TB, *sojourn.Manager, adaptertest.App) adaptertest.Client {
	return func(t testing.TB, sessions *sojourn.Manager, app adaptertest.App) adaptertest.Client {
		return adaptertest.Serve(t, streamsApart(wire(sessions, app)))
	}
}

func TestHuma(t *testing.T) {
	for name, wire := range map[string]func(sessions *sojourn.Manager, app adaptertest.App) http.Handler{
		"over ServeMux": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			mux := http.NewServeMux()
			register(humago.New(mux, humaConfig(failed)), app)
			return sessions.Wrap(mux)
		},
		"over chi": func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
			router := chi.NewRouter()
			router.Use(sessions.Wrap)
			register(humachi.New(router, humaConfig(failed)), app)
			return router
		},
	} {
		t.Run(name, func(t *testing.T) {
			adaptertest.Run(t, adaptertest.Wiring{Start: serveHuma(wire), Cannot: notInHuma})
		})
	}
}

// Each of these wirings works at first sight.
func TestAWiringOfHumaThatLooksRightFails(t *testing.T) {
	for name, test := range map[string]struct {
		wire  func(sessions *sojourn.Manager, app adaptertest.App) http.Handler
		fails []string
	}{
		"no transformer": {
			func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
				mux := http.NewServeMux()
				register(humago.New(mux, humaConfig()), app)
				return sessions.Wrap(mux)
			},
			[]string{"an error that the handler returns keeps nothing but a logout"},
		},
		"a middleware of huma": {
			func(sessions *sojourn.Manager, app adaptertest.App) http.Handler {
				mux := http.NewServeMux()
				api := humago.New(mux, humaConfig(failed))
				api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) {
					r, w := humago.Unwrap(ctx)
					sessions.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						next(huma.WithContext(ctx, r.Context()))
					})).ServeHTTP(w, r)
				})
				register(api, app)
				return mux
			},
			[]string{"a session is there in the next request", "a commit that fails is answered with an error"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			failures := adaptertest.Check(t, adaptertest.Wiring{Start: serveHuma(test.wire), Cannot: notInHuma, Patience: 2 * time.Second})
			for _, want := range test.fails {
				if !slices.ContainsFunc(failures, func(f adaptertest.Failure) bool { return f.Check == want }) {
					t.Errorf("this check passes: %s", want)
				}
			}
		})
	}
}
