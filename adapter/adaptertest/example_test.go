package adaptertest_test

import (
	"net/http"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adapter/adaptertest"
)

// The test of a program whose handlers return errors.
func ExampleRun() {
	var t *testing.T // of the test
	adaptertest.Run(t, adaptertest.Wiring{
		Start: func(t testing.TB, sessions *sojourn.Manager, app adaptertest.App) adaptertest.Client {
			return adaptertest.Serve(t, sessions.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := app(adaptertest.HTTPCall(w, r)); err != nil {
					sojourn.Fail(r.Context())
					status, text := adaptertest.ErrorAnswer(err)
					http.Error(w, text, status)
				}
			})))
		},
		Cannot: map[adaptertest.Ability]string{adaptertest.WebSockets: "we have none"},
	})
}
