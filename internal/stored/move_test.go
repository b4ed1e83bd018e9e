package stored

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/store"
)

func nothing(*draft.Draft) {}

func TestALoginMovesASession(t *testing.T) {
	for name, test := range map[string]struct {
		before func(*rig) *State
		do     func(*draft.Draft)
		ends   bool
		want   string // in the new session
		old    string // how the old one has ended; "" = it was not stored
	}{
		"from nowhere":       {func(*rig) *State { return Nothing }, set("a", "1"), false, "a=1", ""},
		"from the store":     {func(g *rig) *State { return g.put("", "a=1 b=2") }, set("a", "9"), true, "a=9 b=2", "over: replaced"},
		"from a user's":      {func(g *rig) *State { return g.put("ada", "a=1") }, nothing, true, "a=1", "over: replaced"},
		"values are removed": {func(g *rig) *State { return g.put("eve", "a=1") }, func(d *draft.Draft) { d.Clear(); set("b", "1")(d) }, true, "b=1", "over: replaced"},
		"from a cookie":      {func(*rig) *State { return inline(1, "a=1") }, set("b", "2"), true, "a=1 b=2", "over: replaced"},
		"after a logout":     {func(g *rig) *State { return g.put("eve", "a=1") }, func(d *draft.Draft) { d.Start(&Nothing.Rec); set("b", "1")(d) }, false, "b=1", "a=1"},
		"a value is taken":   {func(g *rig) *State { return g.put("", "a=1 b=2") }, take("a"), true, "b=2", "over: replaced"},
		"a value is counted": {func(g *rig) *State { return g.put("", "a=1") }, update("a", more), true, "a=1x", "over: replaced"},
		"of a cookie's session": {func(g *rig) *State {
			st := inline(1, "a=1")
			_, err := g.save(g.other, change(st, set("b", "2"))) // another request has stored it
			g.must(err)
			return st
		}, set("c", "3"), true, "a=1 b=2 c=3", "over: replaced"},
		"of one that moved on without the cookie": {func(g *rig) *State {
			st := inline(1, "a=1")
			_, err := g.save(g.other, change(st, set("b", "2")))
			g.must(err)
			time.Sleep(10 * time.Minute)
			return st
		}, set("c", "3"), true, "a=1 c=3", "a=1 b=2"},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			st := test.before(g)
			m := login(st, "ada", test.do)
			m.Ends = test.ends
			m.Visit = Visit{"agent", "::1"}
			carried := 0
			g.Carry = func(to, _ *record.Header) { carried++; to.Legacy = "there" }
			got, err := g.Move(g.ctx(), m)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			h := got.Rec.Header
			if got.ID != m.To.ID || h.User != "ada" || h.UserAgent != "agent" || h.Generation != 0 || h.Legacy != "there" || carried == 0 {
				t.Errorf("%s: %+v", name, h)
			}
			if have := g.values(m.To); have != test.want || text(&got.Rec) != have {
				t.Errorf("%s: %q, want %q", name, have, test.want)
			}
			if test.old != "" && g.values(st.Who) != test.old {
				t.Errorf("%s: the old one is %q, want %q", name, g.values(st.Who), test.old)
			}
			for _, f := range got.Rec.Fields() {
				if f.Stamp != 0 {
					t.Errorf("%s: %s has the stamp of a cookie", name, f.Name)
				}
			}
		})
	}
}

func TestALoginOfSomebodyElseCarriesNothingOfTheHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.Carry = func(*record.Header, *record.Header) { t.Error("it was carried") }
		m := login(g.put("eve", "a=1"), "ada", func(d *draft.Draft) { d.Clear() })
		m.Login.Drop = true
		if _, err := g.Move(g.ctx(), m); err != nil || g.values(m.To) != "" {
			t.Errorf("%v, %q", err, g.values(m.To))
		}
	})
}

// A login either succeeds, or leaves nothing.
func TestALoginThatFailsMidwayIsTakenBack(t *testing.T) {
	tombstone := func(r store.Record) bool { return r.IsEnd() }
	session := func(r store.Record) bool { return !r.IsEnd() }
	for name, test := range map[string]struct {
		fails   func(store.Record) bool
		applied bool
		new     string
	}{
		"the new one is not written":                {session, false, "over: ended"},
		"the new one is written, without an answer": {session, true, "over: ended"},
		"the old one is not ended":                  {tombstone, false, "over: ended"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t)
				st := g.put("", "a=1")
				g.db.OnSave = func(ctx context.Context, r store.Record, base store.Base) error {
					if !test.fails(r) {
						return g.rows.Save(ctx, r, base)
					}
					if test.applied {
						_ = g.rows.Save(ctx, r, base)
					}
					return faults.ErrLost
				}
				m := login(st, "ada", set("b", "2"))
				if got, err := g.Move(g.ctx(), m); !errors.Is(err, fault.Unavailable) || got != nil {
					t.Errorf("got %v, %v", got, err)
				}
				if got := g.values(m.To); got != test.new {
					t.Errorf("the new one is %q", got)
				}
				if got := g.values(st.Who); got != "a=1" {
					t.Errorf("the old one is %q", got)
				}
			})
		})
	}
}

