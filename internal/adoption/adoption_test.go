package adoption

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/trouble"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// oldApp is another library, whose cookie "old" names a session in memory.
type oldApp struct {
	name string

	mu       sync.Mutex
	sessions map[string]adopt.Session
	ended    []string
	copies   bool // the cookie holds the session itself
	away     error
}

func (o *oldApp) Name() string  { return o.name }
func (o *oldApp) Expires() bool { return true }

func (o *oldApp) Find(_ context.Context, in http.Header, now time.Time) (*adopt.Session, error) {
	id, ok := strings.CutPrefix(in.Get("Cookie"), "old=")
	o.mu.Lock()
	defer o.mu.Unlock()
	switch s, there := o.sessions[id]; {
	case !ok:
		return nil, nil
	case o.away != nil:
		return nil, o.away
	case !there:
		return nil, fmt.Errorf("old: %w", adopt.Refusal("not_found"))
	default:
		if s.Credential == nil {
			s.Credential, s.State = []byte(id), []byte(id)
		}
		s.Copies = s.Copies || o.copies
		return &s, nil
	}
}

func (o *oldApp) Forget(*adopt.Session) []string { return []string{"old=; Max-Age=0"} }

func (o *oldApp) End(_ context.Context, old *adopt.Session) ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away != nil {
		return o.Forget(old), o.away
	}
	delete(o.sessions, string(old.State))
	o.ended = append(o.ended, string(old.State))
	return o.Forget(old), nil
}

func (o *oldApp) Write(_ context.Context, old *adopt.Session, now time.Time) ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away != nil {
		return nil, o.away
	}
	id := string(old.State)
	if id == "" || o.copies {
		id = fmt.Sprint("written", len(o.sessions))
	}
	old.Credential, old.State, old.Copies = []byte(id), []byte(id), o.copies
	old.Issued, old.Expires = now, now.Add(24*time.Hour)
	o.sessions[id] = *old
	return []string{"old=" + id}, nil
}

func (o *oldApp) put(id, user string, change ...func(*adopt.Session)) {
	s := adopt.Session{Values: map[string]any{"user": user, "cart": "3"}, Issued: time.Now(), Expires: time.Now().Add(24 * time.Hour)}
	for _, f := range change {
		f(&s)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sessions[id] = s
}

// rig is an Adoption of an old application's sessions.
type rig struct {
	t   *testing.T
	db  *faults.Store
	old *oldApp
	*Adoption
	maps   int
	mapErr error
	limit  store.UserLimit
}

type quiet struct{}

func (quiet) Loaded()                 {}
func (quiet) Saved()                  {}
func (quiet) Conflicted()             {}
func (quiet) Retried()                {}
func (quiet) Touched()                {}
func (quiet) VolatileSaved()          {}
func (quiet) Damaged(store.ID, error) {}
func (quiet) KeyLacking(store.ID)     {}
func (quiet) LostWrites(store.ID)     {}
func (quiet) Mended()                 {}
func (quiet) StoreFailed(_ context.Context, doing string, err error) error {
	return fault.Away(doing, err)
}

var ring = sync.OnceValue(func() *seal.Ring { // a key takes a while to derive
	key, err := seal.NewKey([seal.SecretSize]byte{1}, seal.Active, time.Unix(0, 0))
	if err != nil {
		panic(err)
	}
	r, err := seal.NewRing([]seal.Key{key}, [seal.SecretSize]byte{})
	if err != nil {
		panic(err)
	}
	return r
})

func newRig(t *testing.T, change ...func(*Options)) *rig {
	g := &rig{t: t, db: faults.Wrap(memory.New()), old: &oldApp{name: "old app", sessions: map[string]adopt.Session{}}}
	limits := &rules.Limits{MaxSize: 4096, Idle: time.Hour, Lifetime: 30 * 24 * time.Hour, Grace: 10 * time.Second}
	keys := ring()
	o := Options{
		From: []adopt.Format{g.old}, Limits: limits, Now: time.Now, Log: &trouble.Log{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))},
		Identify: func(kind, source, what string) []byte { return keys.Legacy(kind, "session", source, what) },
		Limit:    func(context.Context, string) (store.UserLimit, func(store.ID)) { return g.limit, func(store.ID) {} },
		Values: func(st *stored.State) (map[string]any, error) {
			return map[string]any{"user": st.Rec.Header.User, "cart": text(&st.Rec)}, nil
		},
	}
	for _, f := range change {
		f(&o)
	}
	o.Sessions = stored.New(stored.Options{
		Store: g.db.Store(), Limits: limits, Ring: func() *seal.Ring { return keys }, Scope: "session",
		Observer: quiet{}, Timeout: 5 * time.Second, Now: time.Now, Carry: Carry,
		Foreign: func(h *record.Header, now time.Time) time.Time { return g.ComesBackUntil(h, now) },
	})
	g.Adoption = New(o)
	return g
}

