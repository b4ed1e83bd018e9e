package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/open"
	"github.com/sojourn-go/sojourn/store/redis"
)

var count64 = sojourn.NewKey[int]("count", sojourn.ServerSide)

// copied is the output of copy with --json.
type copied struct {
	Pass   int  `json:"pass"`
	DryRun bool `json:"dry_run"`
	tally
}

func copies(t *testing.T, c call, args ...string) (n copied) {
	t.Helper()
	r := c.run(t, append([]string{"copy", "-json"}, args...)...)
	if r.status != exitOK {
		t.Fatalf("copy: %+v", r)
	}
	r.json(t, &n)
	return n
}

func opened(t *testing.T, url string) store.Store {
	t.Helper()
	s, closer, err := open.Store(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = closer.Close() })
	return s
}

// visitor is a visitor with many visits.
type visitor struct {
	*sitetest.Browser
	counted int
	out     bool // logged out
	stolen  *sitetest.Browser
}

func newVisitor(t *testing.T, site *sitetest.Site, name string) *visitor {
	t.Helper()
	v := &visitor{Browser: sitetest.NewBrowser()}
	if a := v.Visit(site, func(s *sojourn.Session) { s.Login(name) }); a.Status != http.StatusOK {
		t.Errorf("login: %d %s", a.Status, a.Body)
	}
	return v
}

func (v *visitor) count(t *testing.T, site *sitetest.Site) {
	t.Helper()
	a := v.Visit(site, func(s *sojourn.Session) { count64.Update(s, func(n int) int { return n + 1 }) })
	if a.Status != http.StatusOK {
		t.Errorf("%d %s", a.Status, a.Body)
		return
	}
	v.counted++
}

func (v *visitor) logout(t *testing.T, site *sitetest.Site) {
	t.Helper()
	v.stolen = v.Steal()
	v.out = true
	if a := v.Visit(site, func(s *sojourn.Session) { s.Logout() }); a.Status != http.StatusOK {
		t.Errorf("logout: %d %s", a.Status, a.Body)
	}
}

// mustBeAt fails unless the site has the visitor's session with all changes,
// or, after a logout, refuses all of the visitor's cookies.
func (v *visitor) mustBeAt(t *testing.T, site *sitetest.Site, name string) {
	t.Helper()
	browser := v.Browser
	if v.out {
		browser = v.stolen
	}
	var user string
	var n int
	a := browser.Visit(site, func(s *sojourn.Session) { user, n = s.User(), count64.Get(s) })
	switch {
	case a.Status != http.StatusOK:
		t.Errorf("%s: %d %s", name, a.Status, a.Body)
	case v.out && (user != "" || n != 0):
		t.Errorf("%s has logged out, and the cookie of before leads to %q with %d", name, user, n)
	case !v.out && (user != name || n != v.counted):
		t.Errorf("%s has counted to %d, and is %q with %d", name, v.counted, user, n)
	}
}

// TestAMoveFromStoreToStoreUnderWrites moves a service's sessions several
// times. Visitors are never affected, even if the command is killed.
func TestAMoveFromStoreToStoreUnderWrites(t *testing.T) {
	t.Parallel()
	urls, c := engines(t)
	back := "sqlite:" + filepath.Join(t.TempDir(), "back.db")
	route := []string{urls["sqlite"], urls["postgres"], urls["redis"], urls["rediscluster"]}
	if urls["datastore"] != "" {
		route = append(route, urls["datastore"])
	}
	route = append(route, back)
	padding(t, route[0], 1000)
	keys := sitetest.Keys(t)
	visitors := map[string]*visitor{}
	for leg := range len(route) - 1 {
		from, to := route[leg], route[leg+1]
		site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Keys: keys, Store: opened(t, from)}))
		for name, v := range visitors {
			v.mustBeAt(t, site, name) // as the leg before has left them
		}
		for name, v := range visitors {
			if v.out {
				delete(visitors, name)
			}
		}
		for i := range 24 {
			name := fmt.Sprintf("visitor-%d-%d", leg, i)
			visitors[name] = newVisitor(t, site, name)
		}
		moveUnderWrites(t, c, site, visitors, leg, from, to)
	}
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Keys: keys, Store: opened(t, back)}))
	for name, v := range visitors {
		v.mustBeAt(t, site, name)
	}
}

