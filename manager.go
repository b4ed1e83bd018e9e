package sojourn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn/internal/ends"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// Manager loads and keeps the sessions of one cookie name. It is safe for
// concurrent use. Make one with [New] for each kind of session that the
// application has, and wrap the application's handler with each of them.
type Manager struct {
	cfg     Config
	log     *slog.Logger
	names   cookieNames
	former  []cookieNames // of Config.FormerCookies
	aad     []byte        // bound into everything that is sealed
	limits  rules.Limits
	stored  *stored.Sessions
	count   counters
	trouble trouble
	ahead   time.Duration // of the clock; only tests set it
	ends    *ends.Feed
	told    struct{ expired onceSet }
	// adoptions counts what Config.Adopt does.
	adoptions adoptions
	logins    succession

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
	m := &Manager{cfg: cfg, log: cfg.Logger, names: newCookieNames(cfg.Name, &cfg.Cookie), aad: wire.Bind(cfg.Name), logins: succession{seed: maphash.MakeSeed()}}
	for i := range cfg.FormerCookies {
		m.former = append(m.former, newCookieNames(cfg.Name, &cfg.FormerCookies[i]))
	}
	m.stop, m.stopNow = context.WithCancel(context.Background())
	m.limits = rules.Limits{
		Mode: rules.Mode(cfg.Placement), InlineLimit: cfg.InlineLimit, MaxSize: cfg.MaxSize,
		Idle: cfg.IdleTimeout, Lifetime: cfg.Lifetime, RotateEvery: cfg.RotateEvery, Grace: cfg.Grace,
		BrowserSession: cfg.Cookie.BrowserSession,
	}
	m.stored = stored.New(stored.Options{
		Store: cfg.Store, Limits: &m.limits, Ring: cfg.Keys.current, Name: cfg.Name, Bound: m.aad,
		Observer: observer{m}, Timeout: cfg.Timeout, Now: m.now, Foreign: m.legacyUntil, Carry: carryLink,
	})
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
		if q, _ := r.Context().Value(m).(*request); q != nil && q.passes(r) {
			next.ServeHTTP(w, r)
			return
		}
		q := &request{Context: r.Context(), m: m, inner: w, encoding: w.Header()["Content-Encoding"]}
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
	s.jar.out = out
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

// Sweep removes sessions and tombstones that were over for more than an hour,
// in small batches, and returns how many. It also runs by itself in a process
// that saves sessions, about every ten minutes, so it is only needed where
// nothing is saved for a long time. Stores that expire records by themselves
// have nothing to sweep.
func (m *Manager) Sweep(ctx context.Context) (int, error) {
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
	go func() { _, _ = m.Sweep(m.stop) }()
}

// load finds the session that the request brings.
func (s *Session) load(ctx context.Context) error {
	m := s.m
	if err := m.begin(); err != nil {
		return err
	}
	defer m.end()
	s.last = stored.Nothing
	s.jar.isNew = true
	now := m.now()
	s.loaded = now
	s.background = declaresBackground(s.in)

	a := s.arrive(now)
	st, err := s.choose(ctx, &a, now)
	if err != nil {
		return err
	}
	switch {
	case st != nil:
		s.last, s.jar.isNew = st, false
	case a.inline != nil:
		s.last, s.jar.isNew = a.inline, false
		if len(s.jar.marks) > 0 && s.jar.excused == (wire.Mark{}) { // else nothing to make a text for
			s.excuse(string(a.inline.Identifier))
		}
	}
	if s.last.Where == rules.Nowhere {
		if err := s.adopt(ctx, now); err != nil {
			return err
		}
	}
	s.draft.Start(&s.last.Rec)
	return nil
}

// inlineState is the session in a state cookie's plain text.
func (m *Manager) inlineState(plain []byte, now time.Time) (*stored.State, error) {
	rec, err := record.Parse(plain)
	if err != nil {
		return nil, err
	}
	h := &rec.Header
	if len(h.Identifier) != record.IdentifierSize || h.Counter == 0 {
		return nil, wire.ErrFormat
	}
	if h.User != "" && m.cfg.Placement != CookieOnly {
		// From the time when this manager was CookieOnly: there was no server side
		// then, and a copy of it would survive every logout.
		return nil, errInlineLogin
	}
	st := &stored.State{Where: rules.Inline, Who: stored.WhoIs(h.Identifier), Rec: rec}
	h = &st.Rec.Header
	if _, st.Mended = m.limits.Mend(h, time.Time{}, now); st.Mended {
		observer{m}.Mended()
		h.Expires = min(h.Expires, m.limits.LifetimeEnd(h).UnixMilli())
	}
	// The configuration may have allowed more when the cookie was sealed.
	end := rules.Earlier(record.Time(h.Expires), m.limits.LifetimeEnd(h))
	if now.After(m.limits.IdleDeadline(h, record.Time(h.Seen), end)) {
		return nil, ErrExpired
	}
	return st, nil
}

var errInlineLogin = errors.New("sojourn: a login in a cookie, where logins are stored")

// rejected counts and logs a cookie that is not used. Why it is not is of no
// use to whoever sent it, so the response never tells.
func (s *Session) rejected(kind string, err error) {
	m := s.m
	m.count.rejected.Add(1)
	if errors.Is(err, seal.ErrUnknownKey) {
		m.count.unknownKeys.Add(1)
		m.reportMany(slog.LevelWarn, "session cookies were sealed with keys that this process does not have; "+
			"all replicas need the same keys, so compare their key files (sojourn key list), and keep retired keys for as long as sessions last",
			slog.String("name", m.cfg.Name))
	}
	m.log.Debug("session cookie rejected", slog.String("cookie", kind), slog.Any("error", err))
	if m.cfg.Events != nil {
		e := s.event(EventCookieRejected, nil)
		e.Reason = rejectReason(err)
		m.tell(s.context(), e)
	}
}

// rejectReason says in a word why a cookie is not used.
func rejectReason(err error) string {
	switch {
	case errors.Is(err, seal.ErrUnknownKey):
		return "unknown_key"
	case errors.Is(err, ErrExpired):
		return "expired"
	default:
		return "damaged"
	}
}

// errRefused says that a request's credential does not lead to its session,
// although a newer one in the same browser may. So the response must not take
// that one's place: only Login sets a reference then.
var (
	errRefused  = fmt.Errorf("%w: the request brought a credential that is not good any more", ErrEnded)
	errOutdated = fmt.Errorf("%w: the session has a newer one", errRefused)
)

// loadStored asks the store for the session that ref names. The error is
// stored.ErrGone if that session is over, and errRefused if ref is not good for it any
// more; errOutdated, which is one, if the session is live.
func (m *Manager) loadStored(ctx context.Context, ref wire.Reference, seen wire.Floor, now time.Time, s *Session) (*stored.State, error) {
	who := stored.WhoIs(ref.Identifier)
	minimum := seen.Version
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	st, err := m.stored.Load(ctx, who, minimum)
	switch {
	case errors.Is(err, stored.ErrGone):
		return nil, s.goneReference(ctx, err, who.ID, now)
	case err != nil:
		return nil, err
	}
	h := &st.Rec.Header
	switch worth := m.limits.Judge(ref.Generation, h, now); worth {
	case rules.Newest:
		s.presentDue = h.Generation > 0 && h.Presented == 0
		s.rotateDue = m.limits.RotationDue(h, now) && s.mayRotate()
	case rules.Previous: // a slower request of the same visitor: it gets the newest credential
	case rules.Ahead:
		m.fellBack(who.ID) // the store has lost the rotation
	default:
		m.count.staleRefs.Add(1)
		m.refuseOutdated(ctx, st, worth, s)
		return nil, errOutdated
	}
	if minimum > st.Meta.Version {
		m.fellBack(who.ID)
		s.jar.lost = minimum
	} else if minimum > 0 && seen.Volatile {
		st = m.stored.WithVolatile(ctx, st)
	}
	return st, nil
}

// goneReference notes that a reference leads to a session that is over, and
// returns stored.ErrGone, or errRefused if the browser may have its successor: a login
// or a logout ended it a moment ago, so its cookie may just have been replaced.
// Nobody has told the browser of any other end, so there is nothing to
// overwrite.
func (s *Session) goneReference(ctx context.Context, err error, id store.ID, now time.Time) error {
	m := s.m
	m.count.staleRefs.Add(1)
	m.log.Debug("reference to a session that is over", slog.String("session", id.String()))
	var gone *stored.Gone
	if !errors.As(err, &gone) {
		return stored.ErrGone
	}
	if gone.Expired && m.told.expired.first(id) {
		m.tell(ctx, s.event(EventExpired, &stored.State{Who: stored.Who{ID: id}}))
	}
	if gone.ToldOf(now) {
		return errRefused
	}
	return stored.ErrGone
}

// fellBack notes that the store answered with an older version of a session
// than it had before.
func (m *Manager) fellBack(id store.ID) { observer{m}.LostWrites(id) }

// refuseOutdated reports a credential that was replaced too long ago.
func (m *Manager) refuseOutdated(ctx context.Context, st *stored.State, worth rules.Credential, s *Session) {
	if worth != rules.Suspicious {
		m.log.Debug("an outdated session credential was refused", slog.String("session", st.ID.String()))
		return
	}
	m.count.thefts.Add(1)
	m.log.Warn("an outdated session credential turned up: somebody may have copied the cookie",
		slog.String("session", st.ID.String()))
	m.tell(ctx, s.event(EventTheftSuspected, st))
	if !m.cfg.EndOnTheft {
		m.stored.Suspect(ctx, st)
		return
	}
	if err := m.revoke(ctx, st, ReasonTheft); err != nil {
		m.log.Error("could not end a session whose credential was copied",
			slog.String("session", st.ID.String()), slog.Any("error", err))
	}
}

// visit reads from the request what only a few commits want to know of it.
func (s *Session) visit() stored.Visit {
	v := stored.Visit{UserAgent: userAgent(s.in)}
	if s.r == nil {
		return v
	}
	if host, _, err := net.SplitHostPort(s.r.RemoteAddr); err == nil {
		v.IP = host
	} else if net.ParseIP(s.r.RemoteAddr) != nil {
		v.IP = s.r.RemoteAddr // as a middleware behind a proxy may have set it
	}
	return v
}

// plainHTTP reports whether the cookies are surely not encrypted on their way
// to the browser, although they have to be.
func (s *Session) plainHTTP() bool {
	r := s.r
	return r != nil && !s.m.cfg.Cookie.Insecure && r.TLS == nil && !forwardedSecurely(r.Header) &&
		r.Header.Get("Forwarded") == "" && !isLocalhost(r.Host)
}

// forwardedSecurely reports whether X-Forwarded-Proto says that the browser's
// own connection was encrypted. Each proxy on the way may have added to the
// list, so the first element is about the browser; the schemes are in any case
// of letters (RFC 3986, section 3.1), and wss is what some proxies call https
// when a WebSocket is asked for.
func forwardedSecurely(h http.Header) bool {
	for _, line := range h["X-Forwarded-Proto"] {
		for proto := range strings.SplitSeq(line, ",") {
			if proto = strings.TrimSpace(proto); proto != "" {
				return strings.EqualFold(proto, "https") || strings.EqualFold(proto, "wss")
			}
		}
	}
	return false
}

// crossSite reports whether the request was started by another site (Fetch
// Metadata; by Origin where the browser sends none).
func (s *Session) crossSite() bool {
	r := s.r
	if r == nil {
		return false
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "cross-site"
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	// As http.CrossOriginProtection compares them, port included, so that no
	// request passes there and is another site's here, nor the other way round.
	u, err := url.Parse(origin)
	return err != nil || u.Host != r.Host
}

// withheld reports whether the browser kept our cookies back from this request,
// if it has any, because another site started it (RFC 6265bis, section 5.8.3).
// SameSite=Lax lets them through with top-level navigations by a safe method.
func (s *Session) withheld() bool {
	switch s.m.cfg.Cookie.SameSite {
	case http.SameSiteNoneMode:
		return false
	case http.SameSiteStrictMode:
		return s.crossSite()
	default:
		return s.crossSite() && !topLevel(s.r)
	}
}

// topLevel reports whether a request fetches, by a safe method, what the
// browser shows in a tab.
func topLevel(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
	default:
		return false
	}
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	return (mode == "" || mode == "navigate") && (dest == "" || dest == "document")
}

// hostname returns host without its port and brackets.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.Trim(host, "[]")
}

func isLocalhost(host string) bool {
	host = hostname(host)
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

func userAgent(h http.Header) string {
	ua := h.Get("User-Agent")
	const most = 256 // enough for every browser, not for a flood
	if len(ua) > most {
		ua = ua[:most]
	}
	return strings.ToValidUTF8(ua, "")
}
