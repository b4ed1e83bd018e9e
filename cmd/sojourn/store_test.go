package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/store"
)

var cart = sojourn.NewKey[[]string]("cart", sojourn.ServerSide)

// rowJSON is the documented form of a row.
type rowJSON struct {
	Handle   string     `json:"handle"`
	State    string     `json:"state"`
	Version  uint64     `json:"version"`
	LoggedIn bool       `json:"logged_in"`
	User     *string    `json:"user"`
	Created  *time.Time `json:"created"`
	LastSeen *time.Time `json:"last_seen"`
	Deadline *time.Time `json:"deadline"`
	Expires  *time.Time `json:"expires"`
	Ended    *time.Time `json:"ended"`
	Bytes    int        `json:"bytes"`
	Key      string     `json:"key"`
}

func listed(t *testing.T, args ...string) []rowJSON {
	t.Helper()
	var rows []rowJSON
	sojournCommand(t, append([]string{"ls", "-json"}, args...)...).ok(t).json(t, &rows)
	return rows
}

func handles(rows []rowJSON) []string {
	var h []string
	for _, r := range rows {
		h = append(h, r.Handle)
	}
	return h
}

func TestLsListsLiveSessions(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	ada, _ := s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	anonymous, _ := s.visit(t, func(session *sojourn.Session) { cart.Set(session, []string{"mug"}) })
	s.keep(t, "expired", over(time.Minute))
	s.keep(t, "ended", ended)

	rows := listed(t, "--store", s.store)
	if len(rows) != 2 || !slices.Contains(handles(rows), ada) || !slices.Contains(handles(rows), anonymous) {
		t.Fatalf("got %v, want %s and %s", handles(rows), ada, anonymous)
	}
	for _, r := range rows {
		if r.State != "live" || r.Version != 1 || r.LoggedIn != (r.Handle == ada) || r.Bytes == 0 || len(r.Key) != 8 ||
			r.Created == nil || r.LastSeen == nil || r.Deadline == nil || r.Expires == nil || r.Ended != nil {
			t.Errorf("got %+v", r)
		}
	}
	text := sojournCommand(t, "ls", "--store", s.store).ok(t).stdout
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "HANDLE") || !strings.Contains(text, ada) {
		t.Errorf("as text: %s", text)
	}
	if strings.Contains(text, "ada ") {
		t.Errorf("the user's name is there without keys: %s", text)
	}
}

func TestLsAllListsWhatIsOverToo(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	want := map[string]string{
		s.keep(t, "live", func(*store.Record) {}): "live",
		s.keep(t, "expired", over(time.Minute)):   "expired",
		s.keep(t, "ended", ended):                 "ended",
	}
	rows := listed(t, "--all", "--store", s.store)
	if len(rows) != len(want) {
		t.Errorf("got %d sessions", len(rows))
	}
	for _, r := range rows {
		if want[r.Handle] != r.State || (r.Ended != nil) != (r.State == "ended") {
			t.Errorf("got %+v, want %s", r, want[r.Handle])
		}
	}
}

func TestLsOfAUser(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{Name: "staff"})
	phone, _ := s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	laptop, _ := s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	s.visit(t, func(session *sojourn.Session) { session.Login("grace") })
	got := handles(listed(t, "--user", "ada", "--store", s.store, "--keys", s.keys, "--name", "staff"))
	if len(got) != 2 || !slices.Contains(got, phone) || !slices.Contains(got, laptop) {
		t.Errorf("got %v, want %s and %s", got, phone, laptop)
	}
	sojournCommand(t, "ls", "--user", "ada", "--store", s.store).refused(t, exitUsage, "--keys")
}

func TestLsSortsAUsersSessionsByLastUse(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	ada, _ := s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	id, err := store.ParseID(ada)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := s.database.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 4 {
		want = append(want, s.keep(t, fmt.Sprint(i), func(r *store.Record) {
			r.User, r.Seen = rec.User, rec.Seen.Add(-time.Duration(i+1)*time.Minute)
		}))
	}
	var rows []rowJSON
	r := sojournCommand(t, "ls", "--json", "--user", "ada", "--store", s.store, "--keys", s.keys)
	if r.json(t, &rows); r.status != exitOK || !slices.Equal(handles(rows), append([]string{ada}, want...)) {
		t.Errorf("got %v, want %v; %s", handles(rows), want, r.stderr)
	}
}

func TestLsStopsAtItsLimitAndSaysSo(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	for i := range 120 {
		s.keep(t, fmt.Sprint(i), func(*store.Record) {})
	}
	r := sojournCommand(t, "ls", "-json", "--store", s.store)
	var rows []rowJSON
	r.json(t, &rows)
	if len(rows) != 100 || !strings.Contains(r.stderr, "--limit 0") || r.status != exitOK {
		t.Errorf("%d rows, stderr %q", len(rows), r.stderr)
	}
	if rows := listed(t, "--limit", "0", "--store", s.store); len(rows) != 120 {
		t.Errorf("all are %d", len(rows))
	}
	if rows := listed(t, "--limit", "120", "--store", s.store); len(rows) != 120 {
		t.Errorf("exactly as many as there are: %d", len(rows))
	}
}

