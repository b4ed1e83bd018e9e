package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// The tests in this file go through the endpoints one by one, over HTTP, with
// the program running inside the test.

func TestUntouchedNeverAsksForTheSession(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	b.mustPost("/set-serverside?key=k&value=v")
	before := b.stats()["loads"]
	r := b.get("/untouched")
	if r.Status != 200 || r.Body != "ok" {
		t.Errorf("the answer is %d %q", r.Status, r.Body)
	}
	if len(r.Header["Set-Cookie"]) > 0 || r.Header.Get("Vary") != "" {
		t.Errorf("the session left traces in the header: %v", r.Header)
	}
	if after := b.stats()["loads"]; after != before {
		t.Errorf("the store was asked %d times", after-before)
	}
}

func TestInfoSaysWhereTheSessionLives(t *testing.T) {
	t.Parallel()
	base := startInside(t, "-insecure")
	for _, tt := range []struct {
		name, request, placement string
		version                  uint64
	}{
		{"nobody wrote anything", "", "none", 0},
		{"a small value", "/set?key=k&value=v", "inline", 0},
		{"a value beyond the cookie's limit", "/set?key=k&size=3000", "stored", 1},
		{"a value for the server only", "/set-serverside?key=k&value=v", "stored", 1},
		{"a login", "/login?user=ada", "stored", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBrowser(t, base)
			if r := b.get("/info"); !r.New || r.Placement != "none" || r.Handle != "" || r.Created != nil {
				t.Fatalf("before: %s", r.Body)
			}
			if tt.request == "" {
				return
			}
			b.mustPost(tt.request)
			r := b.get("/info")
			if r.Placement != tt.placement || r.Version != tt.version || r.New {
				t.Errorf("got %s, want placement %s, version %d, not new", r.Body, tt.placement, tt.version)
			}
			if len(r.Handle) != 26 || r.Bytes == 0 || r.Created == nil || r.Expires == nil || !r.Expires.After(*r.Created) {
				t.Errorf("incomplete: %s", r.Body)
			}
		})
	}
}

func TestInlineZeroStoresEverySession(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure", "-inline", "0"))
	b.mustPost("/set?key=k&value=v")
	if r := b.get("/info"); r.Placement != "stored" {
		t.Errorf("got %s", r.Body)
	}
}

// kinds are the two places in which a session can live, for behavior that is
// the same in both.
func kinds(t *testing.T, f func(t *testing.T, b *browser)) {
	for name, args := range map[string][]string{
		"inline": {"-insecure"},
		"stored": {"-insecure", "-inline", "0"},
		"cookie": {"-insecure", "-store", "none"},
	} {
		t.Run(name, func(t *testing.T) { f(t, newBrowser(t, startInside(t, args...))) })
	}
}

func TestWhatWasSetIsThereUntilItIsDeleted(t *testing.T) {
	kinds(t, func(t *testing.T, b *browser) {
		b.mustPost("/set?key=a&value=1")
		b.mustPost("/set-volatile?key=b&value=2+%C3%A4+%00")
		if r := b.get("/get?key=b"); !r.Found || r.Text() != "2 ä \x00" {
			t.Errorf("get: %s", r.Body)
		}
		if r := b.get("/all"); len(r.Values) != 2 || r.Values["a"] != "1" {
			t.Errorf("all: %s", r.Body)
		}
		b.mustPost("/delete?key=a")
		if r := b.get("/get?key=a"); r.Found || r.Text() != "" {
			t.Errorf("deleted: %s", r.Body)
		}
		b.mustPost("/clear")
		if r := b.get("/all"); len(r.Values) != 0 {
			t.Errorf("cleared: %s", r.Body)
		}
	})
}

func TestNumbersAndListsAreReadAsJSON(t *testing.T) {
	kinds(t, func(t *testing.T, b *browser) {
		for want := 1; want <= 3; want++ {
			if r := b.mustPost("/incr?key=n"); r.Number() != want {
				t.Errorf("incr: %s, want %d", r.Body, want)
			}
			if r := b.mustPost(fmt.Sprintf("/append?key=l&value=%d", want)); r.Length != want {
				t.Errorf("append: %s, want %d", r.Body, want)
			}
		}
		if r := b.get("/get?key=n"); r.Text() != "3" {
			t.Errorf("the number reads as %s", r.Body)
		}
		if r := b.get("/get?key=l"); r.Text() != `["1","2","3"]` {
			t.Errorf("the list reads as %s", r.Body)
		}
		if r := b.get("/all"); len(r.Values) != 0 {
			t.Errorf("all gives more than strings: %s", r.Body)
		}
	})
}

