package wirings

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/starfederation/datastar-go/datastar"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/sojourntest"
)

// NewSSE has sent the header, as it does for any change that needs a cookie.
func TestALoginAfterNewSSEIsTooLate(t *testing.T) {
	sessions := sojourntest.NewManager(t, sojourn.Config{})
	handler := sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sse := datastar.NewSSE(w, r)
		session.Login("ada")
		if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrTooLate) {
			t.Errorf("Save: %v", err)
		}
		if err := sse.Redirect("/"); err != nil {
			t.Error(err)
		}
	})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/login", nil))
	if n := ops.For(sessions).Stats().LateChanges; n != 1 || len(w.Result().Cookies()) > 0 {
		t.Errorf("%d late changes, cookies %v", n, w.Result().Cookies())
	}
}

// Without sojourn.Commit before, NewSSE panics, after the error was answered.
func TestNewSSEPanicsIfTheSessionCannotBeKept(t *testing.T) {
	sessions := sojourntest.NewManager(t, sojourn.Config{Mode: sojourn.CookieOnly, InlineLimit: 300})
	long := sojourn.NewKey[string]("long")
	var panicked any
	handler := sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		defer func() { panicked = recover() }()
		long.Set(session, strings.Repeat("x", 1000)) // does not fit
		datastar.NewSSE(w, r)
	})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusRequestEntityTooLarge || panicked == nil {
		t.Errorf("the answer is %d, the panic %v", w.Code, panicked)
	}
}