func keep(o *Options) { o.Keep = true }

func (g *rig) ctx() context.Context {
	ctx, cancel := g.Sessions.Bounded(g.t.Context())
	g.t.Cleanup(cancel)
	return ctx
}

func text(r *record.Record) string {
	var pairs []string
	for _, f := range r.Fields() {
		pairs = append(pairs, f.Name+"="+string(f.Value))
	}
	return strings.Join(pairs, " ")
}

// mapped is the application's function.
func (g *rig) mapped(old *adopt.Session) (r record.Record, err error) {
	if g.maps++; g.mapErr != nil {
		return r, g.mapErr
	}
	r.Header.User, _ = old.Values["user"].(string)
	if cart, _ := old.Values["cart"].(string); cart != "" {
		r.Put(record.Field{Name: "cart", Value: []byte(cart)})
	}
	if old.Values[originName] != nil {
		g.t.Error("the application sees whose copy it is")
	}
	return r, nil
}

func (g *rig) find(cookie string) (Found, error) {
	v := Visitor{Header: http.Header{"Cookie": {cookie}}, Visit: stored.Visit{UserAgent: "agent", IP: "::1"}, Map: g.mapped}
	if !g.Active(v.Header, time.Now()) {
		return Found{}, nil
	}
	return g.Find(g.ctx(), v)
}

// adopted finds a session that has to be there.
func (g *rig) adopted(cookie string) *stored.State {
	g.t.Helper()
	f, err := g.find(cookie)
	if err != nil || f.State == nil {
		g.t.Fatalf("%s: %+v, %v, refused %v", cookie, f, err, g.Stats())
	}
	return f.State
}

func (g *rig) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// wantRefused finds a session that must not be there.
func (g *rig) wantRefused(cookie, why string) Found {
	g.t.Helper()
	before := g.Stats()[g.old.name].Refused[why]
	f, err := g.find(cookie)
	if stats := g.Stats()[g.old.name]; err != nil || f.State != nil || stats.Refused[why] != before+1 {
		g.t.Errorf("%s: %+v, %v, refused %v; want %s", cookie, f, err, stats.Refused, why)
	}
	return f
}

func TestALegacySessionIsAdopted(t *testing.T) {
	for _, kept := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t, func(o *Options) { o.Keep = kept })
			g.old.put("x", "ada")
			f, err := g.find("old=x")
			if err != nil || f.State == nil || !f.New {
				t.Fatalf("%+v, %v", f, err)
			}
			if h := f.State.Rec.Header; h.User != "ada" || h.AuthTime != 0 || h.UserAgent != "agent" || h.IP != "::1" || h.Created != time.Now().UnixMilli() ||
				!g.Limits.LifetimeEnd(&h).Equal(time.Now().Add(24*time.Hour)) || text(&f.State.Rec) != "cart=3" ||
				h.InlineUntil != time.Now().Add(24*time.Hour).UnixMilli() { // for a manager that ends it but does not adopt
				t.Errorf("%+v", h)
			}
			if forgotten := []string{"old=; Max-Age=0"}; !kept && !slices.Equal(f.SetCookie, forgotten) || kept && f.SetCookie != nil {
				t.Errorf("kept = %v, and set %q", kept, f.SetCookie)
			}
			// Another tab gets the same session.
			again, err := g.find("old=x")
			if err != nil || again.New || again.State == nil || again.State.ID != f.State.ID || g.maps != 1 {
				t.Errorf("again: %+v, %v, mapped %d times", again, err, g.maps)
			}
			if s := g.Stats()[g.old.name]; s.Found != 2 || s.Adopted != 1 || len(s.Refused) != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestNothingIsAdoptedWithoutALegacySession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, func(o *Options) { o.Until = time.Now().Add(time.Hour) })
		g.old.put("x", "ada")
		for _, cookie := range []string{"", "other=x"} {
			if f, err := g.find(cookie); err != nil || f.State != nil || f.SetCookie != nil || g.db.Calls() != 0 {
				t.Errorf("%q: %+v, %v", cookie, f, err)
			}
		}
		now, h := time.Now(), http.Header{"Cookie": {"old=x"}}
		if !g.Active(h, now.Add(time.Hour-1)) || g.Active(h, now.Add(time.Hour)) || g.Active(nil, now) {
			t.Error("it goes on until another time")
		}
		if none := New(Options{}); none.Active(h, now) {
			t.Error("it adopts of nothing")
		}
	})
}

