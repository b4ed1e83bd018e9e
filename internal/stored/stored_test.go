package stored

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// observed counts an Observer's calls.
type observed struct {
	mu    sync.Mutex
	count map[string]int
}

func (o *observed) add(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.count == nil {
		o.count = map[string]int{}
	}
	o.count[what]++
}

func (o *observed) of(what string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count[what]
}

func (o *observed) Loaded()                 { o.add("loaded") }
func (o *observed) Saved()                  { o.add("saved") }
func (o *observed) Conflicted()             { o.add("conflict") }
func (o *observed) Retried()                { o.add("retried") }
func (o *observed) Touched()                { o.add("touched") }
func (o *observed) VolatileSaved()          { o.add("volatile") }
func (o *observed) Damaged(store.ID, error) { o.add("damaged") }
func (o *observed) KeyLacking(store.ID)     { o.add("key") }
func (o *observed) LostWrites(store.ID)     { o.add("lost") }
func (o *observed) Mended()                 { o.add("mended") }
func (o *observed) StoreFailed(_ context.Context, doing string, err error) error {
	o.add("failed")
	return fault.Away(doing, err)
}

// rig is two processes' sessions in one store.
type rig struct {
	t      *testing.T
	db     *faults.Store // their view of it
	rows   store.Store
	seen   *observed
	limits *rules.Limits
	*Sessions
	other *Sessions // of the other process
}

func newRig(t *testing.T) *rig { return newRigOn(t, memory.New()) }

func newRigOn(t *testing.T, rows store.Store) *rig {
	g := &rig{t: t, rows: rows, seen: &observed{}, db: faults.Wrap(rows), limits: &rules.Limits{
		MaxSize: 4096, Idle: time.Hour, Lifetime: 24 * time.Hour, Grace: 10 * time.Second,
	}}
	keys := ring(t, 1)
	g.Sessions, g.other = g.sessions(g.db.Store(), keys), g.sessions(g.db.Store(), keys)
	return g
}

func (g *rig) sessions(db store.Store, keys *seal.Ring) *Sessions {
	return New(Options{
		Store: db, Limits: g.limits, Ring: func() *seal.Ring { return keys }, Scope: "session",
		Observer: g.seen, Timeout: 5 * time.Second, Now: time.Now,
	})
}

var rings sync.Map // by secret: a key takes a while to derive

