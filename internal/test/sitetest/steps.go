package sitetest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// Body returns the response's body.
func Body(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Panics returns the panic value of f, as text.
func Panics(f func()) (text string) {
	defer func() {
		if p := recover(); p != nil {
			text, _ = p.(string)
			if text == "" {
				text = "not a text"
			}
		}
	}()
	f()
	return ""
}

// WithState returns a key's entry in another state.
func WithState(entry, state string) string {
	_, rest, _ := strings.Cut(entry, ":")
	return state + ":" + rest
}

// KeyText returns a key file's text of several entries.
func KeyText(entries ...string) string {
	return fmt.Sprintf("entries:%d\n%s\n", len(entries), strings.Join(entries, "\n"))
}

// Parse returns a key ring of that text.
func Parse(t *testing.T, text string) *sojourn.KeyRing {
	t.Helper()
	ring, err := sojourn.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// Days runs a test with a fake clock and a site over a store that counts.
func Days(t *testing.T, cfg sojourn.Config, f func(t *testing.T, shop *Site, db *faults.Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		db := faults.Wrap(memory.New())
		if cfg.Mode != sojourn.CookieOnly {
			cfg.Store = db
		}
		f(t, Local(Manager(t, cfg)), db)
	})
}

// IsNew reports whether the browser has no live session.
func IsNew(t *testing.T, b *Browser, at *Site) (isNew bool) {
	t.Helper()
	Look(t, b, at, func(s *sojourn.Session) { isNew = s.IsNew() })
	return isNew
}

// Calls returns how often the store was called.
func (s *Lab) Calls() int64 {
	if s.Store == nil {
		return 0
	}
	return s.Store.Calls()
}

// Ring returns a key ring of entries, such as [KeyOfDay] makes.
func Ring(t *testing.T, entries ...string) *sojourn.KeyRing {
	t.Helper()
	return Parse(t, KeyText(entries...))
}

// KeyOfDay returns entries of one new secret, made on that day of January 2026, in
// each state.
func KeyOfDay(day int) (published, active, retired string) {
	secret := keys.Generate()
	secret = secret[strings.LastIndex(secret, ":"):]
	created := fmt.Sprintf(":202601%02dT000000Z", day)
	return "published" + created + secret, "active" + created + secret, "retired" + created + secret
}

// Call is a request to a server that has no http.ResponseWriter: it runs f with
// v's session, commits, and lets the cookies that were set reach v.
func (s *Lab) Call(v *Guest, f func(session *sojourn.Session)) http.Header {
	s.T.Helper()
	in, out := http.Header{"User-Agent": {"rpc/1"}}, http.Header{}
	if len(v.Cookies) > 0 {
		in.Set("Cookie", v.Header())
	}
	session, x, err := Begin(s.T.Context(), s.Manager, in)
	if err != nil {
		s.T.Fatalf("Get: %v", err)
	}
	f(session)
	if err := x.Commit(http.StatusOK, out); err != nil {
		s.T.Errorf("Commit: %v", err)
	}
	_ = x.Finish()
	v.Keep(&http.Response{Header: out})
	return out
}

// Save saves the session, and fails the test on an error.
func Save(t *testing.T, session *sojourn.Session) {
	t.Helper()
	if err := session.Save(t.Context()); err != nil {
		t.Errorf("Save: %v", err)
	}
}

var (
	// Visits is of a count in the store.
	Visits = sojourn.NewKey[int]("visits", sojourn.ServerSide)
	// Basket is of a list in the store.
	Basket = sojourn.NewKey[[]string]("basket", sojourn.ServerSide)
	// Ticket is of a one-time value in the store.
	Ticket = sojourn.NewKey[string]("ticket", sojourn.ServerSide)
	// Colour is of a small value that may be in the cookie.
	Colour = sojourn.NewKey[string]("colour")
	// Essay is of a large value that may be in the cookie.
	Essay = sojourn.NewKey[string]("essay")
	// Note is of another small value that may be in the cookie.
	Note = sojourn.NewKey[string]("note")
)

// AddOne is an update that counts.
func AddOne(n int) int { return n + 1 }

// Look is a request that reads its session.
func Look(t *testing.T, b *Browser, at *Site, f func(*sojourn.Session)) {
	t.Helper()
	if a := b.Visit(at, f); a.Status != http.StatusOK {
		t.Fatalf("reading got %d %s", a.Status, a.Body)
	}
}

// Does is a request that must succeed.
func Does(t *testing.T, b *Browser, at *Site, f func(*sojourn.Session)) *Answer {
	t.Helper()
	a := b.Visit(at, f)
	if a.Status != http.StatusOK {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	return a
}

// Refused checks that the request was answered with a conflict and that its
// answer changes nothing in the browser.
func Refused(t *testing.T, a *Answer) {
	t.Helper()
	if a.Status != http.StatusConflict {
		t.Errorf("got %d %s, want 409", a.Status, a.Body)
	}
	if len(a.SetCookies()) > 0 {
		t.Errorf("the refused request set cookies %v", a.SetCookies())
	}
	a.Arrive()
}

// OpenShop runs a site over a store, without a network.
func OpenShop(t *testing.T, db store.Store) *Site {
	t.Helper()
	return Local(Manager(t, sojourn.Config{Store: db}))
}

// Rows returns how many live sessions the store holds.
func Rows(t *testing.T, db store.Counter) int64 {
	t.Helper()
	n, err := db.Count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n.Live
}

// Login is a request that logs that user in.
func Login(name string) func(*sojourn.Session) {
	return func(s *sojourn.Session) { s.Login(name) }
}

// SaveFault is a fault of one Save.
type SaveFault func(ctx context.Context, save func(context.Context) error) error

// SaveFaults are faults of a Save after which its caller does not know the
// outcome.
var SaveFaults = map[string]SaveFault{
	"the answer is lost": func(ctx context.Context, save func(context.Context) error) error {
		_ = save(ctx)
		return faults.ErrLost
	},
	"the request is lost": func(context.Context, func(context.Context) error) error { return faults.ErrLost },
	"the request is late": func(ctx context.Context, save func(context.Context) error) error {
		go func() {
			time.Sleep(time.Second)
			_ = save(context.WithoutCancel(ctx))
		}()
		return faults.ErrLost
	},
	"the deadline passes, and it was saved": func(ctx context.Context, save func(context.Context) error) error {
		_ = save(ctx)
		<-ctx.Done()
		return ctx.Err()
	},
	"the deadline passes, and it was not saved": func(ctx context.Context, _ func(context.Context) error) error {
		<-ctx.Done()
		return ctx.Err()
	},
	"the deadline passes, and it is saved later": func(ctx context.Context, save func(context.Context) error) error {
		go func() {
			<-ctx.Done()
			time.Sleep(30 * time.Millisecond)
			_ = save(context.WithoutCancel(ctx))
		}()
		<-ctx.Done()
		return ctx.Err()
	},
}

// Only returns the store's only record.
func Only(t *testing.T, db *faults.Store) store.Record {
	t.Helper()
	recs, _, err := db.Inner.(store.Scanner).Scan(t.Context(), "", 10)
	if err != nil || len(recs) != 1 {
		t.Fatalf("the store holds %d records (%v)", len(recs), err)
	}
	return recs[0]
}

// LoginAs makes a browser of a logged-in user, and returns its handle.
func LoginAs(t *testing.T, shop *Site, user string) (*Browser, string) {
	t.Helper()
	b := NewBrowser()
	Does(t, b, shop, func(s *sojourn.Session) { s.Login(user, "pwd") })
	var handle string
	Look(t, b, shop, func(s *sojourn.Session) { handle = s.Handle() })
	return b, handle
}

// Reads is a request that changes nothing.
func Reads(s *sojourn.Session) { _ = s.User() }

// Audience is a replica with a stream of a user's session open, and another
// replica on the same store.
type Audience struct {
	*testing.T
	Here, There *Site
	Silent      *atomic.Bool // the feed does not answer
	Anna        *Browser
	Handle      string
}

// Listening runs f while a stream of anna's session is open on the replica
// here, with its Done channel.
func Listening(t *testing.T, wrap func(store.Store) store.Store, f func(a *Audience, done <-chan struct{}, why func() error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		db := faults.Wrap(memory.New())
		var silent atomic.Bool
		db.OnEnds = func(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
			if silent.Load() {
				return store.EndPage{}, faults.ErrLost
			}
			return db.Inner.(store.EndFeed).Ends(ctx, cursor, limit)
		}
		keys := Keys(t)
		replica := func() *Site {
			var s store.Store = db
			if wrap != nil {
				s = wrap(s)
			}
			return Local(Manager(t, sojourn.Config{Keys: keys, Store: s, IdleTimeout: time.Hour}))
		}
		a := &Audience{T: t, Here: replica(), There: replica(), Silent: &silent}
		a.Anna, a.Handle = LoginAs(t, a.Here, "anna")
		time.Sleep(time.Second)
		a.Anna.VisitHTTP(a.Here, func(w http.ResponseWriter, r *http.Request) {
			s, err := a.Here.Manager.Get(r.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = http.NewResponseController(w).Flush()
			done := s.Done()
			synctest.Wait()
			f(a, done, s.Err)
		})
	})
}

// EndsWithin reports whether the channel is closed after that time at the latest.
func EndsWithin(d time.Duration, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}

// CartOf returns the number of items in v's cart.
func CartOf(s *Lab, v *Guest) (n int) {
	s.T.Helper()
	s.Do(v, func(session *sojourn.Session) { n = CartKey.Get(session) })
	return n
}

// User returns the browser's logged-in user, "" if none.
func User(t *testing.T, b *Browser, site *Site) (user string) {
	t.Helper()
	Look(t, b, site, func(s *sojourn.Session) { user = s.User() })
	return user
}

// Begin returns the session for the header in, at a server without an
// http.ResponseWriter, and its exchange.
func Begin(ctx context.Context, m *sojourn.Manager, in http.Header) (*sojourn.Session, *sojourn.Exchange, error) {
	ctx, x := m.Attach(ctx, func() sojourn.RequestInfo { return sojourn.RequestInfo{Header: in} })
	s, err := m.Get(ctx)
	return s, x, err
}
