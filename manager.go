package sojourn

import (
	"context"
	"crypto/rand"
	"errors"
	"hash/maphash"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/internal/adoption"
	"github.com/sojourn-go/sojourn/internal/bridge"
	"github.com/sojourn-go/sojourn/internal/cookies"
	"github.com/sojourn-go/sojourn/internal/ends"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/trouble"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// Manager loads and keeps the sessions of one cookie name. It is safe for
// concurrent use. Make one with [New] for each kind of session that the
// application has, and wrap the application's handler with each of them.
type Manager struct {
	cfg      Config
	log      *trouble.Log
	cookies  *cookies.Cookies
	caches   bool   // the store has copies: browsers are told which version they have seen
	aad      []byte // bound into everything that is sealed
	limits   rules.Limits
	stored   *stored.Sessions
	count    counters
	ahead    time.Duration // of the clock; only tests set it
	ends     *ends.Feed
	told     struct{ expired onceSet }
	adoption *adoption.Adoption
	logins   succession
	ring     func() *seal.Ring // the keys that Config.Keys holds now

	open      sync.RWMutex // read-locked by work in flight, locked for good by Close
	closing   sync.Once
	stop      context.Context // ends with Close
	stopNow   context.CancelFunc
	started   time.Time
	nextSweep atomic.Int64 // nanoseconds after started, by the monotonic clock
}

// New checks the configuration, reports every mistake in it at once, and
// returns a manager. It starts no goroutine and does no I/O. The store belongs
// to the caller, who closes it after [Manager.Close].
func New(cfg Config) (*Manager, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, ring: bridge.Keys(cfg.Keys), log: &trouble.Log{Logger: cfg.Logger}, aad: wire.Bind(cfg.Name), logins: succession{seed: maphash.MakeSeed()}}
	_, m.caches = cfg.Store.(store.FloorLoader)
	m.stop, m.stopNow = context.WithCancel(context.Background())
	m.limits = rules.Limits{
		Mode: rules.Mode(cfg.Mode), InlineLimit: cfg.InlineLimit, MaxSize: cfg.MaxSize,
		Idle: cfg.IdleTimeout, Lifetime: cfg.Lifetime, RotateEvery: cfg.Rotation.Every, Grace: cfg.Rotation.Grace,
		BrowserSession: cfg.Cookie.BrowserSession,
	}
	var former []cookies.Attributes
	for i := range cfg.FormerCookies {
		former = append(former, cfg.FormerCookies[i].attributes())
	}
	m.cookies = cookies.New(cookies.Options{
		Name: cfg.Name, Now: cfg.Cookie.attributes(), Limits: &m.limits, Ring: m.ring, Bound: m.aad,
		Former: former, Mended: observer{m}.Mended,
	})
	m.stored = stored.New(stored.Options{
		Store: cfg.Store, Limits: &m.limits, Ring: m.ring, Name: cfg.Name, Bound: m.aad,
		Observer: observer{m}, Timeout: cfg.Timeout, Now: m.now, Foreign: m.comesBackUntil, Carry: adoption.Carry,
	})
	m.adoption = adoption.New(m.adopting(cfg.Adopt))
	o := ends.Options{Store: cfg.Store, Now: m.now, Read: m.readEnds}
	if cfg.Store != nil {
		o.Look = m.whatBecameOf
	}
	m.ends = ends.New(m.stop, o)
	m.started = time.Now()
	m.scheduleSweep(0)
	return m, nil
}

// now is the time in the precision that is stored.
func (m *Manager) now() time.Time { return time.Now().Add(m.ahead).UTC().Truncate(time.Millisecond) }

// Wrap returns a handler that makes sessions available to next and to all that
// next calls. A request that never asks for its session costs next to nothing.
// A request that does commits its changes once, right before the first byte of
// the response or, if nothing is written, when next returns; if that fails the
// visitor gets an error instead of the response (see [Manager.ServeError]).
// A response with a status of 500 or above, and a handler that panics, keep
// nothing, except a Logout; so does a handler that writes its first byte after
// the deadline of the request's context, which is an error if it changed
// anything: [http.TimeoutHandler] around Wrap has answered by then.
//
// Several managers may wrap one handler; each commits for itself, the inner
// one first. Wrapping twice with the same manager is as good as once, unless the
// inner one gets a request with other cookies, or one that a server inside the
// outer one has read from a hijacked connection: that has a session of its own.
func (m *Manager) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q, _ := r.Context().Value(m).(*exchange); q != nil && q.passes(r) {
			next.ServeHTTP(w, r)
			return
		}
		q := &exchange{Context: r.Context(), m: m, inner: w, encoding: w.Header()["Content-Encoding"]}
		q.r = r.WithContext(q)
		defer q.leave()
		next.ServeHTTP(q, q.r)
		q.finish()
	})
}