func ring(t testing.TB, secret byte) *seal.Ring {
	t.Helper()
	if r, ok := rings.Load(secret); ok {
		return r.(*seal.Ring)
	}
	key, err := seal.NewKey([seal.SecretSize]byte{secret}, seal.Active, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	r, err := seal.NewRing([]seal.Key{key}, [seal.SecretSize]byte{99})
	if err != nil {
		t.Fatal(err)
	}
	rings.Store(secret, r)
	return r
}

func (g *rig) ctx() context.Context {
	ctx, cancel := g.Bounded(g.t.Context())
	g.t.Cleanup(cancel)
	return ctx
}

// rec is a record with these values, written "a=1 b=2".
func rec(user, values string) record.Record {
	r := record.Record{Header: record.Header{User: user}}
	for pair := range strings.FieldsSeq(values) {
		name, value, _ := strings.Cut(pair, "=")
		f := record.Field{Name: name, Value: []byte(value)}
		if strings.HasPrefix(name, "v") {
			f.Flags = record.Volatile
		}
		r.Put(f)
	}
	return r.Done()
}

func text(r *record.Record) string {
	var pairs []string
	for _, f := range r.Fields() {
		pairs = append(pairs, f.Name+"="+string(f.Value))
	}
	return strings.Join(pairs, " ")
}

// put stores a session of user with these values.
func (g *rig) put(user, values string) *State {
	g.t.Helper()
	st, err := g.Insert(g.ctx(), rec(user, values), NewWho(), store.UserLimit{}, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return st
}

// row is the store's record with an ID.
func (g *rig) row(id store.ID) store.Record {
	g.t.Helper()
	r, err := g.rows.Load(g.t.Context(), id)
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// plant overwrites a row in the store.
func (g *rig) plant(r store.Record) {
	g.t.Helper()
	have, err := g.rows.Load(g.t.Context(), r.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		g.t.Fatal(err)
	}
	r.SaveIDs, r.Shorten = []store.SaveID{newSaveID()}, true
	if err := g.rows.Save(g.t.Context(), r, have.Base()); err != nil {
		g.t.Fatal(err)
	}
}

// values is the content of a stored session.
func (g *rig) values(who Who) string {
	g.t.Helper()
	st, err := g.Load(g.ctx(), who, 0)
	if err != nil {
		return "over: " + how(err)
	}
	return text(&st.Rec)
}

// how describes the end of a session.
func how(err error) string {
	var gone *Gone
	switch {
	case err == nil:
		return "not at all"
	case !errors.As(err, &gone):
		return err.Error()
	case gone.Replaced:
		return "replaced"
	case !gone.Ended.IsZero():
		return "ended"
	case gone.Expired:
		return "expired"
	default:
		return "never there"
	}
}

// change is a request's part in a commit, on st.
func change(st *State, do func(*draft.Draft)) Change {
	d := &draft.Draft{}
	d.Start(&st.Rec)
	do(d)
	return Change{Who: st.Who, Base: st, Draft: d, Arrived: time.Now()}
}

func set(name, value string) func(*draft.Draft) {
	return func(d *draft.Draft) { d.Set(draft.Slot{Name: name}, []byte(value), false) }
}

func take(name string) func(*draft.Draft) {
	return func(d *draft.Draft) {
		raw, _ := d.Get(name)
		d.Take(name, raw)
	}
}

func update(name string, f draft.Update) func(*draft.Draft) {
	return func(d *draft.Draft) { _, _, _ = d.Update(draft.Slot{Name: name}, f, false) }
}

// more makes one x more of a value.
func more(raw []byte, _ bool) ([]byte, error) { return append(raw[:len(raw):len(raw)], 'x'), nil }

func (g *rig) save(s *Sessions, c Change) (Result, error) {
	ctx, cancel := s.Bounded(g.t.Context())
	defer cancel()
	return s.Save(ctx, c)
}

func TestARecordIsServedOnlyWhereItBelongs(t *testing.T) {
	for name, test := range map[string]struct {
		spoil   func(*rig, *State, *State) // the second one is another session
		load    string
		ask     error
		counter string
	}{
		"untouched":          {func(*rig, *State, *State) {}, "not at all", nil, ""},
		"written once more":  {func(g *rig, st, _ *State) { g.plant(g.row(st.ID)) }, "not at all", nil, ""},
		"another row's copy": {func(g *rig, st, o *State) { r := g.row(o.ID); r.ID = st.ID; g.plant(r) }, "never there", ErrDamaged, "damaged"},
		"another row's data": {func(g *rig, st, o *State) { r := g.row(st.ID); r.Data = g.row(o.ID).Data; g.plant(r) }, "never there", ErrDamaged, "damaged"},
		"another user":       {func(g *rig, st, _ *State) { r := g.row(st.ID); r.User = g.UserHash("eve"); g.plant(r) }, "never there", ErrDamaged, "damaged"},
		"nobody's any more":  {func(g *rig, st, _ *State) { r := g.row(st.ID); r.User = store.UserHash{}; g.plant(r) }, "never there", ErrDamaged, "damaged"},
		"a later version":    {func(g *rig, st, _ *State) { r := g.row(st.ID); r.Version++; g.plant(r) }, "never there", ErrDamaged, "damaged"},
		"a later end":        {func(g *rig, st, _ *State) { r := g.row(st.ID); r.Expires = r.Expires.Add(time.Hour); g.plant(r) }, "never there", ErrDamaged, "damaged"},
		"a damaged byte": {func(g *rig, st, _ *State) {
			r := g.row(st.ID)
			r.Data = append([]byte{}, r.Data...)
			r.Data[len(r.Data)-1]++
			g.plant(r)
		}, "never there", ErrDamaged, "damaged"},
		"no data": {func(g *rig, st, _ *State) { r := g.row(st.ID); r.Data = nil; g.plant(r) }, "never there", ErrDamaged, "damaged"},
		"the store's mistake": {func(g *rig, _, o *State) {
			g.db.OnLoad = func(context.Context, store.ID) (store.Record, error) { return g.row(o.ID), nil }
		}, "never there", ErrDamaged, "damaged"},
		"the store says so": {func(g *rig, _, _ *State) {
			g.db.OnLoad = func(context.Context, store.ID) (store.Record, error) { return store.Record{}, store.ErrDamaged }
		}, "never there", ErrDamaged, "damaged"},
		"of another manager": {func(g *rig, _, _ *State) { g.bound = wire.Bind("other") }, "never there", ErrDamaged, "damaged"},
		"an unknown key":     {func(g *rig, _, _ *State) { r := ring(g.t, 2); g.Ring = func() *seal.Ring { return r } }, ErrKeyLacking.Error(), ErrKeyLacking, "key"},
		"the store is away": {func(g *rig, _, _ *State) {
			g.db.OnLoad = func(context.Context, store.ID) (store.Record, error) { return store.Record{}, faults.ErrLost }
		}, fault.Away("load", faults.ErrLost).Error(), fault.Unavailable, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t)
				st, other := g.put("ada", "a=1"), g.put("bob", "a=2")
				test.spoil(g, st, other)
				got, err := g.Ask(g.ctx(), st.ID, 0)
				if !errors.Is(err, test.ask) || test.ask == nil && (err != nil || text(&got.Rec) != "a=1") {
					t.Errorf("Ask: %v", err)
				}
				if _, err := g.Load(g.ctx(), st.Who, 0); how(err) != test.load {
					t.Errorf("Load: %s, want %s", how(err), test.load)
				}
				if test.counter != "" && g.seen.of(test.counter) == 0 || test.counter != "damaged" && g.seen.of("damaged") != 0 {
					t.Errorf("observed %v", g.seen.count)
				}
			})
		})
	}
}