func TestPopHandsOutAValueOnce(t *testing.T) {
	kinds(t, func(t *testing.T, b *browser) {
		b.mustPost("/set?key=state&value=xyz")
		if r := b.mustPost("/pop?key=state"); !r.Found || r.Text() != "xyz" {
			t.Errorf("first: %s", r.Body)
		}
		if r := b.mustPost("/pop?key=state"); r.Found {
			t.Errorf("second: %s", r.Body)
		}
	})
}

func TestFlashMessagesAreHandedOutOnce(t *testing.T) {
	kinds(t, func(t *testing.T, b *browser) {
		b.mustPost("/flash?level=info&text=Added")
		b.mustPost("/flash?level=error&text=Sold+out")
		r := b.get("/flashes")
		if len(r.Flashes) != 2 || r.Flashes[0].Level != "info" || r.Flashes[1].Text != "Sold out" {
			t.Errorf("first: %s", r.Body)
		}
		if r := b.get("/flashes"); strings.TrimSpace(r.Body) != `{"flashes":[]}` {
			t.Errorf("second: %s", r.Body)
		}
	})
}

func TestAnErrorAnswerKeepsNothing(t *testing.T) {
	kinds(t, func(t *testing.T, b *browser) {
		b.mustPost("/set?key=k&value=before")
		if r := b.post("/fail?key=k&value=after"); r.Status != 500 || r.Error == "" {
			t.Errorf("got %d %s", r.Status, r.Body)
		}
		if r := b.get("/get?key=k"); r.Text() != "before" {
			t.Errorf("then %s", r.Body)
		}
	})
}

func TestAPanicAbortsTheConnectionAndKeepsNothing(t *testing.T) {
	kinds(t, func(t *testing.T, b *browser) {
		b.mustPost("/set?key=k&value=before")
		if r, err := b.try("GET", "/panic?key=k"); err == nil {
			t.Errorf("got an answer: %d %s", r.Status, r.Body)
		}
		if r := b.get("/get?key=k"); r.Text() != "before" {
			t.Errorf("then %s", r.Body)
		}
	})
}

func TestParallelIncrementsOfAStoredSessionAreExact(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	b.mustPost("/set-serverside?key=k&value=v")
	const n = 64
	var most atomic.Int64
	together(n, func(int) {
		v := int64(b.mustPost("/incr?key=n&delay=20").Number())
		for old := most.Load(); v > old && !most.CompareAndSwap(old, v); old = most.Load() {
		}
	})
	if r := b.get("/get?key=n"); r.Text() != fmt.Sprint(n) || most.Load() != n {
		t.Errorf("%d increments made %s, and the largest answer is %d", n, r.Text(), most.Load())
	}
}

func TestParallelAppendsLoseNothing(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure", "-inline", "0"))
	b.mustPost("/append?key=l&value=first")
	together(32, func(i int) { b.mustPost(fmt.Sprintf("/append?key=l&value=v%d&delay=10", i)) })
	list := b.get("/get?key=l").Text()
	for i := range 32 {
		if !strings.Contains(list, fmt.Sprintf(`"v%d"`, i)) {
			t.Errorf("v%d is missing: %s", i, list)
		}
	}
}

func TestOfParallelPopsOneWins(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	b.mustPost("/set-serverside?key=state&value=xyz")
	var won atomic.Int32
	together(16, func(int) {
		r := b.post("/pop?key=state&delay=20")
		switch {
		case r.Status == 200 && r.Found:
			won.Add(1)
		case r.Status == 200, r.Status == http.StatusConflict && r.Error != "":
		default:
			t.Errorf("got %d %s", r.Status, r.Body)
		}
	})
	if won.Load() != 1 {
		t.Errorf("%d requests got the value", won.Load())
	}
}