// moveUnderWrites makes one pass while visitors come, write and leave, in which
// the command is killed; and a last one after the service has stopped.
func moveUnderWrites(t *testing.T, c call, site *sitetest.Site, visitors map[string]*visitor, leg int, from, to string) {
	t.Helper()
	state := filepath.Join(t.TempDir(), "move.json")

	var mu sync.Mutex // guards visitors
	var stop atomic.Bool
	var writers sync.WaitGroup
	var groups [4][]*visitor
	i := 0
	for _, v := range visitors {
		groups[i%len(groups)] = append(groups[i%len(groups)], v)
		i++
	}
	for w, group := range groups {
		writers.Go(func() {
			for round := 0; !stop.Load(); round++ {
				for i, v := range group {
					switch {
					case v.out:
					case round == 3 && i%4 == 0:
						v.logout(t, site)
					default:
						v.count(t, site)
					}
					<-time.After(5 * time.Millisecond) // the copy continues meanwhile
				}
				if round < 3 {
					name := fmt.Sprintf("late-%d-%d-%d", leg, w, round)
					v := newVisitor(t, site, name)
					group = append(group, v)
					mu.Lock()
					visitors[name] = v
					mu.Unlock()
				}
			}
		})
	}

	args := []string{"copy", "--store", from, "--to", to, "--state", state, "--parallel", "2"}
	killedAt(t, c, state, 200, args...)
	first := copies(t, c, args[1:]...)
	if first.Read < 1000 || first.Pass != 1 {
		t.Errorf("the pass that was resumed: %+v", first)
	}
	stop.Store(true)
	writers.Wait()

	last := copies(t, c, args[1:]...)
	if last.Pass != 2 || last.Inserted >= 1000 {
		t.Errorf("the last pass: %+v", last)
	}
	again := copies(t, c, args[1:]...)
	if again.Inserted+again.Replaced+again.Extended > 0 || again.Kept > 0 {
		t.Errorf("there was something left for one more: %+v", again)
	}
	var counts map[string]int
	for _, url := range []string{from, to} {
		var n map[string]int
		c.run(t, "stats", "-json", "--store", url).ok(t).json(t, &n)
		if counts != nil && (n["live"] != counts["live"] || n["logged_in"] != counts["logged_in"] || n["bytes"] != counts["bytes"]) {
			t.Errorf("the old store has %v, the new one %v", counts, n)
		}
		counts = n
	}
}

// padding puts many unused sessions into a store, so that a pass takes a while.
func padding(t *testing.T, url string, n int) {
	t.Helper()
	s := opened(t, url)
	sitetest.Together(8, func(part int) {
		for i := part; i < n; i += 8 {
			if err := s.Save(t.Context(), plain(fmt.Sprintf("padding-%d", i)), store.Base{}); err != nil {
				t.Error(err)
			}
		}
	})
}

func plain(name string) store.Record {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return store.Record{
		ID: store.HashIdentifier([]byte(name)), Version: 1, SaveIDs: []store.SaveID{1},
		Created: now, Seen: now, Deadline: now.Add(time.Hour), Expires: now.Add(2 * time.Hour), Data: []byte("sealed"),
	}
}

