package cookiefuzz_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// The names of a manager's cookies by default.
const (
	refCookie   = "__Host-session"
	stateCookie = "__Host-session-state"
)

// row is a store that keeps one record, and counts the calls. It has a cache as
// far as the manager can tell, so cookies hold floors.
type row struct {
	rec   *store.Record
	calls int
}

func (r *row) Load(_ context.Context, id store.ID) (store.Record, error) {
	r.calls++
	if r.rec == nil || r.rec.ID != id {
		return store.Record{}, store.ErrNotFound
	}
	return *r.rec, nil
}

func (r *row) LoadFrom(ctx context.Context, id store.ID, _ uint64) (store.Record, error) {
	return r.Load(ctx, id)
}

func (r *row) Save(_ context.Context, rec store.Record, base store.Base) error {
	r.calls++
	switch {
	case r.rec == nil || r.rec.ID != rec.ID:
		if base != (store.Base{}) {
			return store.ErrConflict
		}
	case r.rec.HasSaveID(rec.SaveIDs[0]):
		return nil
	case r.rec.IsEnd() || r.rec.Base() != base:
		return store.ErrConflict
	}
	r.rec = &rec
	return nil
}

func (r *row) Delete(_ context.Context, id store.ID, until time.Time) error {
	r.calls++
	now := time.Now().UTC()
	mark := store.Record{ID: id, Created: now, Seen: now, Ended: now, Deadline: until, Expires: until}
	if r.rec != nil && r.rec.ID == id {
		mark.Version, mark.SaveIDs = r.rec.Version, r.rec.SaveIDs
	}
	r.rec = &mark
	return nil
}

// fuzzKeys are the same in every process of the fuzzer.
var fuzzKeys = "active:20260101T000000Z:" + strings.Repeat("A", 43)

func fuzzManager(f *testing.F, edit func(*sojourn.Config)) *sojourn.Manager {
	f.Helper()
	keys, err := sojourn.ParseKeys(fuzzKeys)
	if err != nil {
		f.Fatal(err)
	}
	c := sojourn.Config{Keys: keys, Logger: slog.New(slog.DiscardHandler)}
	edit(&c)
	m, err := sojourn.New(c)
	if err != nil {
		f.Fatal(err)
	}
	return m
}

// keep applies Set-Cookie lines like a browser.
func keep(t testing.TB, jar map[string]string, out http.Header) {
	t.Helper()
	for _, line := range out["Set-Cookie"] {
		pair, attributes, _ := strings.Cut(line, ";")
		name, value, ok := strings.Cut(pair, "=")
		if !ok || len(name)+len(value) > wire.MaxCookie {
			t.Fatalf("a cookie of %d bytes", len(name)+len(value))
		}
		jar[name] = value
		if strings.Contains(attributes, "Max-Age=0;") {
			delete(jar, name)
		}
	}
}

func cookieHeader(jar map[string]string) http.Header {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(jar)) {
		pairs = append(pairs, name+"="+jar[name])
	}
	return http.Header{"Cookie": {strings.Join(pairs, "; ")}}
}

// FuzzOpenCookies reads Cookie headers. A control character in them is replaced
// by a cookie value sealed in this process, so the fuzzer can use valid values.
func FuzzOpenCookies(f *testing.F) {
	db := &row{}
	auto := fuzzManager(f, func(c *sojourn.Config) { c.Store, c.FormerCookies = db, []sojourn.Cookie{{Domain: "example.com"}} })
	numbered := fuzzManager(f, func(c *sojourn.Config) { c.Mode, c.InlineLimit = sojourn.CookieOnly, 15000 })

	name := "v"
	text, kept := sojourn.NewKey[string](name), sojourn.NewKey[string](name, sojourn.ServerSide)
	save := func(m *sojourn.Manager, key sojourn.Key[string], value string) map[string]string {
		jar := map[string]string{}
		for _, v := range []string{"before", value} { // the first save sets no floor
			out := http.Header{}
			session, x, err := sitetest.Begin(f.Context(), m, cookieHeader(jar))
			if err != nil {
				f.Fatal(err)
			}
			key.Set(session, v)
			if err := x.Commit(http.StatusOK, out); err != nil {
				f.Fatal(err)
			}
			keep(f, jar, out)
		}
		return jar
	}
	values := map[string]string{"\x01": "stored", "\x03": "inline", "\x04": strings.Repeat("long", 2000)}
	stored, inline, long := save(auto, kept, values["\x01"]), save(auto, text, values["\x03"]), save(numbered, text, values["\x04"])
	sealed := []string{
		"\x01", stored[refCookie], "\x02", stored[stateCookie], "\x03", inline[stateCookie],
		"\x04", long[stateCookie], "\x05", long[stateCookie+"-1"], "\x06", long[stateCookie+"-2"],
	}
	if i := slices.Index(sealed, ""); i >= 0 {
		f.Fatalf("no cookie for %q", sealed[i-1])
	}
	whole := strings.NewReplacer(sealed...)

	const three = stateCookie + "=\x04; " + stateCookie + "-1=\x05; " + stateCookie + "-2=\x06"
	for _, seed := range []string{
		"", ";", "=", refCookie, refCookie + "=", refCookie + `="`, stateCookie + "=2.", stateCookie + "=4.A; " + stateCookie + "-1=B",
		stateCookie + "=\x03", refCookie + "=\x01", refCookie + "=\x01; " + stateCookie + "=\x02", refCookie + "=\x01; " + stateCookie + "=\x03",
		stateCookie + "=\x03\x00", stateCookie + `="` + "\x03" + `"`, stateCookie + "=x\x03", refCookie + "=\x03", stateCookie + "=\x01",
		"__Secure-session=\x01; __Secure-session-state=\x02; " + stateCookie + "=\x03", "__Secure-session-state=\x03; " + stateCookie + "=\x03",
		three, three + "; " + stateCookie + "-1=x", stateCookie + "=\x03; " + three, strings.Repeat(refCookie+"=A; ", 4) + refCookie + "=\x01",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		in := http.Header{"Cookie": {whole.Replace(header)}}
		calls := db.calls
		for _, m := range []*sojourn.Manager{auto, numbered} {
			session, x, err := sitetest.Begin(t.Context(), m, in)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = x.Finish() }()
			if session.User() != "" || len(session.Flashes()) > 0 {
				t.Error("a login or a message from nowhere")
			}
			if slices.Contains(session.Names(), name) == session.IsNew() {
				t.Errorf("the names are %q", session.Names())
			}
			if got := text.Get(session); got != "" && !slices.ContainsFunc([]string{"\x01", "\x03", "\x04"}, func(token string) bool {
				return strings.Contains(header, token) && got == values[token]
			}) {
				t.Errorf("%q holds %q, which was not sealed", header, got)
			}
		}
		if db.calls > calls && !strings.Contains(header, "\x01") {
			t.Errorf("%d store calls for %q", db.calls-calls, header)
		}
	})
}