func TestLsOfNothing(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	if r := sojournCommand(t, "ls", "--store", s.store).ok(t); r.stdout != "no sessions\n" {
		t.Errorf("as text: %q", r.stdout)
	}
	if r := sojournCommand(t, "ls", "-json", "--store", s.store).ok(t); r.stdout != "[]\n" {
		t.Errorf("as JSON: %q", r.stdout)
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	// The name contains what neither a handle nor a key's number can contain.
	handle, _ := s.visit(t, func(session *sojourn.Session) { session.Login("Ada L.") })
	var r rowJSON
	sojournCommand(t, "show", handle, "-json", "-store", s.store).ok(t).json(t, &r)
	if r.Handle != handle || r.State != "live" || !r.LoggedIn {
		t.Errorf("got %+v", r)
	}
	text := sojournCommand(t, "show", handle, "--store", s.store).ok(t).stdout
	if !strings.Contains(text, handle) || !strings.Contains(text, "in 7 days") || strings.Contains(text, "Ada L.") {
		t.Errorf("got %s", text)
	}
	mark := s.keep(t, "ended", ended)
	if text := sojournCommand(t, "show", mark, "--store", s.store).ok(t).stdout; !strings.Contains(text, "tombstone kept until") {
		t.Errorf("a tombstone: %s", text)
	}
	sojournCommand(t, "show", "HANDLE", "--store", s.store).refused(t, exitUsage, "not a handle")
}

func TestStatsCountsByKind(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	s.visit(t, func(session *sojourn.Session) { cart.Set(session, []string{"mug"}) })
	s.keep(t, "expired", over(time.Minute))
	s.keep(t, "ended", ended)
	var counts map[string]int
	sojournCommand(t, "stats", "-json", "--store", s.store).ok(t).json(t, &counts)
	if counts["live"] != 2 || counts["logged_in"] != 1 || counts["expired"] != 1 || counts["ended"] != 1 || counts["bytes"] < 100 || len(counts) != 5 {
		t.Errorf("got %v", counts)
	}
	if text := sojournCommand(t, "stats", "--store", s.store).ok(t).stdout; !strings.Contains(text, "logged in") {
		t.Errorf("as text: %s", text)
	}
}

func TestSweepRemovesWhatHasBeenOverForLongEnough(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	s.keep(t, "live", func(*store.Record) {})
	s.keep(t, "just expired", over(10*time.Minute))
	for i := range 700 { // more than one batch
		s.keep(t, fmt.Sprint("old", i), over(2*time.Hour))
	}
	removed := func(args ...string) int {
		var r map[string]int
		sojournCommand(t, append([]string{"sweep", "-json", "--store", s.store}, args...)...).ok(t).json(t, &r)
		return r["removed"]
	}
	if n := removed("--age", "3h"); n != 0 {
		t.Errorf("over for three hours: %d", n)
	}
	if n := removed(); n != 700 {
		t.Errorf("over for an hour: %d", n)
	}
	if n := removed("--age", "1m"); n != 1 {
		t.Errorf("over for a minute: %d", n)
	}
	if text := sojournCommand(t, "sweep", "--store", s.store).ok(t).stdout; text != "removed 0 records\n" {
		t.Errorf("as text: %q", text)
	}
	if rows := listed(t, "--all", "--store", s.store); len(rows) != 1 {
		t.Errorf("left: %v", rows)
	}
}

func TestProgressIsShownToSomebodyWhoWatches(t *testing.T) {
	t.Parallel()
	for _, watching := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var screen strings.Builder
			p := newProgress(terminal{messages: &screen, watching: watching}, "record", "removed")
			p.add(500)
			time.Sleep(time.Second)
			p.add(500)
			if got, want := screen.String(), "\r1000 records removed "; watching && got != want {
				t.Errorf("after a second: %q", got)
			}
			p.done()
			if !watching && screen.Len() > 0 {
				t.Errorf("nobody watches, and it prints %q", screen.String())
			}
		})
	}
}

// uncounted is a store without a quick way to count.
type uncounted struct {
	store.Store
	store.Scanner
}

func TestStatsCountsForAStoreThatCannot(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	s.keep(t, "expired", over(time.Minute))
	s.keep(t, "ended", ended)
	want, err := s.database.(store.Counter).Count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := count(t.Context(), uncounted{s.database, s.database.(store.Scanner)}, terminal{})
	if err != nil || got != want {
		t.Errorf("got %+v %v, want %+v", got, err, want)
	}
}

func TestAServiceMayUseTheStoreMeanwhile(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{Mode: sojourn.StoredOnly})
	visits := sojourn.NewKey[int]("visits")
	handle, _ := s.visit(t, func(session *sojourn.Session) { visits.Set(session, 1) })
	var before, after rowJSON
	sojournCommand(t, "show", handle, "-json", "--store", s.store).ok(t).json(t, &before)
	s.visit(t, func(session *sojourn.Session) { visits.Set(session, 1) })
	sojournCommand(t, "show", handle, "-json", "--store", s.store).ok(t).json(t, &after)
	if a, b := mustJSON(t, before), mustJSON(t, after); a != b {
		t.Errorf("looking has changed it from %s to %s", a, b)
	}
	if n := len(listed(t, "--store", s.store)); n != 2 {
		t.Errorf("%d sessions", n)
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