func TestHowASessionIsOver(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(*rig, *State)
		want string
	}{
		"it is not":                {func(*rig, *State) {}, "not at all"},
		"at its last moment":       {func(*rig, *State) { time.Sleep(time.Hour) }, "not at all"},
		"idle":                     {func(*rig, *State) { time.Sleep(time.Hour + time.Millisecond) }, "expired"},
		"the configured lifetime":  {func(g *rig, _ *State) { g.limits.Lifetime = time.Minute; time.Sleep(2 * time.Minute) }, "expired"},
		"ended by somebody else":   {func(g *rig, st *State) { g.must(g.Delete(g.ctx(), st)) }, "ended"},
		"ended by its own browser": {func(g *rig, st *State) { g.must(g.Replace(g.ctx(), st)) }, "replaced"},
		"a logout":                 {func(g *rig, st *State) { g.must(g.End(g.ctx(), change(st, func(*draft.Draft) {}))) }, "replaced"},
		"both, and the first counts": {func(g *rig, st *State) {
			g.must(g.Replace(g.ctx(), st))
			time.Sleep(time.Second)
			g.must(g.Delete(g.ctx(), st))
		}, "replaced"},
		"both, the other way round": {func(g *rig, st *State) {
			g.must(g.Delete(g.ctx(), st))
			g.must(g.Replace(g.ctx(), st))
		}, "ended"},
		"its browser had an older version": {func(g *rig, st *State) {
			if _, err := g.save(g.other, change(st, set("a", "2"))); err != nil {
				g.t.Fatal(err)
			}
			g.must(g.Replace(g.ctx(), st))
		}, "ended"},
		"forgotten": {func(g *rig, st *State) { g.must(g.Forget(g.ctx(), st.ID, time.Now().Add(time.Hour))) }, "ended"},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			st := g.put("", "a=1")
			test.do(g, st)
			if _, err := g.Load(g.ctx(), st.Who, 0); how(err) != test.want || err != nil && !errors.Is(err, ErrGone) {
				t.Errorf("%s: %s, want %s", name, how(err), test.want)
			}
			if _, err := g.ByHandle(g.ctx(), st.ID.String(), 0); (err == nil) != (test.want == "not at all") && name != "the configured lifetime" {
				t.Errorf("%s: by its handle: %v", name, err)
			}
			if _, err := g.Load(g.ctx(), NewWho(), 0); how(err) != "never there" {
				t.Errorf("another: %v", err)
			}
		})
	}
}