// FuzzSealedCookies reads cookies and a record with correct seals and any
// content, as another release or a process with the same keys may have written
// them. Whatever they hold, the session can be used.
func FuzzSealedCookies(f *testing.F) {
	ring, err := seal.ParseKeys(fuzzKeys)
	if err != nil {
		f.Fatal(err)
	}
	aad := wire.Bind("session")
	sealed := func(t testing.TB, p seal.Purpose, plain, aad []byte) []byte {
		b, err := ring.Seal(nil, p, plain, aad)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	db := &row{}
	auto := fuzzManager(f, func(c *sojourn.Config) { c.Store = db })
	alone := fuzzManager(f, func(c *sojourn.Config) { c.Mode = sojourn.CookieOnly })
	text := sojourn.NewKey[string]("v")

	now := time.Now().Truncate(24 * time.Hour) // the processes of the fuzzer start one after the other
	ms, month := now.UnixMilli(), now.Add(30*24*time.Hour).UnixMilli()
	identifier := bytes.Repeat([]byte{'i'}, record.IdentifierSize)
	reference := wire.Reference{Identifier: identifier, Generation: 1, Expires: month}
	floor := wire.Floor{ID: store.HashIdentifier(identifier), Version: 1}
	content := func(h record.Header, value string) []byte {
		r := record.Record{Header: h}
		r.Put(record.Field{Name: "v", Stamp: 1, Value: append([]byte{0x60 + byte(len(value))}, value...)})
		return r.Append(nil)
	}
	inStore := content(record.Header{Created: ms, Expires: month, Generation: 1, User: "ada", AuthTime: ms}, "kept")
	inCookie := content(record.Header{Identifier: identifier, Counter: 1, Created: ms, Seen: ms, Expires: month}, "sent")
	mark := wire.Mark{1}
	ref, inline := reference.Append(nil), append([]byte{wire.StateInline}, inCookie...)
	for _, state := range [][]byte{nil, floor.Append(nil), inline, mark.Append(nil), append(mark.Append(nil), inline...)} {
		f.Add(true, ref, state, inStore)
		f.Add(true, []byte(nil), state, []byte(nil))
		f.Add(false, []byte(nil), state, []byte(nil))
	}
	f.Fuzz(func(t *testing.T, stores bool, reference, state, data []byte) {
		m := alone
		if stores {
			m = auto
		}
		db.rec = nil
		if ref, err := wire.ParseReference(reference); err == nil && stores {
			rec := store.Record{
				ID: store.HashIdentifier(ref.Identifier), Version: 1, SaveIDs: []store.SaveID{2}, Created: now, Seen: now,
				Deadline: now.Add(7 * 24 * time.Hour), Expires: now.Add(30 * 24 * time.Hour),
			}
			rec.Data = sealed(t, seal.Record, data, wire.BindRecord(aad, &rec))
			db.rec = &rec
		}
		jar, out := map[string]string{
			refCookie:   wire.Text.EncodeToString(sealed(t, seal.Reference, reference, aad)),
			stateCookie: wire.Text.EncodeToString(sealed(t, seal.State, state, aad)),
		}, http.Header{}
		session, x, err := sitetest.Begin(t.Context(), m, cookieHeader(jar))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = x.Finish() }()
		_, _, _, _ = session.User(), session.Names(), session.Info(), session.Flashes()
		text.Set(session, "new")
		switch err := x.Commit(http.StatusOK, out); {
		case errors.Is(err, sojourn.ErrEnded), errors.Is(err, sojourn.ErrTooLarge), errors.Is(err, sojourn.ErrNoStore):
			return // returned to the code that changed it
		case err != nil:
			t.Fatal(err)
		}
		keep(t, jar, out)
		again, later, err := sitetest.Begin(t.Context(), m, cookieHeader(jar))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = later.Finish() }()
		if got := text.Get(again); got != "new" {
			t.Errorf("saved, and reads %q", got)
		}
	})
}