// killedAt starts the command and kills it once its state shows that many read
// records.
func killedAt(t *testing.T, c call, state string, read int, args ...string) {
	t.Helper()
	path, err := buildCommand()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append([]string{"PATH=/nowhere"}, c.env...)
	cmd.Stderr = io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.NewTimer(5 * time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for stateOf(state).Current == nil || stateOf(state).Current.Tally.Read < read {
		if stateOf(state).Passes > 0 {
			break
		}
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatal("the copy gets nowhere")
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if m := stateOf(state); m.Passes > 0 || m.Current == nil || m.Current.Cursor == "" {
		t.Fatalf("it was killed too late: %+v", m)
	}
}

// stateOf reads a state file, which is always complete, or does not exist yet.
func stateOf(path string) moveState {
	var m moveState
	if b, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(b, &m)
	}
	return m
}

// move is a pair of stores in files, and the arguments for copying between them.
type move struct {
	from, to store.Store
	args     []string
	call     call
}

func newMove(t *testing.T) *move {
	t.Helper()
	dir := t.TempDir()
	from, to := "sqlite:"+filepath.Join(dir, "from.db"), "sqlite:"+filepath.Join(dir, "to.db")
	return &move{from: opened(t, from), to: opened(t, to), args: []string{"--store", from, "--to", to, "--state", filepath.Join(dir, "move.json")}}
}

func (m *move) copies(t *testing.T, args ...string) copied {
	t.Helper()
	return copies(t, m.call, append(m.args, args...)...)
}

func (m *move) refused(t *testing.T, status int, says string, args ...string) {
	t.Helper()
	m.call.run(t, append(append([]string{"copy"}, m.args...), args...)...).refused(t, status, says)
}

func (m *move) save(t *testing.T, s store.Store, rec store.Record, base store.Base) store.Record {
	t.Helper()
	if err := s.Save(t.Context(), rec, base); err != nil {
		t.Fatal(err)
	}
	return rec
}

// next is the record after one more change.
func next(rec store.Record, save store.SaveID) store.Record {
	rec.Version++
	rec.SaveIDs = append([]store.SaveID{save}, rec.SaveIDs...)[:min(len(rec.SaveIDs)+1, store.RecentSaveIDs)]
	rec.Seen = rec.Seen.Add(time.Second)
	rec.Data = []byte(fmt.Sprint("sealed ", save))
	return rec
}

// gone removes a session from a store together with its tombstone, as if both had expired.
func gone(t *testing.T, s store.Store, id store.ID) {
	t.Helper()
	if err := s.Delete(t.Context(), id, time.Now().Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.(store.Sweeper).Sweep(t.Context(), 0, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context(), id); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("it is still there: %v", err)
	}
}

// same fails unless the stores hold the same record.
func (m *move) same(t *testing.T, what string, id store.ID) {
	t.Helper()
	a, err := m.from.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.to.Load(t.Context(), id)
	if got, want := fmt.Sprintf("%+v", b), fmt.Sprintf("%+v", a); err != nil || got != want {
		t.Errorf("%s: got %s %v, want %s", what, got, err, want)
	}
}

func (m *move) live(t *testing.T, id store.ID) bool {
	t.Helper()
	rec, err := m.to.Load(t.Context(), id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil && !rec.IsEnd()
}

func TestACopyIsTheRecordAsItIs(t *testing.T) {
	t.Parallel()
	m := newMove(t)
	rec := plain("a")
	rec.Version, rec.SaveIDs, rec.User = 1234, []store.SaveID{9, 8, 7, 6, 5, 4, 3, 2}, store.UserHash{1, 2, 3}
	m.save(t, m.from, rec, store.Base{})
	if n := m.copies(t); n.Inserted != 1 || n.Read != 1 || n.Pass != 1 {
		t.Errorf("the first pass: %+v", n)
	}
	m.same(t, "inserted", rec.ID)

	after := next(rec, 10)
	after.Deadline, after.Shorten = rec.Deadline.Add(-30*time.Minute), true // SetExpiry
	m.save(t, m.from, after, rec.Base())
	if n := m.copies(t); n.Replaced != 1 {
		t.Errorf("the second pass: %+v", n)
	}
	m.same(t, "replaced", rec.ID)

	for range 20 { // more than there are save IDs
		rec, after = after, next(after, store.SaveID(after.Version+100))
		m.save(t, m.from, after, rec.Base())
	}
	if n := m.copies(t); n.Replaced != 1 {
		t.Errorf("the third pass: %+v", n)
	}
	m.same(t, "replaced after many changes", rec.ID)

	if err := m.from.(store.Toucher).Touch(t.Context(), rec.ID, after.Seen.Add(time.Second), after.Deadline.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n := m.copies(t); n.Extended != 1 || n.Replaced != 0 {
		t.Errorf("the fourth pass: %+v", n)
	}
	m.same(t, "extended", rec.ID)
	if n := m.copies(t); n.Unchanged != 1 || n.Read != 1 {
		t.Errorf("the fifth pass: %+v", n)
	}
}

func TestWhatIsOverIsNotCopied(t *testing.T) {
	t.Parallel()
	m := newMove(t)
	rec := plain("expired")
	rec.Deadline = time.Now().Add(-time.Minute)
	m.save(t, m.from, rec, store.Base{})
	mark := plain("ended")
	mark.Ended, mark.Deadline, mark.Data = time.Now(), time.Now().Add(-time.Second), nil
	m.save(t, m.from, mark, store.Base{})
	if n := m.copies(t); n.Over != 2 || n.Inserted+n.Ended != 0 {
		t.Errorf("got %+v", n)
	}
}

// The new store has the session with its earlier, longer lifetime.
func TestASessionThatWasShortenedAndIsOverIsOverInTheNewStore(t *testing.T) {
	t.Parallel()
	m := newMove(t)
	rec := plain("a")
	m.save(t, m.from, rec, store.Base{})
	m.copies(t)
	after := next(rec, 10)
	after.Deadline, after.Shorten = time.Now().Add(-time.Second), true // SetExpiry, a while ago
	m.save(t, m.from, after, rec.Base())
	if n := m.copies(t); n.Replaced+n.Ended != 1 {
		t.Errorf("the second pass: %+v", n)
	}
	there, err := m.to.Load(t.Context(), rec.ID)
	if err == nil && !there.IsEnd() && !there.Expired(time.Now()) || err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the new store has it until %v, %v", there.Deadline, err)
	}
	if n := m.copies(t); n.Over != 1 || n.Replaced+n.Ended != 0 {
		t.Errorf("the third pass: %+v", n)
	}
}

func TestALogoutInTheOldStoreIsFinalInTheNewOne(t *testing.T) {
	t.Parallel()
	m := newMove(t)
	before, between, long := plain("before"), plain("between"), plain("long ago")
	for _, rec := range []store.Record{before, between, long} {
		m.save(t, m.from, rec, store.Base{})
	}
	until := time.Now().Add(time.Hour)
	if err := m.from.Delete(t.Context(), before.ID, until); err != nil {
		t.Fatal(err)
	}
	m.copies(t)
	if mark, err := m.to.Load(t.Context(), before.ID); err != nil || !mark.IsEnd() || mark.Deadline.Before(until.Add(-time.Second)) {
		t.Errorf("ended before the pass: %+v %v", mark, err)
	}
	if !m.live(t, between.ID) || !m.live(t, long.ID) {
		t.Fatal("the others were not copied")
	}
	if err := m.from.Delete(t.Context(), between.ID, until); err != nil {
		t.Fatal(err)
	}
	gone(t, m.from, long.ID)
	if n := m.copies(t); n.Ended != 2 {
		t.Errorf("the second pass: %+v", n)
	}
	for name, id := range map[string]store.ID{"with its mark": between.ID, "its mark gone": long.ID} {
		if m.live(t, id) {
			t.Errorf("ended between the passes, %s: it lives", name)
		}
		// A late request does not restore it either.
		rec := plain("late")
		rec.ID, rec.SaveIDs = id, []store.SaveID{99}
		if err := m.to.Save(t.Context(), rec, store.Base{}); !errors.Is(err, store.ErrConflict) {
			t.Errorf("a late save: %v", err)
		}
	}
}

func TestAfterTheSwitchTheServicesChangesStay(t *testing.T) {
	t.Parallel()
	m := newMove(t)
	recs := map[string]store.Record{}
	for _, name := range []string{"untouched", "changed there", "changed here", "changed in both", "changed often in both", "ended there", "ended here", "left"} {
		recs[name] = m.save(t, m.from, plain(name), store.Base{})
	}
	m.copies(t)
	// The replicas switch one by one.
	for i, name := range []string{"changed here", "changed in both"} {
		was := recs[name]
		m.save(t, m.from, next(was, store.SaveID(100+i)), was.Base())
	}
	for was, i := recs["changed often in both"], 0; i < 2*store.RecentSaveIDs; i++ {
		was = m.save(t, m.from, next(was, store.SaveID(300+i)), was.Base())
	}
	for i, name := range []string{"changed there", "changed in both", "changed often in both"} {
		was := recs[name]
		m.save(t, m.to, next(was, store.SaveID(200+i)), was.Base())
	}
	if err := m.from.Delete(t.Context(), recs["ended here"].ID, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	gone(t, m.to, recs["ended there"].ID)
	gone(t, m.from, recs["left"].ID) // expires here, and goes on there
	fresh := plain("new here")
	fresh.Created = time.Now().UTC().Add(time.Second)
	m.save(t, m.from, fresh, store.Base{})
	there := plain("new there")
	there.Seen = there.Seen.Add(2 * time.Minute) // used for a while
	m.save(t, m.to, there, store.Base{})

	m.refused(t, exitFailed, "--switched")
	if !m.live(t, there.ID) || !m.live(t, recs["left"].ID) {
		t.Error("the pass that was refused has ended sessions")
	}
	n := m.copies(t, "--switched")
	if n.Inserted != 1 || n.Replaced != 1 || n.Ended != 1 || n.Kept != 4 || n.Unchanged != 1 {
		t.Errorf("got %+v", n)
	}
	m.same(t, "new here", fresh.ID)
	m.same(t, "changed here", recs["changed here"].ID)
	for _, name := range []string{"changed there", "changed in both", "changed often in both"} {
		if got, err := m.to.Load(t.Context(), recs[name].ID); err != nil || got.SaveIDs[0] < 200 || got.SaveIDs[0] >= 300 {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	for name, want := range map[string]bool{"ended here": false, "ended there": false, "left": true} {
		if m.live(t, recs[name].ID) != want {
			t.Errorf("%s: live is %v", name, !want)
		}
	}
	if !m.live(t, there.ID) {
		t.Error("a session of the service in the new store was ended")
	}
	m.refused(t, exitUsage, "--switched")
	if n := m.copies(t, "--switched"); n.Inserted+n.Replaced+n.Extended != 0 {
		t.Errorf("once more: %+v", n)
	}
}

func TestACopyRefusesANewStoreThatIsInUse(t *testing.T) {
	t.Parallel()
	m := newMove(t)
	m.save(t, m.from, plain("a"), store.Base{})
	foreign := m.save(t, m.to, plain("b"), store.Base{})
	m.refused(t, exitFailed, "no pass has put there")
	if !m.live(t, foreign.ID) || m.live(t, plain("a").ID) {
		t.Error("something was changed")
	}
}

func TestACopyRefusesToReplaceWhatSomebodyElseHasChanged(t *testing.T) {
	t.Parallel()
	m := newMove(t)
	rec := m.save(t, m.from, plain("a"), store.Base{})
	m.copies(t)
	m.save(t, m.to, next(rec, 7), rec.Base())
	m.refused(t, exitFailed, "--switched")
}

func TestADryRunChangesNothing(t *testing.T) {
	t.Parallel()
	m := newMove(t)
	rec := m.save(t, m.from, plain("a"), store.Base{})
	if n := m.copies(t, "--dry-run"); n.Inserted != 1 || !n.DryRun || m.live(t, rec.ID) {
		t.Errorf("of the first pass: %+v", n)
	}
	if _, err := os.Stat(m.args[5]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state: %v", err)
	}
	missing := filepath.Join(t.TempDir(), "missing.db")
	if n := copies(t, call{}, "--store", m.args[1], "--to", "sqlite:"+missing, "--dry-run"); n.Inserted != 1 {
		t.Errorf("to a store that is not there: %+v", n)
	}
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the store: %v", err)
	}
	m.copies(t)
	before, err := os.ReadFile(m.args[5])
	if err != nil {
		t.Fatal(err)
	}
	gone(t, m.from, rec.ID)
	if n := m.copies(t, "--dry-run"); n.Ended != 1 || !m.live(t, rec.ID) {
		t.Errorf("of the second pass: %+v", n)
	}
	if after, err := os.ReadFile(m.args[5]); err != nil || string(after) != string(before) {
		t.Errorf("the state is now %s %v", after, err)
	}
}

func TestMistakesInACopy(t *testing.T) {
	t.Parallel()
	m := newMove(t)
	m.save(t, m.from, plain("a"), store.Base{})
	from, to := m.args[1], m.args[3]
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	memcached := "memcached://" + servers.Memcached(t, 64).Addr
	state := m.args[4:]
	for _, tt := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--store", from}, exitUsage, "to"},
		{[]string{"--store", from, "--to", to}, exitUsage, "--state"},
		{append([]string{"--store", from, "--to", from}, state...), exitUsage, "same store"},
		{append([]string{"--store", from, "--to", "floppy:b"}, state...), exitUsage, "--to: "},
		{append([]string{"--store", "floppy:a", "--to", to}, state...), exitUsage, "--store: "},
		{append([]string{"--store", from, "--to", to, "--switched"}, state...), exitUsage, "no pass has been finished"},
		{append([]string{"--store", from, "--to", to, "--parallel", "0"}, state...), exitUsage, "--parallel"},
		{[]string{"--store", from, "--to", to, "--state", bad}, exitFailed, "is not the state of a copy"},
		{[]string{"--store", from, "--to", to, "--state", filepath.Join(bad, "x")}, exitFailed, "--state"},
		{append([]string{"--store", from + ".none", "--to", to}, state...), exitFailed, "no such store"},
		{append([]string{"--store", from, "--to", "postgres://root:hunter2@127.0.0.1:1/app"}, state...), exitFailed, "--to: "},
		{append([]string{"--store", memcached, "--to", to}, state...), exitFailed, "the old store cannot list"},
		{append([]string{"--store", from, "--to", memcached}, state...), exitFailed, "the new store cannot list"},
	} {
		r := sojournCommand(t, append([]string{"copy"}, tt.args...)...)
		if r.refused(t, tt.status, tt.says); strings.Contains(r.stderr, "hunter2") {
			t.Errorf("it repeats the password: %s", r.stderr)
		}
	}
	m.copies(t)
	copyArgs := append([]string{"copy", "--store", from, "--to", to + ".other"}, state...)
	sojournCommand(t, copyArgs...).refused(t, exitUsage, "belongs to a copy")
}

func TestTheStateHoldsNoPassword(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"sqlite:data/a@b.db":                                          "sqlite:data/a@b.db",
		"postgres://u:hunter2@h:1/db?sslmode=disable":                 "postgres://h:1/db?sslmode=disable",
		"postgres://u:hun@ter2@h/db?password=hunter2&table=x":         "postgres://h/db?table=x",
		"redissentinel://:hunter2@a,b/m?sentinel_password=hunter2":    "redissentinel://a,b/m",
		"rediscluster://a:1,b:2?prefix=p%3A":                          "rediscluster://a:1,b:2?prefix=p%3A",
		"postgres://h/db?passfile=hunter2&sslpassword=hunter2&table=": "postgres://h/db?table=",
	} {
		if got := storeName(url); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
}

// moody is a store whose servers change during a walk, and that refuses large
// records.
type moody struct {
	store.Store
	pages   int
	changes int // how often the servers change, each time after the first page
}

func (m *moody) Scan(ctx context.Context, cursor string, _ int) ([]store.Record, string, error) {
	if cursor != "" && m.changes > 0 {
		m.changes--
		return nil, "", redis.ErrScanCursor
	}
	m.pages++
	return m.Store.(store.Scanner).Scan(ctx, cursor, 2)
}

func (m *moody) Save(ctx context.Context, rec store.Record, base store.Base) error {
	if len(rec.Data) > 100 {
		return store.ErrTooLarge
	}
	return m.Store.Save(ctx, rec, base)
}

// passOf makes a first pass between two stores in this process.
func passOf(t *testing.T, from, to store.Store) (tally, string, error) {
	t.Helper()
	var messages strings.Builder
	p := &pass{
		from: from, to: to, move: &moveState{}, parallel: 4,
		keep: func() error { return nil }, term: terminal{messages: &messages},
	}
	err := p.run(t.Context(), false)
	return p.count, messages.String(), err
}

func TestAWalkBeginsAgainWhenTheServersChange(t *testing.T) {
	t.Parallel()
	for changes, works := range map[int]bool{1: true, restarts: true, restarts + 1: false} {
		from, to := &moody{Store: memory.New(), changes: changes}, memory.New()
		for i := range 7 {
			if err := from.Save(t.Context(), plain(fmt.Sprint(i)), store.Base{}); err != nil {
				t.Fatal(err)
			}
		}
		_, says, err := passOf(t, from, to)
		if works != (err == nil) || !strings.Contains(says, "begins again") {
			t.Errorf("%d changes: %v, %q", changes, err, says)
		}
		if counts, err := to.Count(t.Context()); works && (err != nil || counts.Live != 7) {
			t.Errorf("%d changes: %+v %v", changes, counts, err)
		}
	}
}

func TestAPassGoesOnWhereItWasInterrupted(t *testing.T) {
	t.Parallel()
	from, to := &moody{Store: memory.New()}, memory.New()
	for i := range 10 {
		if err := from.Save(t.Context(), plain(fmt.Sprint(i)), store.Base{}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "move.json")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	for _, ctx := range []context.Context{ctx, t.Context()} {
		state, err := loadMove(path, "from", "to")
		if err != nil {
			t.Fatal(err)
		}
		p := &pass{from: from, to: to, move: state, parallel: 1, term: terminal{messages: io.Discard}}
		p.keep = func() error {
			if from.pages == 3 {
				interrupt()
			}
			return state.save(path)
		}
		if err := p.run(ctx, false); (err != nil) != (ctx.Err() != nil) {
			t.Fatal(err)
		}
	}
	if counts, err := to.Count(t.Context()); err != nil || counts.Live != 10 {
		t.Errorf("copied %+v %v", counts, err)
	}
	// 10 sessions are 5 pages and perhaps an empty one; the one under way when it
	// was interrupted is asked for again.
	if m := stateOf(path); m.Passes != 1 || m.Last.Read != 10 || from.pages > 7 {
		t.Errorf("%d pages were asked for, %+v", from.pages, m)
	}
}

func TestASessionThatIsTooLargeIsNamedAndTheOthersAreCopied(t *testing.T) {
	t.Parallel()
	from, to := memory.New(), &moody{Store: memory.New()}
	large := plain("large")
	large.Data = make([]byte, 200)
	for _, rec := range []store.Record{plain("a"), large, plain("b")} {
		if err := from.Save(t.Context(), rec, store.Base{}); err != nil {
			t.Fatal(err)
		}
	}
	n, says, err := passOf(t, from, to)
	if err != nil || n.Inserted != 2 || n.TooLarge != 1 || !strings.Contains(says, large.ID.String()) {
		t.Errorf("got %+v %v, %q", n, err, says)
	}
}