func (g *rig) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func TestForHowLongABrowserCountsAsJustTold(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		gone Gone
		want bool
	}{
		"just now":      {Gone{Ended: now, Replaced: true}, true},
		"almost":        {Gone{Ended: now.Add(1 - store.MinTombstone), Replaced: true}, true},
		"too long ago":  {Gone{Ended: now.Add(-store.MinTombstone), Replaced: true}, false},
		"somebody else": {Gone{Ended: now}, false},
		"expired":       {Gone{Expired: true}, false},
	} {
		if got := test.gone.ToldOf(now); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestTombstonesStayAsLongAsSomethingCouldComeBack(t *testing.T) {
	type ender = func(*rig, *State) error
	replace := func(g *rig, st *State) error { return g.Replace(g.ctx(), st) }
	for name, test := range map[string]struct {
		end             ender
		inline, foreign time.Duration
		want            time.Duration
	}{
		"Replace":                       {replace, 0, 0, store.MinTombstone},
		"Replace, a cookie has it":      {replace, 5 * time.Hour, 0, 5 * time.Hour},
		"Replace, a foreign credential": {replace, 5 * time.Hour, 6 * time.Hour, 6 * time.Hour},
		"Delete":                        {func(g *rig, st *State) error { return g.Delete(g.ctx(), st) }, 0, 0, store.MinTombstone},
		"Delete, a cookie has it":       {func(g *rig, st *State) error { return g.Delete(g.ctx(), st) }, 5 * time.Hour, 0, 5 * time.Hour},
		"Delete, a foreign credential":  {func(g *rig, st *State) error { return g.Delete(g.ctx(), st) }, 0, 6 * time.Hour, 6 * time.Hour},
		"End":                           {func(g *rig, st *State) error { return g.End(g.ctx(), change(st, func(*draft.Draft) {})) }, 5 * time.Hour, 0, 5 * time.Hour},
		"a move": {func(g *rig, st *State) error {
			_, err := g.Move(g.ctx(), login(st, "ada", func(*draft.Draft) {}))
			return err
		}, 5 * time.Hour, 6 * time.Hour, 6 * time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			now := time.Now()
			if test.foreign > 0 {
				g.Foreign = func(*record.Header, time.Time) time.Time { return now.Add(test.foreign) }
			}
			r := rec("", "a=1")
			if test.inline > 0 {
				r.Header.InlineUntil = now.Add(test.inline).UnixMilli()
			}
			st, err := g.Insert(g.ctx(), r, NewWho(), store.UserLimit{}, nil)
			g.must(err)
			g.must(test.end(g, st))
			row := g.row(st.ID)
			if !row.IsEnd() || row.Data != nil || row.Deadline.Sub(now) != test.want {
				t.Errorf("%s: for %v, want %v", name, row.Deadline.Sub(now), test.want)
			}
			if _, err := g.save(g.Sessions, change(st, set("b", "1"))); !errors.Is(err, ErrGone) {
				t.Errorf("%s: a session that has ended is saved: %v", name, err)
			}
			if _, err := g.Insert(g.ctx(), r, st.Who, store.UserLimit{}, nil); !errors.Is(err, store.ErrConflict) {
				t.Errorf("%s: it is made anew: %v", name, err)
			}
		})
	}
}

func TestTouchMovesTheDeadlineAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "a=1")
		created := time.Now()
		time.Sleep(50 * time.Minute)
		g.must(g.Touch(g.ctx(), st, time.Now()))
		row := g.row(st.ID)
		if row.Base() != st.Meta.Base() || row.Deadline.Sub(created) != 110*time.Minute || row.Seen.Sub(created) != 50*time.Minute || g.seen.of("touched") != 1 {
			t.Errorf("%v, until %v, observed %v", row, row.Deadline.Sub(created), g.seen.count)
		}
		// Only an index of a store that cannot touch.
		plain := g.sessions(struct{ store.Store }{g.rows}, g.Ring())
		if err := plain.Touch(g.ctx(), st, time.Now()); !errors.Is(err, errors.ErrUnsupported) || g.seen.of("failed") != 0 {
			t.Errorf("a store that cannot: %v", err)
		}
		g.db.OnTouch = func(context.Context, store.ID, time.Time, time.Time) error { return faults.ErrLost }
		if err := g.Touch(g.ctx(), st, time.Now()); !errors.Is(err, faults.ErrLost) || g.seen.of("failed") != 1 {
			t.Errorf("a store that is away: %v, observed %v", err, g.seen.count)
		}
		g.db.OnTouch = nil
		g.must(g.Delete(g.ctx(), st))
		if err := g.Touch(g.ctx(), st, time.Now()); !errors.Is(err, store.ErrNotFound) || g.seen.of("failed") != 1 {
			t.Errorf("a session that has ended: %v, observed %v", err, g.seen.count)
		}
	})
}

func TestStayingAliveTouchesOnlyIfNobodyElseDid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "a=1")
		began := time.Now()
		stay := func() (seen, left time.Duration, err error) {
			s, d, err := g.StayAlive(g.ctx(), st.Who, time.Now())
			return s.Sub(began), d.Sub(began), err
		}
		time.Sleep(2 * time.Minute)
		if seen, left, err := stay(); err != nil || seen != 0 || left != time.Hour || g.db.Touches.Load() != 0 {
			t.Errorf("too early: seen %v, until %v, %v", seen, left, err)
		}
		time.Sleep(8 * time.Minute)
		if seen, left, err := stay(); err != nil || seen != 10*time.Minute || left != 70*time.Minute || g.db.Touches.Load() != 1 {
			t.Errorf("in time: seen %v, until %v, %v", seen, left, err)
		}
		if seen, left, err := stay(); err != nil || seen != 10*time.Minute || left != 70*time.Minute || g.db.Touches.Load() != 1 {
			t.Errorf("once more: seen %v, until %v, %v", seen, left, err)
		}
		time.Sleep(2 * time.Hour)
		if _, _, err := stay(); how(err) != "expired" {
			t.Errorf("what is over comes back: %v", err)
		}
	})
}

func TestTimesInTheFutureAreMendedWhenASessionIsLoadedAndKeptWhenItIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		ahead := g.sessions(g.db.Store(), g.Ring())
		ahead.Now = func() time.Time { return time.Now().Add(100 * 24 * time.Hour) }
		st, err := ahead.Insert(g.ctx(), rec("", "a=1"), NewWho(), store.UserLimit{}, nil)
		g.must(err)
		cur, err := g.Load(g.ctx(), st.Who, 0)
		g.must(err)
		if !cur.Mended || time.Until(cur.Meta.Deadline) != time.Hour || time.Until(cur.Meta.Expires) != 24*time.Hour || g.seen.of("mended") != 1 {
			t.Errorf("idle for %v, lives for %v", time.Until(cur.Meta.Deadline), time.Until(cur.Meta.Expires))
		}
		g.must(g.Rewrite(g.ctx(), cur))
		again, err := g.Load(g.ctx(), st.Who, 0)
		g.must(err)
		if again.Mended || time.Until(again.Meta.Deadline) != time.Hour || text(&again.Rec) != "a=1" {
			t.Errorf("written down it is mended = %v, idle for %v", again.Mended, time.Until(again.Meta.Deadline))
		}
	})
}

func TestASuspicionIsNotedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "a=1")
		st.Rec.Header.Generation = 3
		seen := st.Meta.Seen
		time.Sleep(time.Minute)
		g.Suspect(g.ctx(), st)
		cur, err := g.Load(g.ctx(), st.Who, 0)
		if err != nil || cur.Rec.Header.Suspected != 3 || !cur.Meta.Seen.Equal(seen) || st.Rec.Header.Suspected != 0 {
			t.Errorf("%+v, %v", cur, err)
		}
		g.Suspect(g.ctx(), st) // is not the newest state any more
		if row := g.row(st.ID); row.Version != 2 {
			t.Errorf("version %d", row.Version)
		}
	})
}

func TestAUsersSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		live, ended, spoiled := g.put("ada", "a=1"), g.put("ada", "a=2"), g.put("ada", "a=3")
		g.put("bob", "a=4")
		g.must(g.Delete(g.ctx(), ended))
		r := g.row(spoiled.ID)
		r.Data = []byte("no")
		g.plant(r)
		all, err := g.ByUser(g.ctx(), "ada")
		got := map[store.ID]bool{}
		for _, l := range all {
			got[l.ID] = l.Damaged
		}
		if err != nil || len(all) != 2 || got[live.ID] || !got[spoiled.ID] {
			t.Errorf("%v, %v", got, err)
		}
		// Another user's row under her name is left out and reported.
		damaged := g.seen.of("damaged")
		wrong := g.sessions(struct {
			store.Store
			store.UserIndex
		}{g.rows, everybody{g}}, g.Ring())
		if all, err := wrong.ByUser(g.ctx(), "ada"); err != nil || len(all) != 0 || g.seen.of("damaged") != damaged+1 {
			t.Errorf("%v, %v", all, err)
		}
		plain := g.sessions(struct{ store.Store }{g.rows}, g.Ring())
		if _, err := plain.ByUser(g.ctx(), "ada"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("without an index: %v", err)
		}
		other := g.sessions(g.db.Store(), ring(t, 2))
		all, err = other.ByUser(g.ctx(), "ada")
		if err != nil || len(all) != 2 {
			t.Fatalf("with another key: %v, %v", all, err)
		}
		for _, l := range all {
			if l.ID == live.ID && (l.Rec.Header.User != "ada" || l.Rec.Header.InlineUntil != live.Meta.Expires.UnixMilli()) {
				t.Errorf("a sealed session is described as %+v", l.Rec.Header)
			}
		}
	})
}

// everybody is an index by user that answers with bob's session.
type everybody struct{ g *rig }

func (e everybody) ByUser(ctx context.Context, _ store.UserHash) ([]store.Record, error) {
	return e.g.rows.(store.UserIndex).ByUser(ctx, e.g.UserHash("bob"))
}

func TestHandlesOfNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.put("", "a=1")
		for _, handle := range []string{"", "x", NewWho().ID.String(), strings.ToUpper(st.ID.String())} {
			if _, err := g.ByHandle(g.ctx(), handle, 0); !errors.Is(err, fault.NotFound) {
				t.Errorf("%q: %v", handle, err)
			}
		}
		time.Sleep(time.Hour + time.Second)
		if _, err := g.ByHandle(g.ctx(), st.ID.String(), 0); !errors.Is(err, fault.NotFound) {
			t.Errorf("one that is over: %v", err)
		}
		if _, err := g.ByHandle(g.ctx(), st.ID.String(), time.Minute); err != nil {
			t.Errorf("one that may be live by another clock: %v", err)
		}
	})
}

func TestInsertHoldsAUserToItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		insert := func(limit store.UserLimit) (*State, []store.ID, error) {
			var gone []store.ID
			limit.Until = time.Now().Add(time.Hour)
			time.Sleep(time.Second)
			st, err := g.Insert(g.ctx(), rec("ada", "a=1"), NewWho(), limit, func(id store.ID) { gone = append(gone, id) })
			return st, gone, err
		}
		one, gone, err := insert(store.UserLimit{Max: 1})
		if err != nil || len(gone) != 0 {
			t.Fatalf("%v, %v", gone, err)
		}
		if _, gone, err := insert(store.UserLimit{Max: 1, Refuse: true}); !errors.Is(err, fault.TooMany) || len(gone) != 0 {
			t.Errorf("refused: %v, %v", gone, err)
		}
		if _, gone, err := insert(store.UserLimit{Max: 1}); err != nil || len(gone) != 1 || gone[0] != one.ID || g.values(one.Who) != "over: ended" {
			t.Errorf("made room: %v, %v", gone, err)
		}
		plain := g.sessions(struct{ store.Store }{g.rows}, g.Ring())
		if _, err := plain.Insert(g.ctx(), rec("ada", ""), NewWho(), store.UserLimit{Max: 1}, nil); !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, fault.Unavailable) {
			t.Errorf("a store that cannot: %v", err)
		}
		big := rec("ada", "a="+strings.Repeat("x", 5000))
		if _, err := g.Insert(g.ctx(), big, NewWho(), store.UserLimit{}, nil); !errors.Is(err, fault.TooLarge) {
			t.Errorf("too large: %v", err)
		}
	})
}

func TestNotesThatAreNoSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		now := time.Now()
		mark, dated := NewWho(), NewWho()
		g.must(g.Bury(g.ctx(), mark.ID, now, now.Add(time.Hour)))
		if err := g.Bury(g.ctx(), mark.ID, now, now.Add(time.Hour)); !errors.Is(err, store.ErrConflict) {
			t.Errorf("buried twice: %v", err)
		}
		if g.values(mark) != "over: ended" {
			t.Error(g.values(mark))
		}
		save := func(seen, until time.Duration, shorten bool) error {
			var prev store.Record
			if st, err := g.Ask(g.ctx(), dated.ID, 0); err == nil {
				prev = st.Meta
			}
			return g.SaveDated(g.ctx(), dated.ID, &prev, now.Add(seen), now.Add(until), shorten)
		}
		for i, step := range []struct {
			seen, until         time.Duration
			shorten             bool
			wantSeen, wantUntil time.Duration
		}{
			{time.Second, time.Hour, false, time.Second, time.Hour},
			{2 * time.Second, 2 * time.Hour, false, 2 * time.Second, 2 * time.Hour},
			{0, time.Minute, false, 2 * time.Second, 2 * time.Hour}, // times never move backwards
			{0, time.Minute, true, 0, time.Minute},
		} {
			g.must(save(step.seen, step.until, step.shorten))
			st, err := g.Ask(g.ctx(), dated.ID, 0) // it is sound
			if err != nil || st.Meta.Seen.Sub(now) != step.wantSeen || st.Meta.Deadline.Sub(now) != step.wantUntil || st.Rec.Len() != 0 {
				t.Errorf("step %d: %+v, %v", i, st, err)
			}
		}
		if err := g.SaveDated(g.ctx(), dated.ID, &store.Record{}, now, now.Add(time.Hour), false); !errors.Is(err, store.ErrConflict) {
			t.Errorf("on another base: %v", err)
		}
	})
}

// login is a Move of st to a session of user.
func login(st *State, user string, do func(*draft.Draft)) Move {
	return Move{
		Change: change(st, do), To: NewWho(), Ends: st.Where != rules.Nowhere,
		Login: &draft.Login{User: user, At: time.Now(), Created: time.Now().UnixMilli()}, Evicted: func(store.ID) {},
	}
}
