package sojourn_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/sojourn-go/sojourn"
)

// A service sends its own error responses when a session could not be loaded or
// saved. Nothing of the handler's response has been sent then.
func ExampleConfig_errorHandler() {
	essay := sojourn.NewKey[string]("essay")
	sessions := manager(sojourn.Config{
		MaxSize: 10_000,
		Logger:  slog.New(slog.DiscardHandler),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			switch {
			case errors.Is(err, sojourn.ErrTooLarge):
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				fmt.Fprint(w, "That was a little too much.")
			case errors.Is(err, sojourn.ErrEnded), errors.Is(err, sojourn.ErrTaken):
				w.WriteHeader(http.StatusConflict)
				fmt.Fprint(w, "Please reload the page.")
			default:
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprint(w, "We will be back in a moment.")
			}
		},
	})
	visit := browse(sessions.Handler(func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		essay.Set(session, strings.Repeat("blah ", 10_000))
		fmt.Fprint(w, "Thank you for your essay")
	}))
	visit("/essay")
	// Output: /essay 413 That was a little too much.
}
