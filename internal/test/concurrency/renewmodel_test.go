package concurrency_test

import (
	"context"
	"errors"
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

var renewSeed = flag.Uint64("renew.seed", 0, "run TestModelOfRenewals with this seed only")

// Many requests of one visitor at three replicas, over a store that loses
// answers at random and is away now and then, renew a token that expires all
// the time. Clients leave, the visitor logs in again, logs out and is revoked.
// As long as no process dies, no token is sent twice, and the last issued token
// is in the visitor's session, or was returned to a request because the session
// has ended.
func TestModelOfRenewals(t *testing.T) {
	seeds := []uint64{*renewSeed}
	if *renewSeed == 0 {
		n := 20
		if testing.Short() {
			n = 5
		}
		seeds = nil
		for range n {
			seeds = append(seeds, rand.Uint64())
		}
	}
	renewed, back := 0, 0
	for _, seed := range seeds {
		ok := t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRenewalModel(t, seed)
				w.run()
				renewed, back = renewed+w.issued, back+w.back
			})
		})
		if !ok {
			t.Fatalf("run it again with -run TestModelOfRenewals -renew.seed=%d", seed)
		}
	}
	t.Logf("%d tokens were issued, %d came back because the session had ended", renewed, back)
	if *renewSeed == 0 && !testing.Short() && (renewed < 12*len(seeds) || back == 0) {
		t.Error("too little has happened")
	}
}

// families are an authorization server's: a login begins one, and one that sees a
// token twice ends.
type families struct {
	issued int
	latest map[int]int // by family, the token that is good
	ended  map[int]bool
}

type token struct {
	Family, Refresh int
	Expires         time.Time
}

var tokenKey = sojourn.NewKey[token]("token", sojourn.ServerSide)

type renewalModel struct {
	families
	t      *testing.T
	db     *memory.Store
	labs   []*sitetest.Lab
	stores []*faults.Store

	mu       sync.Mutex // of what follows, and of families
	random   *rand.Rand
	v        *sitetest.Guest // the last login
	family   int
	out      bool           // v's session may have ended
	returned map[token]bool // to whom Renew has answered that the session has ended
	back     int
	failing  bool
}

func newRenewalModel(t *testing.T, seed uint64) *renewalModel {
	w := &renewalModel{
		t: t, db: memory.New(), random: rand.New(rand.NewPCG(seed, 3)), failing: true,
		families: families{latest: map[int]int{}, ended: map[int]bool{}}, returned: map[token]bool{},
	}
	keys := sitetest.Keys(t)
	for range 3 {
		own := faults.Wrap(w.db)
		own.OnSave = func(ctx context.Context, rec store.Record, base store.Base) error {
			time.Sleep(w.upTo(30))
			switch n := w.chance(100); {
			case n < 3:
				return faults.ErrLost
			case n < 8:
				_ = w.db.Save(ctx, rec, base)
				return faults.ErrLost
			}
			return w.db.Save(ctx, rec, base)
		}
		own.OnLoad = func(ctx context.Context, id store.ID) (store.Record, error) {
			time.Sleep(w.upTo(20))
			if w.chance(100) < 3 {
				return store.Record{}, faults.ErrLost
			}
			return w.db.Load(ctx, id)
		}
		w.stores = append(w.stores, own)
		w.labs = append(w.labs, sitetest.NewLab(t, func(c *sojourn.Config) { c.Keys, c.Store = keys, own }))
	}
	return w
}

// chance is a random number below n, or n once failures are off.
func (w *renewalModel) chance(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.failing {
		return n
	}
	return w.random.IntN(n)
}

func (w *renewalModel) upTo(ms int) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.random.IntN(ms+1)) * time.Millisecond
}

// fetch is the authorization server, which takes its time before and after it
// decides.
func (w *renewalModel) fetch(_ context.Context, old token) (token, error) {
	time.Sleep(w.upTo(1500))
	g, err := w.exchange(old)
	time.Sleep(w.upTo(1500))
	return g, err
}

func (w *renewalModel) exchange(old token) (token, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.random.IntN(10) == 0 {
		return old, errors.New("temporarily_unavailable")
	}
	if w.latest[old.Family] != old.Refresh || w.ended[old.Family] {
		w.ended[old.Family] = true
		w.t.Errorf("family %d has ended: token %d was sent, the last one is %d", old.Family, old.Refresh, w.latest[old.Family])
		return old, errors.New("invalid_grant")
	}
	return w.issue(old.Family), nil
}