// Requests with one legacy cookie that come at once share one session.
func TestParallelRequestsAdoptOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.old.put("x", "ada")
		g.db.OnSave = func(ctx context.Context, r store.Record, base store.Base) error {
			time.Sleep(10 * time.Millisecond) // so that all have checked before one has saved
			return g.db.Inner.Save(ctx, r, base)
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		ids, made := map[store.ID]bool{}, 0
		for range 20 {
			wg.Go(func() {
				v := Visitor{Header: http.Header{"Cookie": {"old=x"}}, Map: func(old *adopt.Session) (record.Record, error) {
					mu.Lock()
					defer mu.Unlock()
					return g.mapped(old)
				}}
				ctx, cancel := g.Sessions.Bounded(t.Context())
				defer cancel()
				f, err := g.Find(ctx, v)
				mu.Lock()
				defer mu.Unlock()
				if err != nil || f.State == nil {
					t.Errorf("%+v, %v", f, err)
					return
				}
				if ids[f.State.ID] = true; f.New {
					made++
				}
			})
		}
		wg.Wait()
		if len(ids) != 1 || made != 1 || g.Stats()[g.old.name].Adopted != 1 {
			t.Errorf("%d sessions, made %d times, %+v", len(ids), made, g.Stats())
		}
	})
}

func TestWhyALegacySessionIsRefused(t *testing.T) {
	for why, test := range map[adopt.Refusal]struct {
		do     func(*rig)
		forget bool // its cookie goes
	}{
		"not_found":      {func(g *rig) { g.old.sessions = nil }, false},
		refusedEmpty:     {func(g *rig) { g.old.put("x", "", func(s *adopt.Session) { s.Values = nil }) }, false},
		refusedUnmapped:  {func(g *rig) { g.mapErr = errors.New("no") }, false},
		refusedExpired:   {func(*rig) { time.Sleep(25 * time.Hour) }, false},
		refusedUnlimited: {func(g *rig) { g.old.put("x", "ada", func(s *adopt.Session) { s.Expires = time.Time{} }) }, false},
		refusedTooLarge: {func(g *rig) {
			g.old.put("x", "ada", func(s *adopt.Session) { s.Values["cart"] = strings.Repeat("x", 5000) })
		}, false},
		refusedTooMany: {func(g *rig) {
			g.limit = store.UserLimit{Max: 1, Refuse: true}
			g.old.put("y", "ada")
			g.adopted("old=y")
		}, false},
		refusedRevoked:    {func(g *rig) { g.must(g.Refuse(g.ctx(), "ada")) }, true},
		refusedSpent:      {func(g *rig) { g.adopted("old=x"); time.Sleep(2 * time.Hour) }, true},
		refusedEnded:      {func(g *rig) { g.must(g.Sessions.Delete(g.ctx(), g.adopted("old=x"))) }, true},
		refusedSuperseded: {func(g *rig) { g.rotate(g.adopted("old=x")) }, true},
	} {
		for _, kept := range []bool{false, true} {
			if kept && why == refusedSpent { // it may be adopted again
				continue
			}
			t.Run(fmt.Sprint(why, " ", kept), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g := newRig(t, func(o *Options) { o.Keep = kept })
					g.old.put("x", "ada")
					test.do(g)
					adopted := g.Stats()[g.old.name].Adopted
					f := g.wantRefused("old=x", string(why))
					if (len(f.SetCookie) > 0) != (test.forget && !kept) {
						t.Errorf("set %q", f.SetCookie)
					}
					if told := why == refusedSuperseded; (len(f.Refused) == 1) != told || told && (!f.Refused[0].Live || f.Refused[0].Credential != "x") {
						t.Errorf("refused %+v", f.Refused)
					}
					if g.Stats()[g.old.name].Adopted != adopted {
						t.Error("it was adopted")
					}
				})
			})
		}
	}
}

// rotate gives a session another credential.
func (g *rig) rotate(st *stored.State) *stored.State {
	g.t.Helper()
	return g.change(st, func(d *draft.Draft) { d.Rotate(0, time.Minute) })
}

