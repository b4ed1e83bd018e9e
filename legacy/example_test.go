package legacy_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/webapp2"
)

// A cookie that webapp2 set years ago, in the quoting of its time.
func Example_readASessionOfWebapp2() {
	old, err := webapp2.New(webapp2.Config{Secret: []byte("public-webapp2-secret-Zx81"), MaxAge: time.Hour})
	if err != nil {
		panic(err)
	}
	header := http.Header{"Cookie": {`session="eyJrIjoieHh4eHh4eHh4In0\075|1400000000|b5f8b771fd751503565e5e05c6f91611be8ed4c3"`}}

	session, err := old.Read(context.Background(), header, time.Unix(1400000060, 0))
	fmt.Println(session.Data.Get("k"), session.Expires, err)

	_, err = old.Read(context.Background(), header, time.Unix(1500000000, 0))
	fmt.Println(err, errors.Is(err, reason.Expired))
	// Output:
	// xxxxxxxxx 2014-05-13 17:53:20 +0000 UTC <nil>
	// webapp2 session: expired true
}
