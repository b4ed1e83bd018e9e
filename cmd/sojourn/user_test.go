package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
)

// onEveryStore runs f on SQLite and on real servers.
func onEveryStore(t *testing.T, f func(t *testing.T, c call, s *service)) {
	t.Helper()
	urls, c := engines(t)
	for name, url := range urls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, c, newServiceOn(t, url, sojourn.Config{}))
		})
	}
}

// of are the arguments for a command about a user of that service.
func (s *service) of(command, user string, more ...string) []string {
	return append([]string{"user", command, user, "--store", s.store, "--keys", s.keys}, more...)
}

type endedJSON struct {
	Ended  int  `json:"ended"`
	DryRun bool `json:"dry_run"`
}

// live returns how many sessions of that user are live.
func (s *service) live(t *testing.T, user string) int {
	t.Helper()
	infos, err := s.sessions.Sessions(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return len(infos)
}

func login(user string) func(*sojourn.Session) {
	return func(session *sojourn.Session) { session.Login(user) }
}

// comesBack fails the test unless a request with those cookies is logged in as that user.
func (s *service) comesBack(t *testing.T, cookies, want string) {
	t.Helper()
	if got := s.whoComes(t, cookies); got != want {
		t.Errorf("who comes back is %q, want %q", got, want)
	}
}

// whoComes is the user of a request with those cookies.
func (s *service) whoComes(t *testing.T, cookies string) string {
	t.Helper()
	session, _, err := sitetest.Begin(t.Context(), s.sessions, http.Header{"Cookie": {cookies}})
	if err != nil {
		t.Fatal(err)
	}
	return session.User()
}

func TestAUsersSessionsAreListedExportedRevokedAndErased(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, c call, s *service) {
		one, _ := s.visit(t, func(session *sojourn.Session) {
			session.Login("ada", "pwd")
			session.Set("n", 7)
			session.Set("name", "Ada")
			session.Set("raw", []byte{0, 255})
			session.Set("list", []any{"a", map[string]any{"at": time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC)}})
			session.Flash("info", "hello")
		})
		two, _ := s.visit(t, login("ada"))
		s.visit(t, login("bob"))

		var list []struct{ Handle, User string }
		if err := json.Unmarshal([]byte(c.run(t, s.of("list", "ada", "--json")...).ok(t).stdout), &list); err != nil {
			t.Fatal(err)
		}
		var handles []string
		for _, one := range list {
			handles = append(handles, one.Handle)
			if one.User != "ada" {
				t.Errorf("listed is %+v", one)
			}
		}
		slices.Sort(handles)
		want := []string{one, two}
		if slices.Sort(want); !slices.Equal(handles, want) {
			t.Errorf("listed are %v, want %v", handles, want)
		}
		if r := c.run(t, s.of("list", "ada")...).ok(t); strings.Count(r.stdout, "\n") != 3 {
			t.Errorf("as text: %s", r.stdout)
		}

		exported := c.run(t, s.of("export", "ada")...).ok(t).stdout
		type export struct {
			Handle  string              `json:"handle"`
			Methods []string            `json:"methods"`
			Values  map[string]any      `json:"values"`
			Flashes []map[string]string `json:"flashes"`
		}
		var sessions []export
		if err := json.Unmarshal([]byte(exported), &sessions); err != nil || len(sessions) != 2 {
			t.Fatalf("%v in %s", err, exported)
		}
		i := slices.IndexFunc(sessions, func(s export) bool { return s.Handle == one })
		got, _ := json.Marshal(sessions[i].Values)
		if want := `{"list":["a",{"at":"2026-11-20T15:00:00.000Z"}],"n":7,"name":"Ada","raw":"AP8="}`; string(got) != want {
			t.Errorf("exported is %s, want %s", got, want)
		}
		if want := map[string]string{"level": "info", "text": "hello"}; len(sessions[i].Flashes) != 1 || !maps.Equal(sessions[i].Flashes[0], want) {
			t.Errorf("messages: %v, want %v", sessions[i].Flashes, want)
		}
		if !slices.Equal(sessions[i].Methods, []string{"pwd"}) {
			t.Errorf("methods: %v", sessions[i].Methods)
		}

		var n endedJSON
		c.run(t, s.of("revoke", "ada", "--dry-run", "--json", "--keep", one)...).ok(t).json(t, &n)
		if n != (endedJSON{1, true}) || s.live(t, "ada") != 2 {
			t.Errorf("a dry run: %+v, then %d are live", n, s.live(t, "ada"))
		}
		c.run(t, s.of("revoke", "ada", "--json", "--keep", one)...).ok(t).json(t, &n)
		if n != (endedJSON{1, false}) || s.live(t, "ada") != 1 {
			t.Errorf("revoke: %+v, then %d are live", n, s.live(t, "ada"))
		}
		c.run(t, s.of("erase", "ada", "--dry-run", "--json")...).ok(t).json(t, &n)
		if n != (endedJSON{1, true}) || s.live(t, "ada") != 1 {
			t.Errorf("a dry run: %+v, then %d are live", n, s.live(t, "ada"))
		}
		c.run(t, s.of("erase", "ada", "--yes", "--json")...).ok(t).json(t, &n)
		if n != (endedJSON{1, false}) || s.live(t, "ada") != 0 {
			t.Errorf("erase: %+v, then %d are live", n, s.live(t, "ada"))
		}
		id, err := store.ParseID(one)
		if err != nil {
			t.Fatal(err)
		}
		if rec, err := s.database.Load(t.Context(), id); err == nil && (len(rec.Data) > 0 || !rec.IsEnd()) {
			t.Errorf("of an erased session the store has %d bytes", len(rec.Data))
		}
		if s.live(t, "bob") != 1 {
			t.Error("somebody else's session has ended")
		}
		for _, command := range [][]string{{"list"}, {"export"}, {"revoke"}, {"revoke", "--dry-run"}, {"erase", "--yes"}, {"erase", "--dry-run"}} {
			c.run(t, s.of(command[0], "ada", command[1:]...)...).refused(t, exitFailed)
		}
	})
}

