package sojourn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/adoption"
	"github.com/sojourn-go/sojourn/internal/bridge"
	"github.com/sojourn-go/sojourn/internal/caching"
	"github.com/sojourn-go/sojourn/internal/cookies"
	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/ends"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/request"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/trouble"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// core has the configuration, the counters, and the packages that sessions
// need. It knows no session and no request: sessions and requests depend on it,
// and not the other way round. Each tenant has a core of its own.
type core struct {
	*process
	tenant   string
	cookies  *cookies.Cookies
	stored   *stored.Sessions
	adoption *adoption.Adoption
}

// process is the part of a core that does not depend on the tenant.
type process struct {
	name       string // Config.Name
	mode       Mode
	store      store.Store // nil with CookieOnly
	cookie     Cookie
	limit      Limit
	timeout    time.Duration
	endOnTheft bool
	events     func(context.Context, Event) // nil = none
	// adopting returns the options of a core's adoption; mapLegacy runs Adopt.Map for
	// the legacy session of a request.
	adopting  func(*core) adoption.Options
	mapLegacy func(m *core, old *adopt.Session, req *request.Info) (record.Record, error)

	log     *trouble.Log
	count   counters
	expired onceSet // sessions whose expiry was reported
	limits  rules.Limits
	varies  caching.On
	ring    func() *seal.Ring // the keys that Config.Keys holds now
	caches  bool              // the store has copies: a cookie has the version that the browser has seen
	ends    *ends.Feed
	logins  succession
	ahead   time.Duration // of the clock; only tests set it

	open      sync.RWMutex   // read-locked by work in progress, locked for good by Close
	outlive   sync.WaitGroup // work that continues after its request; Close waits for it
	closing   sync.Once
	stop      context.Context // ends with Close
	stopNow   context.CancelFunc
	started   time.Time
	nextSweep atomic.Int64 // nanoseconds after started, by the monotonic clock
}

// newCore returns the core for a complete configuration.
func newCore(cfg *Config) *core {
	m := &core{process: &process{
		name: cfg.Name, mode: cfg.Mode, store: cfg.Store, cookie: cfg.Cookie, limit: cfg.Limit,
		timeout: cfg.Timeout, endOnTheft: cfg.Rotation.EndOnTheft, events: cfg.Events,
		adopting: adopting(cfg.Adopt),
		log:      &trouble.Log{Logger: cfg.Logger}, ring: bridge.Keys(cfg.Keys), varies: caching.Cookie,
		limits: rules.Limits{
			Mode: rules.Mode(cfg.Mode), InlineLimit: cfg.InlineLimit, MaxSize: cfg.MaxSize,
			Idle: cfg.IdleTimeout, Lifetime: cfg.Lifetime, RotateEvery: cfg.Rotation.Every, Grace: cfg.Rotation.Grace,
			BrowserSession: cfg.Cookie.BrowserSession,
		},
	}}
	m.logins.seed = maphash.MakeSeed()
	_, m.caches = cfg.Store.(store.FloorLoader)
	m.stop, m.stopNow = context.WithCancel(context.Background())
	if cfg.Bearer {
		m.varies = caching.CookieOrBearer
	}
	var former []cookies.Attributes
	for i := range cfg.FormerCookies {
		former = append(former, cfg.FormerCookies[i].attributes())
	}
	m.cookies = cookies.New(cookies.Options{
		Name: cfg.Name, Now: cfg.Cookie.attributes(), Limits: &m.limits, Ring: m.ring, Bound: wire.Bind(cfg.Name),
		Former: former, Bearer: cfg.Bearer, Mended: observer{m}.Mended,
	})
	m.stored = stored.New(stored.Options{
		Store: cfg.Store, Limits: &m.limits, Ring: m.ring, Scope: cfg.Name,
		Observer: observer{m}, Timeout: cfg.Timeout, Now: m.now, Foreign: m.comesBackUntil, Carry: adoption.Carry,
		Stop: m.stop, Go: m.apart,
	})
	m.adoption = adoption.New(m.adopting(m))
	m.ends = ends.New(m.stop, ends.Options{Store: cfg.Store, Now: m.now, Read: m.readEnds})
	if a := cfg.Adopt; a != nil {
		m.mapLegacy = func(m *core, old *adopt.Session, req *request.Info) (record.Record, error) {
			return mapLegacy(m, a.Map, old, req)
		}
	}
	m.started = time.Now()
	m.scheduleSweep(0)
	return m
}

// within returns the core of a tenant, which seals, indexes, and finds the
// tenant's sessions only.
func (m *core) within(tenant string) *core {
	if tenant == m.tenant {
		return m
	}
	scope := wire.Scope(m.name, tenant)
	t := &core{process: m.process, tenant: strings.Clone(tenant), cookies: m.cookies.Within(wire.Bind(scope)), stored: m.stored.Within(scope)}
	t.adoption = m.adoption.Within(m.adopting(t))
	return t
}

// now is the time, truncated to the precision of the formats.
func (m *core) now() time.Time { return time.Now().Add(m.ahead).UTC().Truncate(time.Millisecond) }

// begin registers work that Close waits for, until the caller calls done.
func (m *core) begin() error {
	if !m.open.TryRLock() { // Close holds it or waits for it
		return ErrClosed
	}
	return nil
}