func TestALoginChangesTheIdentifier(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	b.mustPost("/set-serverside?key=cart&value=mug")
	before := b.get("/info")
	thief := b.copied()
	r := b.mustPost("/login?user=ada")
	after := b.get("/info")
	if r.Handle == before.Handle || r.Handle != after.Handle || after.User != "ada" {
		t.Errorf("before %s, login %s, after %s", before.Body, r.Body, after.Body)
	}
	if b.get("/get?key=cart").Text() != "mug" {
		t.Error("the visitor's values are gone")
	}
	if r := thief.get("/info"); r.User != "" || r.Placement != "none" {
		t.Errorf("the identifier from before leads to %s", r.Body)
	}
}

func TestALogoutIsFinal(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	in := b.mustPost("/login?user=ada")
	second := b.copied()
	slow := make(chan client.Answer)
	go func() { slow <- second.post("/set?key=k&value=late&delay=300") }()
	client.Eventually(t, "the slow request has loaded its session", func() bool { return b.stats()["loads"] > 0 })
	if out := b.mustPost("/logout"); out.Handle != in.Handle {
		t.Errorf("logged in %s, logged out %s", in.Handle, out.Handle)
	}
	if r := <-slow; r.Status != http.StatusConflict || len(r.Header["Set-Cookie"]) > 0 {
		t.Errorf("the slow request got %d %s with cookies %v", r.Status, r.Body, r.Header["Set-Cookie"])
	}
	for name, tab := range map[string]*browser{"this tab": b, "the other tab": second} {
		if r := tab.get("/info"); r.User != "" || r.Placement != "none" {
			t.Errorf("%s: %s", name, r.Body)
		}
	}
}

func TestRotateKeepsTheSessionAndChangesTheCookie(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	before := b.mustPost("/login?user=ada")
	old := b.Cookies()[0].Value
	if r := b.mustPost("/rotate"); r.Handle != before.Handle {
		t.Errorf("the handle was %s and is %s", before.Handle, r.Handle)
	}
	if b.Cookies()[0].Value == old {
		t.Error("the cookie is the same")
	}
	if r := b.get("/info"); r.User != "ada" {
		t.Errorf("then %s", r.Body)
	}
}

func TestAStreamTicks(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	r := b.get("/stream?events=3&every=1")
	if r.Body != "data: 0\n\ndata: 1\n\ndata: 2\n\n" || r.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("got %s %q", r.Header.Get("Content-Type"), r.Body)
	}
}

func TestAStreamEndsWithItsSession(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	b.mustPost("/login?user=ada")
	ctx, cancel := context.WithTimeout(t.Context(), client.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", b.base+"/stream?events=1000000&every=5", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := b.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	if !lines.Scan() || lines.Text() != "data: 0" {
		t.Fatalf("the stream starts with %q: %v", lines.Text(), lines.Err())
	}
	b.mustPost("/logout")
	var last []string
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "data: ") || last != nil {
			last = append(last, lines.Text())
		} else if strings.HasPrefix(lines.Text(), "event: ") {
			last = []string{lines.Text()}
		}
	}
	if got := strings.Join(last, "\n"); !strings.HasSuffix(got, "event: ended\ndata: ended\n") {
		t.Errorf("the stream ends with %q", got)
	}
}

func TestALateChangeIsKeptInTheStoreAndRefusedInTheCookie(t *testing.T) {
	t.Parallel()
	base := startInside(t, "-insecure")
	stored := newBrowser(t, base)
	stored.mustPost("/set-serverside?key=k&value=v")
	if r := stored.get("/late-set?key=late&value=yes"); r.Body != "." {
		t.Errorf("stored: %q", r.Body)
	}
	if r := stored.get("/get?key=late"); r.Text() != "yes" {
		t.Errorf("stored, then %s", r.Body)
	}
	inline := newBrowser(t, base)
	inline.mustPost("/set?key=k&value=v")
	r := inline.get("/late-set?key=late&value=yes")
	lines := strings.Split(strings.TrimSuffix(r.Body, "\n"), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[1], sojourn.ErrTooLate.Error()) {
		t.Errorf("inline: %q", r.Body)
	}
	if r := inline.get("/get?key=late"); r.Found {
		t.Errorf("inline, then %s", r.Body)
	}
}

