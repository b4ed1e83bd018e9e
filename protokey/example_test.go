package protokey_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/protokey"
)

// A message as a session value. Any generated type will do.
func ExampleNew() {
	settings := protokey.New[*structpb.Struct]("settings")

	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		panic(err)
	}
	sessions, err := sojourn.New(sojourn.Config{Keys: keys, Mode: sojourn.CookieOnly})
	if err != nil {
		panic(err)
	}
	handler := sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		settings.Set(session, &structpb.Struct{Fields: map[string]*structpb.Value{"theme": structpb.NewStringValue("dark")}})
		fmt.Fprint(w, settings.Get(session).GetFields()["theme"].GetStringValue())
	})

	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "https://example.com/", nil))
	fmt.Println(w.Body)
	// Output: dark
}
