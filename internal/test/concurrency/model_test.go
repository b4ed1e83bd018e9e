package concurrency_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

var modelSeed = flag.Uint64("model.seed", 0, "run TestModel with this seed only")

// Random requests of several browsers, fast and slow, to three replicas over a
// store that fails at random; responses arrive late and in any order. The
// results are checked against a simple model: increments are exact, ended
// sessions stay ended, one-time values are taken once, and no visitor gets
// another user's values.
func TestModel(t *testing.T) {
	seeds := []uint64{*modelSeed}
	if *modelSeed == 0 {
		n := 60
		if testing.Short() {
			n = 10
		}
		seeds = nil
		for range n {
			seeds = append(seeds, rand.Uint64())
		}
	}
	for _, seed := range seeds {
		ok := t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newModel(t, seed)
				for range 400 {
					w.step()
				}
				w.finish()
			})
		})
		if !ok {
			t.Fatalf("run it again with -run TestModel -model.seed=%d", seed)
		}
	}
}

type model struct {
	t        *testing.T
	random   *rand.Rand
	db       *memory.Store
	replicas []*sitetest.Site
	tabs     []*modelBrowser
	lives    map[string]*life // by handle
	tickets  map[string]int   // how often each was had
	clock    int              // steps so far
	failing  bool

	mu     sync.Mutex // of chance, which the store uses at once with others
	chance *rand.Rand
}

// life is the model's state of one stored session.
type life struct {
	base           int       // the count when its login made it
	acked, unknown int       // increments since
	user           string    // of the login that made it
	ended          int       // at which step it surely ended; 0 = not
	stored         time.Time // the first that it may have been stored; zero = never
	maybeEnded     bool
	holder         *sitetest.Browser // the one that has seen its newest version
	version        uint64
}

type modelBrowser struct {
	*sitetest.Browser
	slow      []*modelRequest
	underWay  []*sitetest.Answer
	snapshots []*sitetest.Browser
}

type modelRequest struct {
	*sitetest.Slow
	site  *sitetest.Site
	began int
	at    time.Time
	jar   *sitetest.Browser // the cookies that it was sent with
}

// begin sends a request that loads its session and waits.
func (w *model) begin(b *sitetest.Browser) *modelRequest {
	site := w.replicas[w.random.IntN(len(w.replicas))]
	jar := b.Clone()
	return &modelRequest{b.Begin(site), site, w.clock, time.Now(), jar}
}

func newModel(t *testing.T, seed uint64) *model {
	w := &model{
		t: t, db: memory.New(), lives: map[string]*life{}, tickets: map[string]int{}, failing: true,
		random: rand.New(rand.NewPCG(seed, 1)), chance: rand.New(rand.NewPCG(seed, 2)),
	}
	keys := sitetest.Keys(t)
	for range 3 {
		db := faults.Wrap(w.db)
		db.OnSave = w.save
		db.OnLoad = func(ctx context.Context, id store.ID) (store.Record, error) {
			if w.percent(3) {
				return store.Record{}, faults.ErrLost
			}
			return w.db.Load(ctx, id)
		}
		db.OnDelete = func(ctx context.Context, id store.ID, until time.Time) error {
			if w.percent(10) {
				return faults.ErrLost
			}
			return w.db.Delete(ctx, id, until)
		}
		w.replicas = append(w.replicas, sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db, Keys: keys})))
	}
	for range 3 {
		w.tabs = append(w.tabs, &modelBrowser{Browser: sitetest.NewBrowser()})
	}
	return w
}

// percent is true n times in a hundred, while the store is failing.
func (w *model) percent(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failing && w.chance.IntN(100) < n
}

