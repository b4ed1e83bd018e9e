package values_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// reused is a server's memory for strings, which it uses for the next request.
type reused struct{ all [][]byte }

func (r *reused) text(s string) string {
	b := []byte(s)
	r.all = append(r.all, b)
	return unsafe.String(&b[0], len(b))
}

func (r *reused) overwrite() {
	for _, b := range r.all {
		for i := range b {
			b[i] = 'X'
		}
	}
}

// sharing is a codec whose bytes are the value's.
type sharing struct{}

func (sharing) Encode(b []byte) ([]byte, error) { return b, nil }
func (sharing) Decode(b []byte) ([]byte, error) { return slices.Clone(b), nil }

// Servers such as Fiber give their handlers strings whose memory they reuse. What a
// session was given before must not change with them.
func TestStringsMayChangeAfterTheCall(t *testing.T) {
	var mu sync.Mutex
	var events []sojourn.Event
	lab := sitetest.NewLab(t, func(c *sojourn.Config) {
		c.Events = func(_ context.Context, e sojourn.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		}
	})
	raw := sojourn.NewKeyCodec("raw", sharing{})
	var memory reused
	v := sitetest.NewGuest(t)
	lab.Do(v, func(s *sojourn.Session) {
		s.Set("gone", 1)
		s.Set("stays", 1)
	})
	lab.Serve(v, func(_ http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		s.Link(memory.text("https://login.example"), memory.text("sid"))
		s.Login(memory.text("ada"), memory.text("pwd"))
		s.Set(memory.text("name"), memory.text("value"))
		s.Delete(memory.text("gone"))
		s.Flash(memory.text("info"), memory.text("hello"))
		value := []byte("bytes")
		raw.Set(s, value)
		memory.all = append(memory.all, value)
		if err := s.Save(r.Context()); err != nil {
			t.Error(err)
		}
		s.Set(memory.text("later"), 2)
		memory.overwrite()
	})
	lab.Do(v, func(s *sojourn.Session) {
		var value string
		if err := s.Get("name", &value); err != nil || value != "value" {
			t.Errorf("%q, %v", value, err)
		}
		if got, want := strings.Join(s.Names(), " "), "later name raw stays"; got != want {
			t.Errorf("the names are %q, want %q", got, want)
		}
		if info := s.Info(); info.User != "ada" || !slices.Equal(info.Methods, []string{"pwd"}) {
			t.Errorf("%q by %q", info.User, info.Methods)
		}
		if got := s.Flashes(); len(got) != 1 || got[0] != (sojourn.Flash{Level: "info", Text: "hello"}) {
			t.Errorf("the messages are %v", got)
		}
		if got := string(raw.Get(s)); got != "bytes" {
			t.Errorf("the codec's value is %q", got)
		}
	})
	// The same without a save before: the changes wait for the response.
	memory = reused{}
	w := sitetest.NewGuest(t)
	lab.Do(w, func(s *sojourn.Session) {
		s.Login(memory.text("bob"), memory.text("otp"))
		s.Flash(memory.text("info"), memory.text("hello"))
		s.Set(memory.text("name"), 1)
		memory.overwrite()
	})
	lab.Do(w, func(s *sojourn.Session) {
		got := s.Flashes()
		if s.User() != "bob" || !slices.Equal(s.Info().Methods, []string{"otp"}) || !s.Has("name") || len(got) != 1 || got[0].Text != "hello" {
			t.Errorf("%q by %q with %q and %v", s.User(), s.Info().Methods, s.Names(), got)
		}
	})
	memory = reused{}
	if n, err := lab.RevokeUser(t.Context(), memory.text("bob")); n != 1 || err != nil {
		t.Errorf("%d sessions have ended, %v", n, err)
	}
	if n, err := lab.RevokeLinked(t.Context(), memory.text("https://login.example"), memory.text("sid")); n != 1 || err != nil {
		t.Errorf("%d linked sessions have ended, %v", n, err)
	}
	memory.overwrite()
	mu.Lock()
	defer mu.Unlock()
	for _, e := range events {
		if strings.Contains(e.User+e.Tenant+e.UserAgent+e.IP+e.Reason, "X") {
			t.Errorf("%s: %+v", e.Kind, e)
		}
	}
}

func TestATenantsNameMayChangeAfterTheCall(t *testing.T) {
	var memory reused
	lab := sitetest.NewLab(t, func(c *sojourn.Config) {
		c.Tenant = func(*sojourn.RequestInfo) string { return memory.text("blue") }
	})
	v := sitetest.NewGuest(t)
	lab.Do(v, func(s *sojourn.Session) {
		memory.overwrite()
		s.Login("ada")
	})
	ctx := sojourn.WithTenant(t.Context(), memory.text("blue"))
	memory.overwrite()
	if all, err := lab.Sessions(ctx, "ada"); len(all) != 1 || err != nil {
		t.Errorf("%d sessions, %v", len(all), err)
	}
}
