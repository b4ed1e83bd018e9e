package adaptertest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adapter/adaptertest"
)

// A call of a small RPC protocol: JSON over HTTP, which always answers 200, and
// has an error in the body if the call failed.
type (
	rpcCall   struct{ Header, Params map[string]string }
	rpcResult struct {
		Header http.Header
		Text   string
		Error  string
	}
)

// rpcClient is a client of it, with the server's address.
type rpcClient string

func (c rpcClient) Send(ctx context.Context, r adaptertest.Request) (*adaptertest.Answer, error) {
	call := rpcCall{map[string]string{}, r.Params}
	for name := range r.Header {
		call.Header[name] = r.Header.Get(name)
	}
	body, err := json.Marshal(call)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, string(c), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var result rpcResult
	if err := json.NewDecoder(resp.Body).Decode(&result); err != nil {
		return nil, err
	}
	return &adaptertest.Answer{
		Failed: result.Error != "",
		Header: result.Header,
		Body:   io.NopCloser(strings.NewReader(result.Text + result.Error)),
	}, nil
}

// serveRPC serves the protocol. commits gets each call and returns the call's
// final error.
func serveRPC(commits func(exchange *sojourn.Exchange, err error, h http.Header) error) func(testing.TB, *sojourn.Manager, adaptertest.App) adaptertest.Client {
	return func(t testing.TB, sessions *sojourn.Manager, app adaptertest.App) adaptertest.Client {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var call rpcCall
			if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
				t.Error(err)
			}
			header, result := http.Header{}, rpcResult{Header: http.Header{}}
			for name, value := range call.Header {
				header.Set(name, value)
			}
			ctx, exchange := sessions.Attach(r.Context(), func() sojourn.RequestInfo { return sojourn.RequestInfo{Header: header} })
			defer func() {
				_ = exchange.Finish() // an error was logged
				if p := recover(); p != nil {
					result.Error = "panic"
				}
				_ = json.NewEncoder(w).Encode(result) // the client may have gone
			}()
			err := app(&adaptertest.Call{
				Context: ctx,
				Param:   func(name string) string { return call.Params[name] },
				Respond: func(_ int, text string) error { result.Text = text; return nil },
			})
			if err = commits(exchange, err, result.Header); err != nil {
				result.Text, result.Error = "", err.Error()
			}
		}))
		t.Cleanup(server.Close)
		return rpcClient(server.URL)
	}
}

var unary = map[adaptertest.Ability]string{
	adaptertest.Statuses: "a call fails or not", adaptertest.Caching: "every call is a POST",
	adaptertest.Streams: "calls are unary", adaptertest.WebSockets: "calls are unary", adaptertest.Hijacking: "calls are unary",
	adaptertest.Files: "answers are text", adaptertest.BodyLimits: "calls are small",
}

func TestAnRPCProtocolOverAttach(t *testing.T) {
	adaptertest.Run(t, adaptertest.Wiring{Cannot: unary, Start: serveRPC(func(exchange *sojourn.Exchange, err error, h http.Header) error {
		status := http.StatusOK
		if err != nil {
			status = http.StatusInternalServerError
		}
		if failed := exchange.Commit(status, h); failed != nil {
			return failed
		}
		return err
	})})
}

func TestAnRPCProtocolThatGoesWrongFails(t *testing.T) {
	for name, test := range map[string]struct {
		commits func(exchange *sojourn.Exchange, err error, h http.Header) error
		fails   []string
	}{
		"a call that fails is committed like any other": {
			func(exchange *sojourn.Exchange, err error, h http.Header) error {
				if failed := exchange.Commit(http.StatusOK, h); failed != nil {
					return failed
				}
				return err
			},
			[]string{"an error that the handler returns keeps nothing but a logout"},
		},
		"only a call that succeeds is committed": {
			func(exchange *sojourn.Exchange, err error, h http.Header) error {
				if err != nil {
					return err
				}
				return exchange.Commit(http.StatusOK, h)
			},
			[]string{"an error that the handler returns keeps nothing but a logout"},
		},
		"the commit's error is dropped": {
			func(exchange *sojourn.Exchange, err error, h http.Header) error {
				status := http.StatusOK
				if err != nil {
					status = http.StatusInternalServerError
				}
				_ = exchange.Commit(status, h)
				return err
			},
			[]string{"a commit that fails is answered with an error", "a logout is final against a slower request"},
		},
		"the cookies stay behind": {
			func(exchange *sojourn.Exchange, err error, h http.Header) error {
				status := http.StatusOK
				if err != nil {
					status = http.StatusInternalServerError
				}
				if failed := exchange.Commit(status, nil); failed != nil {
					return failed
				}
				return err
			},
			[]string{"a session is there in the next request"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantFailures(t, adaptertest.Check(t, adaptertest.Wiring{Start: serveRPC(test.commits), Cannot: unary}), test.fails)
		})
	}
}
