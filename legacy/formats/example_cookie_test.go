package formats_test

import (
	"context"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// pythonCookie is the Cookie header of a visitor of the old application.
func pythonCookie(old legacy.Writer) string {
	s := &legacy.Session{Data: value.NewDict()}
	s.Data.Set("user_id", "anna")
	tea := value.NewDict()
	tea.Set("name", "tea")
	tea.Set("count", int64(2))
	s.Data.Set("cart", []any{tea})
	fields, err := old.Write(context.Background(), s, time.Now())
	if err != nil {
		panic(err)
	}
	return legacytest.Header(fields...).Get("Cookie")
}