func (g *rig) change(st *stored.State, do func(*draft.Draft)) *stored.State {
	g.t.Helper()
	d := &draft.Draft{}
	d.Start(&st.Rec)
	do(d)
	res, err := g.Sessions.Save(g.ctx(), stored.Change{Who: st.Who, Base: st, Draft: d, Arrived: time.Now()})
	g.must(err)
	return res.State
}

// The browser has learned of its logout, so a request that was under way is
// refused, like one with an old reference.
func TestALogoutOfAnAdoptedSessionRefusesRequestsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.old.put("x", "ada")
		g.must(g.Sessions.Replace(g.ctx(), g.adopted("old=x")))
		if f := g.wantRefused("old=x", "ended"); len(f.Refused) != 1 || f.Refused[0].Live {
			t.Errorf("just now: %+v", f)
		}
		time.Sleep(store.MinTombstone)
		if f := g.wantRefused("old=x", "ended"); len(f.Refused) != 0 {
			t.Errorf("later: %+v", f)
		}
		time.Sleep(21 * time.Hour)
		g.wantRefused("old=x", "ended") // for as long as the old application knows it
	})
}

// With both cookies kept, an adopted session that was idle for too long can be
// adopted again: the visitor was active in the old application.
func TestAKeptCookieIsAdoptedAgainAfterItsSessionHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, keep)
		g.old.put("x", "ada")
		began := time.Now()
		first := g.adopted("old=x")
		time.Sleep(2 * time.Hour)
		second, err := g.find("old=x")
		if err != nil || !second.New || second.State.ID != first.ID {
			t.Fatalf("%+v, %v", second, err)
		}
		if h := second.State.Rec.Header; h.Created != began.UnixMilli() { // one lifetime for both
			t.Errorf("it lives since %v", record.Time(h.Created).Sub(began))
		}
	})
}

func TestALegacyServerThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, skip := range []bool{false, true} {
			g := newRig(t, func(o *Options) { o.SkipOutages = skip })
			g.old.put("x", "ada")
			g.old.away = errors.New("no answer")
			f, err := g.find("old=x")
			if f.State != nil || (err == nil) != skip || err != nil && !errors.Is(err, fault.Unavailable) || g.Stats()[g.old.name].Outages != 1 {
				t.Errorf("skip = %v: %+v, %v, %+v", skip, f, err, g.Stats())
			}
		}
		g := newRig(t)
		g.old.put("x", "ada")
		g.db.OnLoad = func(context.Context, store.ID) (store.Record, error) { return store.Record{}, faults.ErrLost }
		if f, err := g.find("old=x"); f.State != nil || !errors.Is(err, fault.Unavailable) {
			t.Errorf("the store is away: %+v, %v", f, err)
		}
		g.db.OnLoad = nil
		g.adopted("old=x")
	})
}

// A second format is tried if the first finds no session.
func TestFormatsAreAskedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := &oldApp{name: "older app", sessions: map[string]adopt.Session{}}
		g := newRig(t, func(o *Options) { o.From = append([]adopt.Format{other}, o.From...) })
		g.old.put("x", "ada")
		st := g.adopted("old=x")
		if s := g.Stats(); s["older app"].Refused["not_found"] != 1 || s["old app"].Adopted != 1 {
			t.Errorf("%+v", s)
		}
		other.put("x", "eve") // the same cookie is another session there
		if next := g.adopted("old=x"); next.ID == st.ID || next.Rec.Header.User != "eve" {
			t.Errorf("%+v", next)
		}
	})
}

func TestAnAdoptedSessionLivesNoLongerThanTheOldOne(t *testing.T) {
	for name, test := range map[string]struct {
		change         func(*adopt.Session)
		idle, lifetime time.Duration
	}{
		"it expires":             {func(*adopt.Session) {}, time.Hour, 24 * time.Hour},
		"later than ours would":  {func(s *adopt.Session) { s.Expires = s.Expires.Add(900 * time.Hour) }, time.Hour, 30 * 24 * time.Hour},
		"it slides, for shorter": {func(s *adopt.Session) { s.Idle = time.Minute }, time.Minute, 30 * 24 * time.Hour},
		"it slides, for longer":  {func(s *adopt.Session) { s.Idle = 24 * time.Hour }, time.Hour, 30 * 24 * time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			g.old.put("x", "ada", test.change)
			h := g.adopted("old=x").Rec.Header
			if idle, life := g.Limits.IdleTimeout(&h), time.Until(g.Limits.LifetimeEnd(&h)); idle != test.idle || life != test.lifetime {
				t.Errorf("%s: idle for %v, lives for %v", name, idle, life)
			}
			// A login returns to the application's own limits.
			to := record.Header{}
			if Carry(&to, &h); to.Legacy == "" || to.Idle != 0 || to.Lifetime != 0 {
				t.Errorf("%s: carried %+v", name, to)
			}
		})
	}
	to := record.Header{Idle: 5}
	if Carry(&to, &record.Header{Idle: 6}); to.Legacy != "" || to.Idle != 5 {
		t.Errorf("of a session that was not adopted: %+v", to)
	}
}