func TestALoginWhoseStoreHangsHasTimeToTakeItBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "a=1")
		g.db.OnSave = func(ctx context.Context, r store.Record, base store.Base) error {
			if !r.IsEnd() {
				return g.rows.Save(ctx, r, base)
			}
			<-ctx.Done()
			return ctx.Err()
		}
		g.db.OnDelete = func(ctx context.Context, id store.ID, until time.Time) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return g.rows.Delete(ctx, id, until)
		}
		m := login(st, "ada", nothing)
		if _, err := g.Move(g.ctx(), m); !errors.Is(err, fault.Unavailable) {
			t.Errorf("got %v", err)
		}
		if got := g.values(m.To); got != "over: ended" {
			t.Errorf("the new one is %q", got)
		}
	})
}

func TestALoginBeyondTheLimitEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		first := g.put("ada", "a=1")
		st := g.put("", "b=1")
		m := login(st, "ada", nothing)
		m.Limit = store.UserLimit{Max: 1, Refuse: true, Until: time.Now().Add(time.Hour)}
		if _, err := g.Move(g.ctx(), m); !errors.Is(err, fault.TooMany) {
			t.Errorf("got %v", err)
		}
		if g.values(first.Who) != "a=1" || g.values(st.Who) != "b=1" || g.values(m.To) != "over: never there" {
			t.Errorf("%q, %q, %q", g.values(first.Who), g.values(st.Who), g.values(m.To))
		}
		var gone []store.ID
		m = login(st, "ada", nothing)
		m.Limit = store.UserLimit{Max: 1, Until: time.Now().Add(time.Hour)}
		m.Evicted = func(id store.ID) { gone = append(gone, id) }
		if _, err := g.Move(g.ctx(), m); err != nil || len(gone) != 1 || gone[0] != first.ID || g.values(first.Who) != "over: ended" {
			t.Errorf("%v, evicted %v", err, gone)
		}
	})
}

// betweenWriteAndEnd calls f once, when a login has written its new session and is
// about to end the old one.
func (g *rig) betweenWriteAndEnd(f func()) {
	once := true
	g.db.OnSave = func(ctx context.Context, r store.Record, base store.Base) error {
		if r.IsEnd() && once {
			once = false
			f()
		}
		return g.rows.Save(ctx, r, base)
	}
}

// A parallel request's change during a login is in the new session, or the
// request gets an error that its session has ended.
func TestAParallelChangeIsCarriedOrRefused(t *testing.T) {
	for name, test := range map[string]struct {
		during func(*rig, *State)
		user   string // of the old session
		do     func(*draft.Draft)
		want   string
		err    error
		old    string
	}{
		"a value is set":      {func(g *rig, st *State) { g.commit(st, set("p", "1")) }, "", set("b", "2"), "a=1 b=2 p=1", nil, "over: replaced"},
		"in a user's session": {func(g *rig, st *State) { g.commit(st, set("p", "1")) }, "ada", set("b", "2"), "a=1 b=2 p=1", nil, "over: replaced"},
		"the same value":      {func(g *rig, st *State) { g.commit(st, set("a", "7")) }, "", update("a", more), "a=7x", nil, "over: replaced"},
		"a value is taken by both": {
			func(g *rig, st *State) { g.commit(st, take("a")) }, "", take("a"), "over: ended", fault.Taken, "",
		},
		"it is ended": {
			func(g *rig, st *State) { g.must(g.Delete(g.ctx(), st)) }, "", set("b", "2"), "a=1 b=2", nil, "over: ended",
		},
		"a user's is ended: its values stay behind": {
			func(g *rig, st *State) { g.must(g.Delete(g.ctx(), st)) }, "ada", set("b", "2"), "b=2", nil, "over: ended",
		},
		"it is ended, and a value was taken": {
			func(g *rig, st *State) { g.must(g.Delete(g.ctx(), st)) }, "", take("a"), "over: ended", fault.Taken, "over: ended",
		},
		"it is touched": {
			func(g *rig, st *State) { time.Sleep(time.Second); g.must(g.Touch(g.ctx(), st, time.Now())) }, "", set("b", "2"), "a=1 b=2", nil, "over: replaced",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t)
				st := g.put(test.user, "a=1")
				g.betweenWriteAndEnd(func() { test.during(g, st) })
				m := login(st, "ada", test.do)
				if _, err := g.Move(g.ctx(), m); !errors.Is(err, test.err) || test.err == nil && err != nil {
					t.Errorf("got %v", err)
				}
				if got := g.values(m.To); got != test.want {
					t.Errorf("the new one is %q, want %q", got, test.want)
				}
				if got := g.values(st.Who); got != test.old {
					t.Errorf("the old one is %q, want %q", got, test.old)
				}
				if strings.HasPrefix(test.old, "over") {
					if _, err := g.save(g.other, change(st, set("late", "1"))); !errors.Is(err, ErrGone) {
						t.Errorf("a later change: %v", err)
					}
				}
			})
		})
	}
}