func TestEraseAsksFirst(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	s.visit(t, login("ada"))
	sojournCommand(t, s.of("erase", "ada")...).refused(t, exitUsage, "--yes")
	for _, answer := range []string{"", "no\n", "y\n", "yes"} {
		var out, messages strings.Builder
		term := terminal{in: strings.NewReader(answer), out: &out, messages: &messages, typing: true}
		status := run(t.Context(), s.of("erase", "ada"), term)
		if status != exitFailed || !strings.Contains(messages.String(), "Erase 1 session of ada for good?") || !strings.Contains(messages.String(), "nothing was erased") {
			t.Errorf("after %q: exit status %d, %q", answer, status, messages.String())
		}
	}
	if s.live(t, "ada") != 1 {
		t.Fatal("it was erased")
	}
	var out, messages strings.Builder
	term := terminal{in: strings.NewReader("yes\n"), out: &out, messages: &messages, typing: true}
	if status := run(t.Context(), s.of("erase", "ada"), term); status != exitOK || out.String() != "ended 1 session\n" || s.live(t, "ada") != 0 {
		t.Errorf("after yes: exit status %d, %q, %q", status, out.String(), messages.String())
	}
}

func TestMistakesAboutAUser(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	sojournCommand(t, "user", "list").refused(t, exitUsage, "<user>")
	sojournCommand(t, s.of("list", "")...).refused(t, exitUsage, "which user")
	sojournCommand(t, "user", "export", "ada", "--store", s.store).refused(t, exitUsage, "SOJOURN_KEYS")
	sojournCommand(t, "user", "revoke", "ada", "--keys", s.keys).refused(t, exitUsage, "SOJOURN_STORE")
	sojournCommand(t, "user", "erase", "ada", "--store", "sqlite:/missing.db", "--keys", s.keys).refused(t, exitFailed, "/missing.db")
	url := "memcached://" + servers.Memcached(t, 64).Addr + "?timeout=10s"
	sojournCommand(t, "user", "list", "ada", "--store", url, "--keys", s.keys).refused(t, exitFailed, "no index by user")
	sojournCommand(t, "restored", "--store", url).refused(t, exitFailed, "cannot list")
	sojournCommand(t, "restored").refused(t, exitUsage, "SOJOURN_STORE")
	sojournCommand(t, "restored", "--store", s.store, "--before", "noon").refused(t, exitUsage, "--before")
}

func TestAfterARestoreNobodyIsLoggedIn(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, c call, s *service) {
		_, ada := s.visit(t, login("ada"))
		anonymous, _ := s.visit(t, func(session *sojourn.Session) { cart.Set(session, []string{"mug"}) })
		for range 40 {
			s.visit(t, login("bob"))
		}
		// Times are kept to the millisecond.
		restore := time.Now().Add(time.Millisecond)
		for !time.Now().After(restore.Add(time.Millisecond)) {
			<-time.After(time.Millisecond)
		}
		s.visit(t, login("eve"))
		before := restore.UTC().Format(time.RFC3339Nano)

		var n endedJSON
		c.run(t, "restored", "--store", s.store, "--dry-run", "--json").ok(t).json(t, &n)
		if n != (endedJSON{42, true}) || s.live(t, "ada") != 1 {
			t.Errorf("a dry run: %+v, then %d are live", n, s.live(t, "ada"))
		}
		c.run(t, "restored", "--store", s.store, "--before", before, "--json").ok(t).json(t, &n)
		if n != (endedJSON{41, false}) || s.live(t, "ada") != 0 || s.live(t, "bob") != 0 || s.live(t, "eve") != 1 {
			t.Errorf("up to the restore: %+v, then %d, %d and %d are live", n, s.live(t, "ada"), s.live(t, "bob"), s.live(t, "eve"))
		}
		s.comesBack(t, ada, "")
		c.run(t, "restored", "--store", s.store, "--json").ok(t).json(t, &n)
		if n != (endedJSON{1, false}) || s.live(t, "eve") != 0 {
			t.Errorf("all: %+v, then %d are live", n, s.live(t, "eve"))
		}
		// It may be live by a replica's clock.
		now := time.Now()
		late := store.Record{
			ID: store.ID{7}, Version: 1, SaveIDs: []store.SaveID{7}, User: store.UserHash{7}, Data: []byte("values"),
			Created: now.Add(-time.Hour), Seen: now.Add(-time.Hour), Deadline: now.Add(-store.ClockSkew / 3), Expires: now.Add(time.Hour),
		}
		if err := ops.For(s.sessions).Store().Save(t.Context(), late, store.Base{}); err != nil {
			t.Fatal(err)
		}
		c.run(t, "restored", "--store", s.store, "--json").ok(t).json(t, &n)
		if mark, err := ops.For(s.sessions).Store().Load(t.Context(), late.ID); n.Ended != 1 || err != nil || !mark.IsEnd() {
			t.Errorf("one that looks expired: %+v, %v", n, err)
		}
		c.run(t, "restored", "--store", s.store).refused(t, exitFailed)
		if _, err := ops.For(s.sessions).Find(t.Context(), anonymous); err != nil {
			t.Errorf("an anonymous visitor's session: %v", err)
		}
	})
}