func TestSessionsOfAUserAreRefusedUpToNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		issued := func(d time.Duration) func(*adopt.Session) {
			return func(s *adopt.Session) { s.Issued = time.Now().Add(d) }
		}
		g.old.put("before", "ada", issued(-time.Hour))
		g.old.put("unknown", "ada", func(s *adopt.Session) { s.Issued = time.Time{} })
		g.old.put("another", "bob")
		g.old.put("nobody", "")
		g.must(g.Refuse(g.ctx(), "ada"))
		g.old.put("now", "ada")
		time.Sleep(time.Millisecond)
		g.old.put("after", "ada")
		g.old.put("future", "ada", issued(time.Hour))
		for _, id := range []string{"before", "unknown", "now", "future"} {
			g.wantRefused("old="+id, "revoked")
		}
		for _, id := range []string{"after", "another", "nobody"} {
			g.adopted("old=" + id)
		}
		g.must(g.Refuse(g.ctx(), "ada"))
		g.must(g.Refuse(g.ctx(), "ada")) // again, which changes nothing
		g.old.put("late", "ada", issued(-time.Nanosecond))
		g.wantRefused("old=late", "revoked")
		time.Sleep(20 * time.Hour)
		g.wantRefused("old=late", "revoked")
	})
}

func TestALogoutWhileASessionIsAdoptedWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.old.put("x", "ada")
		var id store.ID
		g.db.OnSave = func(ctx context.Context, r store.Record, base store.Base) error {
			g.db.OnSave = nil
			id = r.ID
			g.must(g.Refuse(g.ctx(), "ada"))
			return g.db.Inner.Save(ctx, r, base)
		}
		g.wantRefused("old=x", "revoked")
		if st, err := g.Sessions.Ask(g.ctx(), id, 0); err != nil || !st.Meta.IsEnd() {
			t.Errorf("the session that was made: %+v, %v", st, err)
		}
	})
}

// An unreadable note may have been a refusal of all sessions.
func TestADamagedNoteRefusesAllOfItsUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.must(g.Refuse(g.ctx(), "ada"))
		id := g.mark("user", g.old.name, "ada")
		row, err := g.db.Inner.Load(t.Context(), id)
		g.must(err)
		base := row.Base()
		row.Data, row.SaveIDs, row.Version = []byte("no"), []store.SaveID{2}, row.Version+1
		g.must(g.db.Inner.Save(t.Context(), row, base))
		time.Sleep(time.Minute)
		g.old.put("x", "ada")
		g.wantRefused("old=x", "revoked")
		g.must(g.Refuse(g.ctx(), "ada"))
		time.Sleep(time.Minute)
		g.old.put("y", "ada")
		g.wantRefused("old=y", "revoked")
		g.old.put("z", "bob")
		g.adopted("old=z")
	})
}

