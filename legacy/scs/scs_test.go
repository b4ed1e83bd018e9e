package scs_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	realscs "github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/scs"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// visit runs one request through the real library and returns its Set-Cookie.
func visit(t *testing.T, m *realscs.SessionManager, header http.Header, do func(context.Context)) string {
	t.Helper()
	r := httptest.NewRequest("GET", "/", nil)
	if header != nil {
		r.Header = header
	}
	w := httptest.NewRecorder()
	m.LoadAndSave(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { do(r.Context()) })).ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("scs answers %d", w.Code)
	}
	return w.Header().Get("Set-Cookie")
}

func TestSessionsAreReadWrittenAndEndedAsScsDoes(t *testing.T) {
	for _, hashed := range []bool{false, true} {
		store := memstore.NewWithCleanupInterval(0)
		real := realscs.New()
		real.Store, real.HashTokenInStore = store, hashed
		ours, err := scs.New(scs.Config{Store: store, HashToken: hashed})
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		when := time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC)

		// scs writes, we read.
		cookie := visit(t, real, nil, func(ctx context.Context) {
			real.Put(ctx, "user", "ada")
			real.Put(ctx, "n", 42)
			real.Put(ctx, "raw", []byte{0, 255})
			real.RememberMe(ctx, true)
		})
		header := legacytest.Header(cookie)
		s, err := ours.Read(ctx, header, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if s.Data.Get("user") != "ada" || s.Data.Get("n") != 42 || s.Data.Get("__rememberMe") != true {
			t.Errorf("read %s", value.MarshalTagged(s.Data))
		}
		if left := time.Until(s.Expires); left < 23*time.Hour || left > 24*time.Hour {
			t.Errorf("expires in %s", left)
		}

		// We write, scs reads.
		s.Data.Set("n", 43)
		s.Data.Delete("raw")
		fields, err := ours.Write(ctx, s, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		visit(t, real, legacytest.Header(fields...), func(ctx context.Context) {
			if got := real.GetInt(ctx, "n"); got != 43 {
				t.Errorf("scs sees n=%d", got)
			}
			if real.Exists(ctx, "raw") {
				t.Error("scs still sees raw")
			}
			if got := real.Deadline(ctx); !got.Equal(s.Expires) {
				t.Errorf("deadline moved to %s from %s", got, s.Expires)
			}
		})

		// A new session of ours is one of scs.
		d := value.NewDict()
		d.Set("from", "go")
		fresh := &legacy.Session{Data: d}
		if fields, err = ours.Write(ctx, fresh, time.Now()); err != nil {
			t.Fatal(err)
		}
		visit(t, real, legacytest.Header(fields...), func(ctx context.Context) {
			if got := real.GetString(ctx, "from"); got != "go" {
				t.Errorf("scs sees %q", got)
			}
		})
		if fresh.Expires.Before(when) {
			t.Error("no deadline")
		}

		// End ends it for scs.
		if _, err := ours.End(ctx, s); err != nil {
			t.Fatal(err)
		}
		visit(t, real, header, func(ctx context.Context) {
			if real.Exists(ctx, "user") {
				t.Error("scs still has the session")
			}
		})
		if _, err := ours.Read(ctx, header, time.Now()); !errors.Is(err, reason.NotFound) {
			t.Errorf("after End: %v", err)
		}
	}
}

// table is a store with contexts, as scs's SQL and Redis stores have.
type table struct {
	mu     sync.Mutex
	rows   map[string][]byte
	expiry map[string]time.Time
	err    error
}

func (t *table) FindCtx(_ context.Context, token string) ([]byte, bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, ok := t.rows[token]
	return b, ok, t.err
}

func (t *table) CommitCtx(_ context.Context, token string, b []byte, expiry time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows == nil {
		t.rows, t.expiry = map[string][]byte{}, map[string]time.Time{}
	}
	t.rows[token], t.expiry[token] = b, expiry
	return t.err
}

func (t *table) DeleteCtx(_ context.Context, token string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.rows, token)
	return t.err
}

func (*table) Find(string) ([]byte, bool, error)      { panic("called without a context") }
func (*table) Commit(string, []byte, time.Time) error { panic("called without a context") }
func (*table) Delete(string) error                    { panic("called without a context") }

func TestStoresWithContextsAreCalledWithThem(t *testing.T) {
	ctx, store := context.Background(), &table{}
	ours, err := scs.New(scs.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	s := &legacy.Session{Data: value.NewDict()}
	now := time.Now()
	fields, err := ours.Write(ctx, s, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Read(ctx, legacytest.Header(fields...), now); err != nil {
		t.Error(err)
	}
	if _, err := ours.End(ctx, s); err != nil {
		t.Error(err)
	}
}

func TestTheIdleTimeoutShortensTheStoresExpiryOnly(t *testing.T) {
	store := &table{}
	ours, err := scs.New(scs.Config{Store: store, IdleTimeout: time.Hour, Persist: true})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	s := &legacy.Session{Data: value.NewDict()}
	fields, err := ours.Write(context.Background(), s, now)
	if err != nil {
		t.Fatal(err)
	}
	if got := store.expiry[s.ID]; !got.Equal(now.Add(time.Hour)) {
		t.Errorf("stored until %s", got)
	}
	if !s.Expires.Equal(now.Add(24 * time.Hour)) {
		t.Errorf("deadline %s", s.Expires)
	}
	if !strings.Contains(fields[0], "Expires=Mon, 06 May 2024 08:08:10 GMT") {
		t.Errorf("cookie %s", fields[0])
	}
}

func TestSessionsAreRefusedForTheRightReason(t *testing.T) {
	now := time.Now()
	token := strings.Repeat("a", 43)
	encode := func(deadline time.Time) []byte {
		b, err := realscs.GobCodec{}.Encode(deadline, map[string]any{"a": 1})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		name, header string
		stored       []byte
		want         reason.Reason
	}{
		{"no cookie", "", nil, reason.Missing},
		{"empty", "session=", nil, reason.Missing},
		{"garbage", "session=../../etc/passwd", nil, reason.Malformed},
		{"unknown", "session=" + strings.Repeat("b", 43), nil, reason.NotFound},
		{"past its deadline", "session=" + token, encode(now.Add(-time.Second)), reason.Expired},
		{"not gob", "session=" + token, []byte("hello"), reason.Decode},
		{"huge", "session=" + token, make([]byte, 5<<20), reason.ResourceLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := &table{rows: map[string][]byte{}}
			if c.stored != nil {
				store.rows[token] = c.stored
			}
			ours, err := scs.New(scs.Config{Store: store})
			if err != nil {
				t.Fatal(err)
			}
			_, err = ours.Read(context.Background(), http.Header{"Cookie": {c.header}}, now)
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

func TestAStoreThatDoesNotAnswerIsNoRefusal(t *testing.T) {
	ours, err := scs.New(scs.Config{Store: &table{err: errors.New("down")}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = ours.Read(context.Background(), http.Header{"Cookie": {"session=" + strings.Repeat("a", 43)}}, time.Now())
	if err == nil || reason.Of(err) != "" {
		t.Errorf("got %v", err)
	}
}