func (w *model) save(ctx context.Context, rec store.Record, base store.Base) error {
	save := func(ctx context.Context) error { return w.db.Save(ctx, rec, base) }
	w.mu.Lock()
	kind := ""
	if w.failing && w.chance.IntN(100) < 15 {
		names := slices.Sorted(func(yield func(string) bool) {
			for name := range sitetest.SaveFaults {
				if !yield(name) {
					return
				}
			}
		})
		kind = names[w.chance.IntN(len(names))]
	}
	w.mu.Unlock()
	if kind == "" {
		return save(ctx)
	}
	return sitetest.SaveFaults[kind](ctx, save)
}

func (w *model) life(handle string) *life {
	if w.lives[handle] == nil {
		w.lives[handle] = &life{}
	}
	return w.lives[handle]
}

func (w *model) step() {
	w.clock++
	b := w.tabs[w.random.IntN(len(w.tabs))]
	switch w.random.IntN(8) {
	case 0:
		time.Sleep(time.Duration(w.random.IntN(40_000)) * time.Millisecond)
	case 1: // a response arrives
		if n := len(b.underWay); n > 0 {
			i := w.random.IntN(n)
			b.underWay[i].Arrive()
			b.underWay = slices.Delete(b.underWay, i, i+1)
		}
	case 2: // an attacker with earlier cookies reads
		if n := len(b.snapshots); n > 0 {
			w.run(w.begin(b.snapshots[w.random.IntN(n)].Clone()), 0)
		}
		b.snapshots = append(b.snapshots, b.Steal())
	case 3, 4:
		if len(b.slow) < 3 {
			b.slow = append(b.slow, w.begin(b.Browser))
			return
		}
		fallthrough
	case 5:
		if n := len(b.slow); n > 0 {
			i := w.random.IntN(n)
			slow := b.slow[i]
			b.slow = slices.Delete(b.slow, i, i+1)
			w.answered(b, w.run(slow, w.random.IntN(100)))
		}
	default:
		w.answered(b, w.run(w.begin(b.Browser), w.random.IntN(100)))
	}
}

// answered lets an answer arrive now or later.
func (w *model) answered(b *modelBrowser, a *sitetest.Answer) {
	if w.random.IntN(3) > 0 {
		a.Arrive()
		return
	}
	b.underWay = append(b.underWay, a)
}