func (g *rig) commit(st *State, do func(*draft.Draft)) {
	g.t.Helper()
	_, err := g.save(g.other, change(st, do))
	g.must(err)
}

func TestANewSessionThatSomebodyEndsAtOnceIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "a=1")
		m := login(st, "ada", nothing)
		g.betweenWriteAndEnd(func() {
			g.must(g.rows.Delete(t.Context(), m.To.ID, time.Now().Add(time.Hour)))
			g.commit(st, set("p", "1")) // so that the new one is written again
		})
		if _, err := g.Move(g.ctx(), m); !errors.Is(err, fault.Ended) {
			t.Errorf("got %v", err)
		}
		if g.values(m.To) != "over: ended" || g.values(st.Who) != "a=1 p=1" {
			t.Errorf("%q, %q", g.values(m.To), g.values(st.Who))
		}
	})
}

// Logins and changes of one session in one process wait for each other.
func TestALoginWaitsForTheCommitsBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "a=1")
		release := g.holdFirst()
		saved, refused := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := g.save(g.Sessions, change(st, set("p", "1")))
			saved <- err
		}()
		synctest.Wait()
		m := login(st, "ada", set("b", "2"))
		moved := make(chan error, 1)
		go func() {
			ctx, cancel := g.Bounded(t.Context())
			defer cancel()
			_, err := g.Move(ctx, m)
			moved <- err
		}()
		synctest.Wait()
		go func() {
			_, err := g.save(g.Sessions, change(st, set("q", "1")))
			refused <- err
		}()
		synctest.Wait()
		release()
		if a, b, c := <-saved, <-moved, <-refused; a != nil || b != nil || how(c) != "replaced" {
			t.Errorf("saved %v, moved %v, refused %v", a, b, c)
		}
		if got := g.values(m.To); got != "a=1 b=2 p=1" || g.seen.of("conflict") != 1 { // of the refused one
			t.Errorf("%q, observed %v", got, g.seen.count)
		}
	})
}

func TestALogoutRequiresWhatWasTaken(t *testing.T) {
	for name, test := range map[string]struct {
		during func(*rig, *State)
		do     func(*draft.Draft)
		err    error
		old    string
	}{
		"nothing was":            {func(*rig, *State) {}, nothing, nil, "over: replaced"},
		"it is there":            {func(*rig, *State) {}, take("a"), nil, "over: replaced"},
		"another value changed":  {func(g *rig, st *State) { g.commit(st, set("b", "2")) }, take("a"), nil, "over: replaced"},
		"somebody has taken it":  {func(g *rig, st *State) { g.commit(st, take("a")) }, take("a"), fault.Taken, ""},
		"somebody has changed":   {func(g *rig, st *State) { g.commit(st, set("a", "2")) }, take("a"), fault.Taken, "a=2"},
		"it has ended":           {func(g *rig, st *State) { g.must(g.Delete(g.ctx(), st)) }, nothing, nil, "over: ended"},
		"it has ended, with it":  {func(g *rig, st *State) { g.must(g.Delete(g.ctx(), st)) }, take("a"), fault.Taken, "over: ended"},
		"changed, nothing taken": {func(g *rig, st *State) { g.commit(st, set("a", "2")) }, nothing, nil, "over: replaced"},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			st := g.put("", "a=1")
			c := change(st, test.do)
			taken := c.Draft.Taken()
			c.Draft = &taken
			test.during(g, st)
			if err := g.End(g.ctx(), c); !errors.Is(err, test.err) || test.err == nil && err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got := g.values(st.Who); got != test.old {
				t.Errorf("%s: it is %q, want %q", name, got, test.old)
			}
		})
	}
}

func TestALogoutWhoseAnswerIsLostIsOneLogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "a=1")
		lost := false
		g.db.OnSave = func(ctx context.Context, r store.Record, base store.Base) error {
			err := g.rows.Save(ctx, r, base)
			if !lost {
				lost = true
				return faults.ErrLost
			}
			return err
		}
		if err := g.End(g.ctx(), change(st, take("a"))); err != nil || g.values(st.Who) != "over: replaced" {
			t.Errorf("%v, %q", err, g.values(st.Who))
		}
	})
}

// The inline session was never stored, but leaves a tombstone: a copy of the
// cookie must not be stored later.
func TestALoginFromACookieLeavesATombstoneForAsLongAsItLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := inline(1, "a=1")
		_, err := g.Move(g.ctx(), login(st, "ada", nothing))
		g.must(err)
		row := g.row(st.ID)
		if want := g.limits.InlineUntil(&st.Rec.Header, time.Now()); !row.IsEnd() || !row.Deadline.Equal(want) || st.Where != rules.Inline {
			t.Errorf("until %v, want %v", row.Deadline, want)
		}
		time.Sleep(30 * time.Minute)
		if _, err := g.save(g.Sessions, change(st, set("b", "1"))); how(err) != "replaced" {
			t.Errorf("the cookie is stored: %v", err)
		}
	})
}