func TestTheEndOfAnAdoptedSessionEndsTheOldOne(t *testing.T) {
	for _, copies := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			g.old.copies = copies
			g.old.put("x", "ada")
			st := g.adopted("old=x")
			g.must(g.BeforeEnd(g.ctx(), st))
			g.must(g.Sessions.Replace(g.ctx(), st))
			set, err := g.AfterEnd(g.ctx(), &st.Rec.Header)
			if err != nil || !slices.Equal(set, []string{"old=; Max-Age=0"}) || !slices.Equal(g.old.ended, []string{"x"}) || g.Stats()[g.old.name].Ended != 1 {
				t.Errorf("%q, %v, ended %q", set, err, g.old.ended)
			}
			// A copy of its cookie under another name: if cookies hold the
			// session, all of the user's earlier cookies are refused.
			g.old.put("x", "ada")
			g.wantRefused("old=x", "ended")
			g.old.put("copy", "ada")
			if f, err := g.find("old=copy"); err != nil || (f.State == nil) != copies {
				t.Errorf("copies = %v: %+v, %v", copies, f, err)
			}
			g.old.away = errors.New("no answer")
			if _, err := g.AfterEnd(g.ctx(), &st.Rec.Header); !errors.Is(err, fault.Unavailable) || g.Stats()[g.old.name].Outages != 1 {
				t.Errorf("its server is away: %v", err)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		plain, err := g.Sessions.Insert(g.ctx(), record.Record{Header: record.Header{User: "ada"}}, stored.NewWho(), store.UserLimit{}, nil)
		g.must(err)
		calls := g.db.Calls()
		set, err := g.AfterEnd(g.ctx(), &plain.Rec.Header)
		if g.must(g.BeforeEnd(g.ctx(), plain)); err != nil || set != nil || g.db.Calls() != calls || g.old.ended != nil {
			t.Errorf("a session that was not adopted: %q, %v", set, err)
		}
	})
}

// A login moves the session; the session under which its credential was adopted must also end.
func TestAnAdoptedSessionThatHasMovedOnIsLeftForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, keep)
		g.old.put("x", "")
		st := g.adopted("old=x")
		d := &draft.Draft{}
		d.Start(&st.Rec)
		moved, err := g.Sessions.Move(g.ctx(), stored.Move{
			Change: stored.Change{Who: st.Who, Base: st, Draft: d, Arrived: time.Now()}, To: stored.NewWho(), Ends: true,
			Login: &draft.Login{User: "ada", At: time.Now(), Created: time.Now().UnixMilli()},
		})
		g.must(err)
		g.wantRefused("old=x", "ended") // its new session has another credential
		g.must(g.BeforeEnd(g.ctx(), moved))
		g.must(g.Sessions.Replace(g.ctx(), moved))
		time.Sleep(23 * time.Hour)
		g.wantRefused("old=x", "ended")
		for _, id := range []store.ID{st.ID, moved.ID} {
			if row, err := g.db.Inner.Load(t.Context(), id); err != nil || !row.IsEnd() || row.Deadline.Before(time.Now()) {
				t.Errorf("%v, %v", row, err)
			}
		}
	})
}

func TestUntilWhenALegacyCredentialMayComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		ms := func(d time.Duration) int64 { return now.Add(d).UnixMilli() }
		for name, test := range map[string]struct {
			l     link
			until time.Duration // of the adoption; 0 = no limit
			want  time.Duration
		}{
			"it expires":                      {link{Expires: ms(time.Hour)}, 0, time.Hour},
			"it could just be issued again":   {link{Issued: ms(-23 * time.Hour), Expires: ms(time.Hour)}, 0, 24 * time.Hour},
			"it slides":                       {link{Expires: ms(time.Hour), Slides: 1}, 0, rules.MaxAge},
			"it never expires":                {link{}, 0, rules.MaxAge},
			"adopting ends before":            {link{Expires: ms(time.Hour)}, time.Minute, time.Minute},
			"adopting ends, and it slides":    {link{Expires: ms(time.Hour), Slides: 1}, 90 * time.Hour, 90 * time.Hour},
			"adopting ends, and it never":     {link{}, 90 * time.Hour, 90 * time.Hour},
			"adopting ends long after it has": {link{Expires: ms(time.Hour)}, 90 * time.Hour, time.Hour},
		} {
			a := New(Options{})
			if test.until > 0 {
				a.Until = now.Add(test.until)
			}
			test.l.Source = "old app"
			h := record.Header{Legacy: test.l.encode()}
			if got := a.ComesBackUntil(&h, now).Sub(now); got != test.want {
				t.Errorf("%s: for %v, want %v", name, got, test.want)
			}
		}
		if got := New(Options{}).ComesBackUntil(&record.Header{}, now); !got.IsZero() {
			t.Errorf("a session that was not adopted: %v", got)
		}
		if got := New(Options{}).ComesBackUntil(&record.Header{Legacy: "no link"}, now); !got.IsZero() {
			t.Errorf("no link: %v", got)
		}
		if got := newRig(t).EvictedUntil(now).Sub(now); got != store.MinTombstone {
			t.Errorf("tombstones of evicted sessions are kept for %v", got)
		}
		if got := newRig(t, keep).EvictedUntil(now).Sub(now); got != rules.MaxAge {
			t.Errorf("where cookies are kept, for %v", got)
		}
	})
}