func (w *renewalModel) issue(family int) token {
	w.issued++
	w.latest[family] = w.issued
	return token{family, w.issued, time.Now().Add(time.Duration(w.random.IntN(3000)) * time.Millisecond)}
}

// login begins a family in a browser without a session.
func (w *renewalModel) login() {
	for {
		v := sitetest.NewGuest(w.t)
		w.mu.Lock()
		family := len(w.latest)
		first := w.issue(family)
		w.mu.Unlock()
		resp := w.labs[family%3].Serve(v, func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
			s.Login("ada")
			tokenKey.Set(s, first)
		})
		if resp.StatusCode == http.StatusOK {
			w.mu.Lock()
			w.v, w.family, w.out = v, family, false
			w.mu.Unlock()
			return
		}
	}
}

// visit is a request that renews the token if it has expired.
func (w *renewalModel) visit(replica int, patience time.Duration) {
	w.mu.Lock()
	v := w.v.Copy()
	w.mu.Unlock()
	w.labs[replica].Serve(v, func(_ http.ResponseWriter, req *http.Request, s *sojourn.Session) {
		ctx, leave := context.WithTimeout(req.Context(), patience)
		defer leave()
		sitetest.CartKey.Update(s, sitetest.AddOne)
		stale := func(t token) bool { return !time.Now().Before(t.Expires) }
		got, err := tokenKey.Renew(ctx, s, stale, w.fetch)
		if errors.Is(err, sojourn.ErrEnded) {
			w.mu.Lock()
			w.returned[token{got.Family, got.Refresh, time.Time{}}] = true
			w.back++
			w.mu.Unlock()
		}
	})
}

// again is a login of the same user: the values go along.
func (w *renewalModel) again(replica int) {
	w.mu.Lock()
	v := w.v.Copy()
	w.mu.Unlock()
	resp := w.labs[replica].Serve(v, func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
		if s.User() == "ada" {
			s.Login("ada", "otp")
		}
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if resp.StatusCode == http.StatusOK {
		w.v = v
	}
}

func (w *renewalModel) run() {
	var all sync.WaitGroup
	w.login()
	for range 60 {
		replica := w.chance(3)
		switch n := w.chance(100); {
		case n < 80:
			patience := w.upTo(6000) + time.Millisecond
			if n < 60 {
				patience = time.Hour
			}
			all.Go(func() { w.visit(replica, patience) })
		case n < 90:
			w.again(replica)
		case n < 93:
			w.mu.Lock()
			v := w.v.Copy()
			w.mu.Unlock()
			w.labs[replica].Serve(v, func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) { s.Logout() })
			w.ends()
			w.login()
		case n < 95:
			_, _ = w.labs[replica].RevokeUser(w.t.Context(), "ada")
			w.ends()
			w.login()
		default:
			// The store is unreachable for all replicas, for at least a lease's time to live.
			away := time.Duration(w.chance(25)) * time.Second
			for _, own := range w.stores {
				own.Down.Store(true)
			}
			time.Sleep(away)
			for _, own := range w.stores {
				own.Down.Store(false)
			}
		}
		time.Sleep(w.upTo(1500))
	}
	w.mu.Lock()
	w.failing = false
	w.mu.Unlock()
	all.Wait()
	time.Sleep(30 * time.Second) // what was fetched is kept by now
	w.judge()
}

// ends notes that the family's session has ended, so its last token may be
// nowhere.
func (w *renewalModel) ends() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = true
}

// judge checks where the last token of the last family is.
func (w *renewalModel) judge() {
	var kept token
	w.labs[0].Do(w.v.Copy(), func(s *sojourn.Session) { kept = tokenKey.Get(s) })
	last := w.latest[w.family]
	if kept.Family == w.family && kept.Refresh == last {
		return
	}
	if w.returned[token{w.family, last, time.Time{}}] && w.sessions() == 0 {
		return
	}
	w.t.Errorf("family %d: the session keeps token %d of family %d, the last one is %d (%s)", w.family, kept.Refresh, kept.Family, last, w.what())
}

func (w *renewalModel) sessions() int {
	list, err := w.labs[0].Sessions(context.Background(), "ada")
	if err != nil {
		w.t.Fatal(err)
	}
	return len(list)
}

func (w *renewalModel) what() string {
	var lines []string
	for _, lab := range w.labs {
		lines = append(lines, lab.Log.With("renewed for a request")...)
	}
	return fmt.Sprint(slices.Compact(lines))
}