func (m *core) done() { m.open.RUnlock() }

// apart runs f in a goroutine that Close waits for.
func (m *core) apart(f func()) error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.done()
	m.outlive.Go(f)
	return nil
}

const (
	sweepInterval = 10 * time.Minute
	sweepAge      = time.Hour
	sweepBatch    = 500
)

// sweep removes records that expired more than an hour ago, and returns their
// number.
func (m *core) sweep(ctx context.Context) (int, error) {
	sweeper, ok := m.store.(store.Sweeper)
	if !ok {
		return 0, nil
	}
	if err := m.begin(); err != nil {
		return 0, err
	}
	defer m.done()
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

// scheduleSweep sets the time of the next sweep. now is the time since started.
func (m *core) scheduleSweep(now time.Duration) {
	// Random, because replicas may have started at the same time.
	var b [1]byte
	_, _ = rand.Read(b[:]) // never fails
	wait := sweepInterval + sweepInterval*time.Duration(b[0])/1024
	m.nextSweep.Store(int64(now + wait))
}

// sweepNowAndThen starts a sweep in the background when one is due.
func (m *core) sweepNowAndThen() {
	now, due := time.Since(m.started), m.nextSweep.Load()
	if int64(now) < due || !m.nextSweep.CompareAndSwap(due, int64(now+sweepInterval)) {
		return
	}
	m.scheduleSweep(now)
	// sweep logs a failure; the next attempt is in about ten minutes.
	go func() { _, _ = m.sweep(m.stop) }()
}

// comesBackUntil returns until when a credential of another library could
// restore a session.
func (m *core) comesBackUntil(h *record.Header, now time.Time) time.Time {
	return m.adoption.ComesBackUntil(h, now)
}

// Types that lead to a secret (a cookie, an identifier, a key, a session's values) have
// a Format method, which fmt calls for every verb, and LogValue for log/slog. Types with
// a secret in an exported field also have MarshalText, for encoding/json and the handlers
// of log/slog. The receiver is a value if the type is used by value, because a copy does
// not have the methods of the pointer.
//
// Methods do not protect a value in an unexported field of another type: fmt calls no
// methods there. It does not follow pointers there either.

func printText(f fmt.State, text string) { _, _ = io.WriteString(f, text) }

// succession orders a user's logins. Logins in the same millisecond would have
// no order, and Config.Limit.Max could end any of them.
type succession struct {
	seed maphash.Seed
	last [64]atomic.Int64 // by user, in Unix milliseconds
}

// next returns the creation time of a session of user that is made at now: now,
// or just after the previous one in this process.
func (o *succession) next(user string, now int64) int64 {
	last := &o.last[maphash.String(o.seed, user)%uint64(len(o.last))]
	for {
		before, at := last.Load(), now
		if before >= now && before-now < 1000 { // else the clock was set back
			at = before + 1
		}
		if last.CompareAndSwap(before, at) {
			return at
		}
	}
}

// An Update function runs while its session is locked, and so do its codecs. If it uses
// its own session, or if two of them use each other's sessions, they deadlock: then lock
// panics. Other waits are correct: an Update in another goroutine may hold the lock of a
// session, and an Update may use another session.

const (
	stuckPause = time.Millisecond
	stuckTries = 1000 // pauses: at least a second
)

// lock locks mu.
func (s *session) lock() {
	if s.mu.TryLock() {
		return
	}
	if s.updates.Load()%2 == 0 || !insideUpdate() {
		s.mu.Lock()
		return
	}
	// An Update of this session is running, and so is one in this goroutine. If they are
	// the same or wait for each other, this is a deadlock.
	before, still := s.updates.Load(), 0
	for !s.mu.TryLock() {
		if still++; still > stuckTries {
			panic(fault.Reentry)
		}
		time.Sleep(stuckPause)
		if now := s.updates.Load(); now != before || now%2 == 0 {
			before, still = now, 0
		}
	}
}

// check calls the function of LoginIf, with mu held. Other goroutines of the
// request wait.
func (s *session) check(ctx context.Context, f func(context.Context) error) (err error) {
	_, _ = s.call(func([]byte, bool) ([]byte, error) {
		err = f(ctx)
		return nil, nil
	}, nil, false)
	return err
}

// call calls an Update function, with mu held.
func (s *session) call(f draft.Update, raw []byte, ok bool) ([]byte, error) {
	s.updates.Add(1)
	defer s.updates.Add(1)
	return callUpdate(f, raw, ok)
}

// callUpdate marks an Update function on the stack, for insideUpdate.
//
//go:noinline
func callUpdate(f draft.Update, raw []byte, ok bool) ([]byte, error) { return f(raw, ok) }

// insideUpdate reports whether the calling goroutine is in callUpdate. It
// compares addresses, because function names depend on how a program is built.
func insideUpdate() bool {
	pcs := make([]uintptr, 256)
	n := runtime.Callers(2, pcs)
	for n == len(pcs) {
		pcs = make([]uintptr, 2*n)
		n = runtime.Callers(2, pcs)
	}
	entry := reflect.ValueOf(callUpdate).Pointer()
	frames := runtime.CallersFrames(pcs[:n])
	for {
		frame, more := frames.Next()
		if frame.Entry == entry {
			return true
		}
		if !more {
			return false
		}
	}
}