func TestBigServesAFileWithRanges(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	if r := b.get("/big?bytes=300000"); len(r.Body) != 300000 || r.Status != 200 {
		t.Errorf("got %d, %d bytes", r.Status, len(r.Body))
	}
	req, err := http.NewRequest("GET", b.base+"/big?bytes=300000", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", "bytes=100-199")
	r, err := b.Do(req)
	if err != nil || r.Status != http.StatusPartialContent || len(r.Body) != 100 {
		t.Errorf("range: %d, %d bytes, %v", r.Status, len(r.Body), err)
	}
}

func TestWhatOnlyReadsMakesNoSession(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure", "-inline", "0"))
	for _, path := range []string{"/untouched", "/stats", "/big?bytes=10", "/info", "/get?key=k", "/all", "/flashes"} {
		if r := b.get(path); r.Status != 200 || len(r.Header["Set-Cookie"]) > 0 {
			t.Errorf("%s: %d, %v", path, r.Status, r.Header["Set-Cookie"])
		}
	}
	if counts := b.stats(); counts["saves"] != 0 || counts["loads"] != 0 {
		t.Errorf("the store was used: %v", counts)
	}
}

func TestStatsHasEveryCounter(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	want := []string{
		"cache_hits", "cache_misses", "conflicts", "loads", "rejected_cookies", "retries", "saves", "store_errors", "touches",
	}
	var got []string
	for name := range b.stats() {
		got = append(got, name)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestBadParametersAreRefused(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	for _, path := range []string{
		"/set?value=v", "/set?key=_x&value=v", "/set?key=" + strings.Repeat("k", 256), "/set?key=k&size=-1",
		"/set?key=k&size=many", "/set?key=k&value=v&delay=soon", "/set?key=k&value=%zz", "/incr", "/append", "/pop",
		"/delete", "/login", "/login?user=", "/fail", "/revoke?handle=h", "/revoke?user=ada", "/revoke-user", "/revoke-user?user=",
	} {
		if r := b.post(path); r.Status != http.StatusBadRequest || r.Error == "" {
			t.Errorf("POST %s: %d %s", path, r.Status, r.Body)
		}
	}
	for _, path := range []string{"/get", "/stream?events=x", "/stream?every=-1", "/late-set", "/panic", "/big?bytes=-5", "/sessions"} {
		if r := b.get(path); r.Status != http.StatusBadRequest || r.Error == "" {
			t.Errorf("GET %s: %d %s", path, r.Status, r.Body)
		}
	}
	if r := b.get("/info"); r.Placement != "none" {
		t.Errorf("then %s", r.Body)
	}
}

func TestUnknownEndpointsAndMethodsAreNotFound(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	if r := b.get("/nothing"); r.Status != http.StatusNotFound || r.Error == "" {
		t.Errorf("GET /nothing: %d %s", r.Status, r.Body)
	}
	if r := b.get("/set?key=k&value=v"); r.Status != http.StatusNotFound || r.Error == "" {
		t.Errorf("GET /set: %d %s", r.Status, r.Body)
	}
}

func TestAValueOverTheLimitIsRefusedAndLeavesTheSessionAsItWas(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args       []string
		fits, over int
	}{
		"stored": {[]string{"-insecure"}, 1<<20 - 200, 1 << 20},
		"cookie": {[]string{"-insecure", "-store", "none"}, 1200, 4000},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBrowser(t, startInside(t, tt.args...))
			b.mustPost("/set?key=k&value=small")
			if r := b.post(fmt.Sprintf("/set?key=k&size=%d", tt.over)); r.Status != http.StatusRequestEntityTooLarge {
				t.Errorf("%d bytes: %d %s", tt.over, r.Status, r.Body)
			}
			if r := b.get("/get?key=k"); r.Text() != "small" {
				t.Errorf("then %.100s", r.Body)
			}
			b.mustPost(fmt.Sprintf("/set?key=k&size=%d", tt.fits))
			if r := b.get("/get?key=k"); len(r.Text()) != tt.fits {
				t.Errorf("%d bytes came back as %d", tt.fits, len(r.Text()))
			}
		})
	}
}

func TestWithoutAStoreAServerSideValueIsRefused(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure", "-store", "none"))
	if r := b.post("/set-serverside?key=k&value=v"); r.Status != 500 || r.Error == "" {
		t.Errorf("got %d %s", r.Status, r.Body)
	}
	if r := b.mustPost("/login?user=ada"); r.Handle == "" {
		t.Errorf("login: %s", r.Body)
	}
	if r := b.get("/info"); r.Placement != "inline" || r.User != "ada" {
		t.Errorf("info: %s", r.Body)
	}
}

func TestCookiesAreSecureUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args   []string
		prefix string
		secure bool
	}{
		"default":  {nil, "__Host-session", true},
		"insecure": {[]string{"-insecure"}, "session", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBrowser(t, startInside(t, tt.args...))
			r := b.mustPost("/login?user=ada")
			line := r.Header.Get("Set-Cookie")
			if !strings.HasPrefix(line, tt.prefix+"=") || strings.Contains(line, "; Secure") != tt.secure {
				t.Errorf("Set-Cookie: %s", line)
			}
		})
	}
}

func TestHTTP2WithoutTLS(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	b.HTTP.Transport = transport
	b.mustPost("/set-serverside?key=k&value=v")
	together(16, func(int) { b.mustPost("/incr?key=n&delay=5") })
	if r := b.get("/get?key=n"); r.Text() != "16" {
		t.Errorf("got %s", r.Body)
	}
	if r := b.get("/stream?events=2&every=1"); r.Body != "data: 0\n\ndata: 1\n\n" {
		t.Errorf("stream: %q", r.Body)
	}
}

// downStore is a store that cannot be reached.
type downStore struct{}

var errDown = errors.New("connection refused")

func (downStore) Load(context.Context, store.ID) (store.Record, error) {
	return store.Record{}, errDown
}
func (downStore) Save(context.Context, store.Record, store.Base) error { return errDown }

func (downStore) Delete(context.Context, store.ID, time.Time) error { return errDown }

// serveOn serves a probe on a store, and returns its address.
func serveOn(t *testing.T, s store.Store) (base string) {
	t.Helper()
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProbe(sojourn.Config{
		Keys: keys, Store: s, Cookie: sojourn.Cookie{Insecure: true}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(p.handler())
	t.Cleanup(server.Close)
	return server.URL
}

func TestAnUnreachableStoreIs503(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, serveOn(t, downStore{}))
	for _, path := range []string{"/set-serverside?key=k&value=v", "/login?user=ada"} {
		r := b.post(path)
		if r.Status != http.StatusServiceUnavailable || r.Error == "" || len(r.Header["Set-Cookie"]) > 0 {
			t.Errorf("%s: %d %s, cookies %v", path, r.Status, r.Body, r.Header["Set-Cookie"])
		}
	}
	if r := b.mustPost("/set?key=k&value=v"); !r.OK {
		t.Errorf("a session in the cookie needs no store: %s", r.Body)
	}
}

// failing is a store whose loads or saves can be made to fail.
type failing struct {
	store.Store
	load, save atomic.Pointer[error]
}

func (f *failing) Load(ctx context.Context, id store.ID) (store.Record, error) {
	if err := f.load.Load(); err != nil {
		return store.Record{}, *err
	}
	return f.Store.Load(ctx, id)
}

func (f *failing) Save(ctx context.Context, rec store.Record, base store.Base) error {
	if err := f.save.Load(); err != nil {
		return *err
	}
	return f.Store.Save(ctx, rec, base)
}

func TestTheAnswerSaysWhetherItIsUnknownThatAChangeWasKept(t *testing.T) {
	t.Parallel()
	db := &failing{Store: memory.New()}
	b := newBrowser(t, serveOn(t, db))
	b.mustPost("/set-serverside?key=k&value=v")
	full, down := store.ErrTooLarge, errDown
	for _, tt := range []struct {
		name       string
		load, save *error
		path       string
		status     int
		unknown    bool
	}{
		{"a save without an answer", nil, &down, "/incr?key=n", 503, true},
		{"the same without Save in the handler", nil, &down, "/set?key=k&value=w", 503, true},
		{"a load without an answer", &down, nil, "/incr?key=n", 503, false},
		{"a save that the store refuses", nil, &full, "/incr?key=n", 413, false},
		{"a parameter that is missing", nil, nil, "/incr", 400, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			db.load.Store(tt.load)
			db.save.Store(tt.save)
			if r := b.copied().post(tt.path); r.Status != tt.status || r.Error == "" || r.Unknown != tt.unknown {
				t.Errorf("%d %s, want %d and unknown %v", r.Status, r.Body, tt.status, tt.unknown)
			}
		})
	}
}