// Handler returns a handler that calls f with the request's session: Wrap, Get
// and ServeError in one.
func (m *Manager) Handler(f func(http.ResponseWriter, *http.Request, *Session)) http.Handler {
	return m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := m.Get(r.Context())
		if err != nil {
			m.ServeError(w, r, err)
			return
		}
		f(w, r, s)
	}))
}

// Get returns the session of the request that ctx belongs to. The first call
// of a request loads it; that is the only place where loading can fail, with
// [ErrUnavailable] or [ErrClosed]. Without [Manager.Wrap] around the handler it
// returns [ErrNoMiddleware]; so it does where a server inside the wrapped handler
// has read the request, as h2c does: that one's handler needs a Wrap of its own.
func (m *Manager) Get(ctx context.Context) (*Session, error) {
	q := m.request(ctx)
	if q == nil {
		return nil, m.noMiddleware(ctx)
	}
	return q.session(ctx)
}

// Open returns the session that the request header in brings, for servers and
// tests outside [Manager.Wrap]. [Session.Save] keeps the changes and writes
// Set-Cookie to out; nothing is saved by itself. With a nil out, a Save that
// needs a cookie fails with [ErrTooLate] and keeps nothing. The names in both
// headers are canonical, as http.Header's methods make them: gRPC's metadata
// has them in lower case.
//
// Open and Save also tell caches, in out, that the response depends on the
// session (Vary: Cookie, and Cache-Control: private unless out says otherwise);
// what is written to those two fields after the last of them is not looked at.
// With the context of a request inside Wrap, that request's response is told of.
func (m *Manager) Open(ctx context.Context, in, out http.Header) (*Session, error) {
	if q := m.request(ctx); q != nil {
		q.noteRead()
	}
	if out != nil {
		m.limitCaching(out, "")
	}
	s := newSession(m)
	s.phase, s.in, s.ctx = phaseLoose, in, ctx
	s.out = out
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Close ends the streams that wait for [Session.Done], waits for commits in
// flight, and refuses every load and commit from then on. It does not close the
// store.
func (m *Manager) Close() error {
	m.closing.Do(func() {
		m.stopNow()
		m.ends.Close(ErrClosed)
		m.open.Lock()
	})
	return nil
}

// begin registers work that Close waits for, until the caller calls end.
func (m *Manager) begin() error {
	if !m.open.TryRLock() { // Close has it, or waits for it
		return ErrClosed
	}
	return nil
}

func (m *Manager) end() { m.open.RUnlock() }

const (
	sweepInterval = 10 * time.Minute
	sweepAge      = time.Hour
	sweepBatch    = 500
)

// sweep removes what was over for more than an hour, and returns how many.
func (m *Manager) sweep(ctx context.Context) (int, error) {
	sweeper, ok := m.cfg.Store.(store.Sweeper)
	if !ok {
		return 0, nil
	}
	if err := m.begin(); err != nil {
		return 0, err
	}
	defer m.end()
	total := 0
	for {
		n, err := sweeper.Sweep(ctx, sweepAge, sweepBatch)
		total += n
		m.count.swept.Add(uint64(n))
		if errors.Is(err, errors.ErrUnsupported) {
			return total, nil
		}
		if err != nil {
			return total, m.storeFailed(ctx, "sweep", err)
		}
		if n < sweepBatch {
			return total, nil
		}
	}
}

// scheduleSweep plans the next sweep. now is the time since started.
func (m *Manager) scheduleSweep(now time.Duration) {
	// Spread over replicas that started together.
	var b [1]byte
	_, _ = rand.Read(b[:]) // never fails
	wait := sweepInterval + sweepInterval*time.Duration(b[0])/1024
	m.nextSweep.Store(int64(now + wait))
}

// sweepNowAndThen starts a sweep in the background when one is due.
func (m *Manager) sweepNowAndThen() {
	now, due := time.Since(m.started), m.nextSweep.Load()
	if int64(now) < due || !m.nextSweep.CompareAndSwap(due, int64(now+sweepInterval)) {
		return
	}
	m.scheduleSweep(now)
	// A failure is logged there; the next try is in about ten minutes.
	go func() { _, _ = m.sweep(m.stop) }()
}

// comesBackUntil is until when another library's credential could bring a session
// back.
func (m *Manager) comesBackUntil(h *record.Header, now time.Time) time.Time {
	return m.adoption.ComesBackUntil(h, now)
}