// run finishes a request with one of a hundred actions, and updates the model.
func (w *model) run(r *modelRequest, what int) *sitetest.Answer {
	var (
		s            *sojourn.Session
		stored       bool
		before, user string
		n, saved     int // increments; those that Save has kept for sure
		popped, want string
		writes       bool
		logout       bool
	)
	finished, started := w.clock, time.Now()
	a := r.FinishHTTP(func(rw http.ResponseWriter, req *http.Request) {
		var err error
		if s, err = r.site.Manager.Get(req.Context()); err != nil {
			r.site.Manager.ServeError(rw, req, err)
			return
		}
		before, user = s.Handle(), s.User()
		stored = !s.IsNew() && s.Info().Placement == sojourn.PlacementStored
		var secret string
		_ = s.Get("secret", &secret)
		if secret != user {
			w.t.Errorf("%q sees the secret of %q", user, secret)
		}
		if l := w.life(before); stored && (l.ended > 0 && l.ended < r.began || l.user != user) {
			w.t.Errorf("step %d: the session of %q, ended at step %d, is %q's", r.began, l.user, l.ended, user)
		}
		increment := func() { sitetest.Visits.Update(s, sitetest.AddOne); n++ }
		switch {
		case what < 20: // read
		case what < 45:
			writes = true
			increment()
		case what < 55:
			writes = true
			increment()
			if err := s.Save(req.Context()); err == nil {
				saved = n
				before = s.Handle() // a new one, if an inline cookie had outlived its session
			}
			increment()
		case what < 60:
			increment()
			n = 0
			rw.WriteHeader(http.StatusInternalServerError)
		case what < 67:
			writes = true
			sitetest.Ticket.Set(s, fmt.Sprint("ticket ", w.clock))
		case what < 77:
			popped, _ = sitetest.Ticket.Pop(s)
			writes = popped != ""
		case what < 84:
			sitetest.Colour.Set(s, fmt.Sprint("colour ", w.clock))
		case what < 93:
			if what < 88 { // as an OAuth callback does
				popped, _ = sitetest.Ticket.Pop(s)
			}
			want = fmt.Sprint("user", w.random.IntN(2))
			// Two logins from one session both carry its values on, so the
			// ticket that is there is replaced.
			sitetest.Ticket.Set(s, fmt.Sprint("ticket ", w.clock))
			s.Login(want)
			s.Set("secret", want)
		case what < 96:
			logout = true
			s.Logout()
		default:
			writes = stored
			s.Rotate()
		}
	})
	if s == nil {
		return a
	}
	w.t.Logf("step %d (began %d): %d with %.4s of %q (stored %v): +%d, saved %d, popped %q, login %q, logout %v: %d, %.4s at version %d",
		finished, r.began, what, before, user, stored, n, saved, popped, want, logout, a.Status, s.Handle(), s.Info().Version)
	w.life(before).acked += saved
	old := w.life(before)
	if old.stored.IsZero() && (stored || a.Status == http.StatusServiceUnavailable || s.Info().Placement == sojourn.PlacementStored) {
		old.stored = started
	}
	if a.Status == http.StatusServiceUnavailable {
		old.unknown += n - saved
		if want != "" || logout {
			old.maybeEnded = true
		}
		return a
	}
	if a.Status != http.StatusOK {
		return a
	}
	if writes && stored && old.ended > 0 && old.ended < finished {
		w.t.Errorf("step %d: a change of a session that ended at step %d was acknowledged", finished, old.ended)
	}
	if popped != "" {
		if w.tickets[popped]++; w.tickets[popped] > 1 {
			w.t.Errorf("step %d: %s was had twice", finished, popped)
		}
	}
	// A login ends the previous session even if another request has promoted it
	// meanwhile, unless its cookie was outdated when the request began; a
	// logout of an inline session cannot.
	const grace = 2 * time.Minute
	parallel := stored || old.stored.IsZero() || r.at.Before(old.stored.Add(grace))
	if (want != "" && !s.IsNew() && parallel || logout && stored) && old.ended == 0 {
		old.ended = finished
	}
	now := w.life(s.Handle())
	now.acked += n - saved
	if want != "" {
		now.user, now.base = want, sitetest.Visits.Get(s)
	}
	if i := s.Info(); i.Placement == sojourn.PlacementStored && i.Version >= now.version {
		now.holder, now.version = r.jar, i.Version
		a.ArriveAt(now.holder)
	}
	return a
}

// finish completes everything under way and checks every session.
func (w *model) finish() {
	for _, b := range w.tabs {
		for _, slow := range b.slow {
			w.run(slow, w.random.IntN(100))
		}
	}
	w.mu.Lock()
	w.failing = false
	w.mu.Unlock()
	time.Sleep(time.Minute) // what is late arrives
	held := 0
	for handle, l := range w.lives {
		if l.holder == nil {
			continue
		}
		a := l.holder.Visit(w.replicas[0], func(s *sojourn.Session) {
			live := s.Handle() == handle && s.Info().Placement == sojourn.PlacementStored
			switch {
			case live && l.ended > 0:
				w.t.Errorf("%.4s, that ended at step %d, is live", handle, l.ended)
			case !live && l.ended == 0 && !l.maybeEnded:
				w.t.Errorf("%.4s of %q, that nobody ended, is gone", handle, l.user)
			case live:
				held++
				if n := sitetest.Visits.Get(s) - l.base; n < l.acked || n > l.acked+l.unknown {
					w.t.Errorf("%.4s: %d increments were acknowledged and %d are unknown, but the count grew by %d", handle, l.acked, l.unknown, n)
				}
			}
		})
		if a.Status != http.StatusOK {
			w.t.Errorf("got %d %s", a.Status, a.Body)
		}
	}
}
