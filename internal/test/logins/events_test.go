package logins_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
)

// eventBook records events.
type eventBook struct {
	mu  sync.Mutex
	all []sojourn.Event
}

func (b *eventBook) hear(_ context.Context, e sojourn.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, e)
}

func (b *eventBook) of(kind sojourn.EventKind) []sojourn.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.all), func(e sojourn.Event) bool { return e.Kind != kind })
}

// kinds returns the events since the last call.
func (b *eventBook) kinds() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for _, e := range b.all {
		names = append(names, e.Kind.String())
	}
	b.all = nil
	return strings.Join(names, " ")
}

// snapshotOf saves the record of the browser's session, and returns a function
// that makes the store answer with it from then on, as after lost writes.
func snapshotOf(t *testing.T, db *faults.Store, b *sitetest.Browser, shop *sitetest.Site) (restore func()) {
	t.Helper()
	var handle string
	sitetest.Look(t, b.Clone(), shop, func(s *sojourn.Session) { handle = s.Handle() })
	id, err := store.ParseID(handle)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := db.Inner.Load(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		db.OnLoad = func(ctx context.Context, asked store.ID) (store.Record, error) {
			if asked == id {
				return rec, nil
			}
			return db.Inner.Load(ctx, asked)
		}
	}
}

func TestEvents(t *testing.T) {
	heard := &eventBook{}
	sitetest.Days(t, sojourn.Config{Events: heard.hear, IdleTimeout: time.Hour, Limit: sojourn.Limit{Max: 1}}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		anna := sitetest.NewBrowser()
		step := func(what, want string, f func(*sojourn.Session)) {
			t.Helper()
			sitetest.Does(t, anna, shop, f)
			if got := heard.kinds(); got != want {
				t.Errorf("%s: heard %q, want %q", what, got, want)
			}
		}
		step("looking around", "", sitetest.Reads)
		step("the first value, in the cookie", "created", func(s *sojourn.Session) { sitetest.Colour.Set(s, "red") })
		step("another one", "", func(s *sojourn.Session) { sitetest.Colour.Set(s, "blue") })
		step("growing out of the cookie", "promoted", func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) })
		step("a login", "login", func(s *sojourn.Session) { s.Login("anna") })
		step("a rotation", "rotated", (*sojourn.Session).Rotate)
		step("a logout", "logout", (*sojourn.Session).Logout)
		step("a login from nothing", "login created", func(s *sojourn.Session) { s.Login("anna") })
		other := sitetest.NewBrowser()
		sitetest.Does(t, other, shop, func(s *sojourn.Session) { s.Login("anna") })
		if got := heard.kinds(); got != "revoked login created" {
			t.Errorf("a login beyond the limit: heard %q", got)
		}
		if _, err := shop.Manager.RevokeUser(context.Background(), "anna"); err != nil {
			t.Fatal(err)
		}
		if got := heard.kinds(); got != "revoked" {
			t.Errorf("RevokeUser: heard %q", got)
		}
		sitetest.Does(t, other, shop, func(s *sojourn.Session) { s.Login("anna") })
		heard.kinds()
		time.Sleep(2 * time.Hour)
		for range 3 {
			sitetest.Does(t, other, shop, sitetest.Reads)
		}
		if got := heard.kinds(); got != "expired" {
			t.Errorf("a session past its idle timeout, three times: heard %q", got)
		}
		fresh := sitetest.NewBrowser()
		fresh.SetCookie(reference, "garbage")
		sitetest.Does(t, fresh, shop, sitetest.Reads)
		if got := heard.of(sojourn.EventCookieRejected); len(got) != 1 || got[0].Reason != "damaged" || got[0].IP == "" {
			t.Errorf("a damaged cookie: heard %v", got)
		}
	})
}

func TestEventsTellNoSecrets(t *testing.T) {
	var text bytes.Buffer
	audit := sojourn.AuditLog(slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug})))
	heard := &eventBook{}
	both := func(ctx context.Context, e sojourn.Event) {
		audit(ctx, e)
		heard.hear(ctx, e)
	}
	sitetest.Days(t, sojourn.Config{Events: both}, func(t *testing.T, shop *sitetest.Site, _ *faults.Store) {
		anna := sitetest.NewBrowser()
		sitetest.Does(t, anna, shop, func(s *sojourn.Session) { s.Login("anna"); sitetest.Colour.Set(s, "secretly red") })
		cookie := anna.Cookies()[reference]
		sitetest.Does(t, anna, shop, (*sojourn.Session).Rotate)
		sitetest.Does(t, anna, shop, (*sojourn.Session).Logout)
		for what, secret := range map[string]string{"a cookie": cookie, "a value": "secretly red"} {
			if strings.Contains(text.String(), secret) {
				t.Errorf("the audit log holds %s", what)
			}
		}
		login := heard.of(sojourn.EventLogin)[0]
		for _, part := range []string{"event=login", "user=anna", "session=" + login.Session, "ip=192.0.2.7", "manager=session"} {
			if !strings.Contains(text.String(), part) {
				t.Errorf("the audit log lacks %q:\n%s", part, text.String())
			}
		}
	})
}
