package share_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/sojourn-go/sojourn/legacy/share"
	"github.com/sojourn-go/sojourn/legacy/webapp2"
)

// A page that has moved to Go counts visits in the session that the pages in Python
// count in.
func Example() {
	python, err := webapp2.New(webapp2.Config{Secret: []byte("the secret_key of the old application")})
	if err != nil {
		panic(err)
	}
	shared, err := share.New(share.Config{Format: python})
	if err != nil {
		panic(err)
	}
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session, err := shared.Open(r.Context(), r.Header)
		if err != nil {
			http.Error(w, "Please try again in a moment.", http.StatusServiceUnavailable)
			return
		}
		var visits int
		_ = session.Get("visits", &visits) // 0 if there is none
		_ = session.Set("visits", visits+1)
		if err := session.Save(r.Context(), w.Header()); err != nil {
			http.Error(w, "Please try again in a moment.", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "visit %d", visits+1)
	})

	cookie := ""
	for range 3 {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Cookie", cookie)
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		fmt.Println(w.Body)
		cookie = w.Result().Cookies()[0].String()
	}
	// Output:
	// visit 1
	// visit 2
	// visit 3
}
