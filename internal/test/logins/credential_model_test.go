package logins_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// The model below runs the real code through every sequence of events in the
// life of a visitor's credentials, up to a number of events. After each sequence
// it presents every combination of one reference, one state cookie and one legacy
// cookie that was ever handed out, and checks that
//
//   - a session that has ended serves nobody, through no credential, neither at
//     once nor after the grace nor two minutes later;
//   - a request whose credential is refused replaces no newer one in the browser;
//   - a legacy session lets nothing live longer than what it is a copy of, and
//     ends no newer login.
//
// The test's own ledger records which sessions have ended, from the events and
// not from the store. Each session has a label, a server-side value, by which
// the ledger recognizes it wherever its values appear.

const (
	credIdle     = 2 * time.Hour
	credLifetime = 10 * time.Hour
	credGrace    = 2 * time.Minute // the default, and what clocks may differ by
	credOldIdle  = 24 * time.Hour  // a use in the old application extends a session by that
	credOldLasts = 400 * time.Hour
	credOldShort = 5 * time.Hour // likewise, of identifiers
)

var (
	credLabel  = sojourn.NewKey[string]("label", sojourn.ServerSide)
	credCount  = sojourn.NewKey[int]("count", sojourn.ServerSide)
	credColour = sojourn.NewKey[string]("colour") // may live in the cookie
)

// credWorld is a service and its possible events.
type credWorld struct {
	kind   string // of the legacy format; "" = none
	events string // names, parted by spaces
	begin  string // events that each sequence begins with
	depth  int    // most events after them
	edit   func(*sojourn.Config)
	// formerly is the earlier Config.Cookie; nil = the same.
	formerly *sojourn.Cookie
}

// credEvents are the possible events. Each reports whether it did anything: a
// sequence with an event that does nothing equals the one without it.
var credEvents = map[string]func(*credRun) bool{
	"read":   func(r *credRun) bool { return r.visits(opRead) },
	"write":  func(r *credRun) bool { return r.visits(opWrite) },
	"colour": func(r *credRun) bool { return r.visits(opColour) },
	"login":  func(r *credRun) bool { return r.visits(opLogin) },
	"bob":    func(r *credRun) bool { return r.visits(opLoginBob) },
	"logout": func(r *credRun) bool { return len(r.visitor) > 0 && r.visits(opLogout) },
	"rotate": func(r *credRun) bool { return r.current(r.visitor) != nil && r.visits(opRotate) },

	// Requests that are answered after the next event.
	"slow-read":   func(r *credRun) bool { return r.slow(opRead) },
	"slow-write":  func(r *credRun) bool { return r.slow(opWrite) },
	"slow-colour": func(r *credRun) bool { return r.slow(opColour) },
	"slow-login":  func(r *credRun) bool { return r.slow(opLogin) },
	"slow-logout": func(r *credRun) bool { return r.current(r.visitor) != nil && r.slow(opLogout) },
	// Answers whose cookies arrive after the next event.
	"late-write":  func(r *credRun) bool { return r.late(opWrite) },
	"late-colour": func(r *credRun) bool { return r.late(opColour) },
	"late-login":  func(r *credRun) bool { return r.late(opLogin) },
	"late-rotate": func(r *credRun) bool { return r.current(r.visitor) != nil && r.late(opRotate) },

	"elsewhere": (*credRun).loginElsewhere,
	"tab":       (*credRun).loginInATab,
	"idle":      func(r *credRun) bool { return r.passes(credIdle + time.Second) },
	"lifetime":  func(r *credRun) bool { return r.passes(credLifetime + time.Second) },
	"grace":     func(r *credRun) bool { return r.passes(credGrace + time.Second) },
	"revoke-user": func(r *credRun) bool {
		return r.revokes("anna", (*sojourn.Manager).RevokeUser)
	},
	"erase-user": func(r *credRun) bool {
		return r.revokes("anna", func(m *sojourn.Manager, ctx context.Context, user string, _ ...string) (int, error) {
			return m.EraseUser(ctx, user)
		})
	},
	"revoke-handle": (*credRun).revokesHandle,

	// The site is rolled back to the old application, and returns.
	"old-use": (*credRun).oldUse,
	// A request with only the legacy cookie.
	"old-alone": (*credRun).oldAlone,
	"old-login": func(r *credRun) bool { return r.oldLogin(false) },
	"old-bob":   func(r *credRun) bool { return r.oldLogin(true) },

	"redeploy": (*credRun).redeploy,
	"keys":     (*credRun).newKeys,
	"behind":   (*credRun).behindWrites,
	"staff":    (*credRun).staffLogin,
	"sweep":    (*credRun).sweep,
}

type credOp struct {
	name string
	do   func(r *credRun, a *credAnswer, s *sojourn.Session)
}

var (
	opRead   = &credOp{"read", func(*credRun, *credAnswer, *sojourn.Session) {}}
	opRotate = &credOp{"rotate", func(_ *credRun, _ *credAnswer, s *sojourn.Session) { s.Rotate() }}
	opLogout = &credOp{"logout", func(_ *credRun, _ *credAnswer, s *sojourn.Session) { s.Logout() }}
	opWrite  = &credOp{"write", func(r *credRun, _ *credAnswer, s *sojourn.Session) {
		label := r.label()
		credLabel.Update(s, func(have string) string {
			if have != "" {
				return have
			}
			return label
		})
		credCount.Update(s, func(n int) int { return n + 1 })
	}}
	opColour = &credOp{"colour", func(r *credRun, a *credAnswer, s *sojourn.Session) {
		if a.seen.label != "" {
			credColour.Set(s, "in:"+a.seen.label+" "+r.label()) // a stored session's
			return
		}
		credColour.Set(s, r.label())
	}}
	opLogin    = &credOp{"login", loginOp("anna")}
	opLoginBob = &credOp{"login", loginOp("bob")}
)

func loginOp(user string) func(*credRun, *credAnswer, *sojourn.Session) {
	return func(r *credRun, _ *credAnswer, s *sojourn.Session) {
		s.Login(user)
		credLabel.Set(s, r.label())
	}
}

// credRun is one sequence: the service, its browsers, and the ledger.
type credRun struct {
	t     *testing.T
	world *credWorld
	stats *credStats

	db    *memory.Store
	keys  *sojourn.KeyRing
	sites []*sojourn.Manager // before and after a change of Config.Cookie
	site  int
	desk  *sojourn.Manager // of another name
	cfg   sojourn.Config
	old   *credOld
	// keyText is of the first keys, and behind a replica that still has those.
	keyText string
	behind  *sojourn.Manager

	visitor, other, staff credJar
	pending               []func() // what was sent before the last event

	labels  int
	lives   map[string]*credLife       // by label
	handles map[string]*credHandle     // by handle
	refs    map[string]*credReference  // by value of the cookie
	states  map[string]credState       // likewise
	pool    map[string]map[string]bool // credentials by the names of their cookies
	adopted map[string]*credHandle     // as what legacy credentials were adopted

	problems []string
}

// credStats counts what the model has covered.
type credStats struct {
	sequences, requests, served, refused, applied, adopted int
	did                                                    map[string]int // by event
}

// credLife is the model's state of a session and its successors.
type credLife struct {
	label, user string
	staff       bool            // it is the other manager's
	carried     map[string]bool // labels of sessions whose values went on in it
	created     time.Time       // its login, or first value
	end         time.Time       // of its lifetime
	used        time.Time       // last, here or in the old application
	stored      bool            // it was here
	own         bool            // of the old application
	parent      *credLife       // that the old application has turned into this one

	ended    string // by what; "" = it was not
	endedAt  time.Time
	replaced bool // its browser has learned of it
	maybe    bool // it may have ended
	busy     int  // requests with it that are under way, which is activity
}

type credHandle struct {
	label    string
	promoted time.Time // zero = it lives in a cookie
	used     time.Time
	busy     int
	newest   int               // generation
	rotated  time.Time         // when that was made
	shown    map[int]time.Time // when each generation first came back
}

type credState struct {
	handle string // of the session in it; "" = it is a mark alone
	at     time.Time
}

type credReference struct {
	handle     *credHandle
	generation int
	key        int // that it is sealed with
}

func (r *credRun) fail(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

func (r *credRun) label() string {
	r.labels++
	return fmt.Sprint("s", r.labels)
}

func newCredRun(t *testing.T, w *credWorld, stats *credStats, ring *sojourn.KeyRing) *credRun {
	r := &credRun{
		t: t, world: w, stats: stats, db: memory.New(), keys: ring,
		lives: map[string]*credLife{}, handles: map[string]*credHandle{}, refs: map[string]*credReference{},
		states: map[string]credState{}, pool: map[string]map[string]bool{}, adopted: map[string]*credHandle{},
	}
	if strings.Contains(w.events, "keys") {
		r.keyText = sitetest.KeyText(keys.Generate(), "index"+strings.TrimPrefix(keys.Generate(), "active"))
		r.keys = sitetest.Parse(t, r.keyText)
	}
	cfg := sojourn.Config{
		Store: r.db, Keys: r.keys, Limit: sojourn.Limit{Max: 1}, IdleTimeout: credIdle, Lifetime: credLifetime,
		Logger: slog.New(slog.DiscardHandler), Events: r.event,
	}
	if w.kind != "" {
		r.old = &credOld{kind: w.kind, sessions: map[string]*adopt.Session{}}
		cfg.Adopt = &sojourn.Adopt{
			From: []adopt.Format{r.old}, Map: credMap, Back: &sojourn.WriteBack{To: r.old, Values: credValues},
		}
	}
	if w.edit != nil {
		w.edit(&cfg)
	}
	if w.formerly != nil {
		before := cfg
		before.Cookie = *w.formerly
		r.sites = append(r.sites, r.manager(before))
		cfg.FormerCookies = []sojourn.Cookie{*w.formerly}
	}
	r.sites = append(r.sites, r.manager(cfg))
	r.cfg = cfg
	cfg.Name, cfg.Adopt, cfg.Cookie, cfg.FormerCookies = "staff", nil, sojourn.Cookie{}, nil
	r.desk = r.manager(cfg)
	return r
}

func (r *credRun) manager(cfg sojourn.Config) *sojourn.Manager {
	m, err := sojourn.New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

func (r *credRun) close() {
	for _, m := range append(r.sites, r.desk, r.behind) {
		if m != nil {
			_ = m.Close()
		}
	}
}

// event receives automatic rotations, and ends that the service decides.
func (r *credRun) event(_ context.Context, e sojourn.Event) {
	h := r.handles[e.Session]
	switch {
	case h == nil:
	case e.Kind == sojourn.EventRotated:
		h.newest++
		h.rotated = time.Now()
	case e.Kind == sojourn.EventRevoked && e.Reason == sojourn.ReasonTheft:
		r.ends(r.lives[h.label], "theft", false)
	}
}

// Cookies.

type credCookie struct{ name, domain, value string }

// credJar has the cookies of a browser in the order in which they were set.
type credJar []credCookie

func (j credJar) find(name string) string {
	for _, c := range j {
		if c.name == name {
			return c.value
		}
	}
	return ""
}

// with returns a jar that has taken a response's cookies.
func (j credJar) with(lines []string) credJar {
	j = slices.Clone(j)
	for _, line := range lines {
		c, ok := parseSetCookie(line)
		i := slices.IndexFunc(j, func(have credCookie) bool { return have.name == c.name && have.domain == c.domain })
		switch {
		case !ok && i >= 0:
			j = slices.Delete(j, i, i+1)
		case !ok:
		case i >= 0:
			j[i].value = c.value
		default:
			j = append(j, c)
		}
	}
	return j
}

// parseSetCookie returns the cookie, and whether it is set or removed.
func parseSetCookie(line string) (c credCookie, set bool) {
	pair, attributes, _ := strings.Cut(line, "; ")
	c.name, c.value, _ = strings.Cut(pair, "=")
	if _, rest, ok := strings.Cut(attributes, "Domain="); ok {
		c.domain, _, _ = strings.Cut(rest, ";")
	}
	return c, c.value != "" && !strings.Contains(attributes, "Max-Age=0")
}

// Requests.

// credView is a request's view of its session.
type credView struct {
	label, user, colour, handle string
	placement                   sojourn.Placement
	expires                     time.Time
}

func viewOf(s *sojourn.Session) (v credView) {
	v.user = s.User()
	if info := s.Info(); info.Placement != sojourn.PlacementNone {
		v.placement, v.expires = info.Placement, info.Expires
		if s.Has(credLabel.Name()) {
			v.label = credLabel.Get(s)
		}
		if s.Has(credColour.Name()) {
			v.colour = credColour.Get(s)
		}
	}
	v.handle = s.Handle()
	return v
}

// credAnswer is a request and its answer.
type credAnswer struct {
	op     *credOp
	m      *sojourn.Manager
	jar    credJar // that it was sent with
	loaded time.Time
	status int
	lines  []string // Set-Cookie
	seen   credView
	after  credView // if the status is 200
	// refused says why it must not replace a newer credential, as of its answer.
	refused string
}

// credWriter is a response that is thrown away.
type credWriter struct {
	header http.Header
	status int
}

func (w *credWriter) Header() http.Header { return w.header }
func (w *credWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *credWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(b), nil
}

var credURL = &url.URL{Scheme: "https", Host: "studio.example.com", Path: "/"}

// request sends op with a jar. If wait is not nil, it is called when the session
// was loaded.
func (r *credRun) request(m *sojourn.Manager, jar credJar, op *credOp, wait func()) *credAnswer {
	r.stats.requests++
	a := &credAnswer{op: op, m: m, jar: jar}
	req := &http.Request{
		Method: http.MethodPost, URL: credURL, Host: credURL.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Sec-Fetch-Site": {"same-origin"}}, RemoteAddr: "192.0.2.7:1234", RequestURI: "/",
	}
	if op == opRead {
		req.Method = http.MethodGet
	}
	if len(jar) > 0 {
		var line []string
		for _, c := range jar {
			line = append(line, c.name+"="+c.value)
		}
		req.Header["Cookie"] = []string{strings.Join(line, "; ")}
	}
	for _, c := range jar {
		r.suspects(c.value)
	}
	w := &credWriter{header: http.Header{}}
	var s *sojourn.Session
	m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		var err error
		if s, err = m.Get(q.Context()); err != nil {
			m.ServeError(w, q, err)
			return
		}
		a.seen, a.loaded = viewOf(s), time.Now()
		r.observe(a)
		if wait != nil {
			defer r.holds(a.seen)()
			wait()
		}
		op.do(r, a, s)
	})).ServeHTTP(w, req)
	a.status, a.lines = cmp.Or(w.status, http.StatusOK), w.header["Set-Cookie"]
	if s != nil && a.status == http.StatusOK {
		a.after = viewOf(s)
	}
	if op != opLogin && op != opLoginBob && op != opLogout { // those are meant for the browser
		a.refused = r.refuses(m, jar)
	}
	for _, c := range jar {
		r.presents(c.value)
	}
	r.account(a)
	return a
}

// suspects records the use of a credential that must end a session.
func (r *credRun) suspects(value string) {
	ref := r.refs[value]
	if r.cfg.Rotation.EndOnTheft && ref != nil && ref.generation+1 == ref.handle.newest && r.outdated(ref) && r.over(r.lives[ref.handle.label]) == "" {
		r.ends(r.lives[ref.handle.label], "theft", false)
	}
}

// holds records that a request is under way with a session.
func (r *credRun) holds(v credView) (over func()) {
	l, h := r.lives[v.label], r.handles[v.handle]
	if l == nil || h == nil {
		return func() {}
	}
	l.busy++
	h.busy++
	return func() {
		l.busy--
		h.busy--
		if l.ended == "" {
			l.used, h.used = time.Now(), time.Now()
		}
	}
}

// presents records that a reference was sent, once its request is answered.
func (r *credRun) presents(value string) {
	if ref := r.refs[value]; ref != nil && ref.handle.shown[ref.generation].IsZero() && r.over(r.lives[ref.handle.label]) == "" {
		ref.handle.shown[ref.generation] = time.Now()
	}
}

// observe checks what a request finds against the ledger.
func (r *credRun) observe(a *credAnswer) {
	v := a.seen
	if v.label == "" {
		if v.user != "" {
			r.fail("%s: a request is %q's without a session", a.op.name, v.user)
		}
		if strings.HasPrefix(v.colour, "in:") {
			r.fail("%s: a value of the stored session %s is shown without it", a.op.name, v.colour)
		}
		return
	}
	r.stats.served++
	l := r.lives[v.label]
	switch {
	case l == nil:
		r.fail("%s: the session %s was never kept", a.op.name, v.label)
		return
	case l.user != v.user:
		r.fail("%s: the session %s of %q is %q's", a.op.name, v.label, l.user, v.user)
	case l.staff != (a.m == r.desk):
		r.fail("%s: the session %s is another manager's", a.op.name, v.label)
	}
	if from, _, ok := strings.Cut(strings.TrimPrefix(v.colour, "in:"), " "); ok && from != v.label && !l.carried[from] {
		r.fail("%s: %s shows a value of %s", a.op.name, v.label, from)
	}
	if h := r.handles[v.handle]; h == nil {
		r.arrives(l, v, a.jar.find("old"))
	} else {
		h.used = time.Now()
	}
	if why := r.over(l); why != "" {
		r.fail("%s: the session %s of %q is served, although it is over: %s", a.op.name, v.label, v.user, why)
	}
	if l.maybe {
		l.maybe = false
	}
	l.stored = true
	if v.expires.After(l.end.Add(5 * time.Millisecond)) { // logins of one moment are kept apart
		r.fail("%s: the session %s lasts for %v longer than it may", a.op.name, v.label, v.expires.Sub(l.end))
	}
	l.used = time.Now()
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// arrives records the adoption of a legacy session, which ends no other.
func (r *credRun) arrives(l *credLife, v credView, credential string) {
	r.stats.adopted++
	if l.own && (!l.stored || r.world.kind == "copies") {
		// Each copy of the old application's own cookie becomes a separate session.
		l.end = earliest(l.created.Add(r.old.lasts()), time.Now().Add(credLifetime))
	}
	r.handles[v.handle] = &credHandle{label: v.label, promoted: time.Now(), used: time.Now(), shown: map[int]time.Time{}}
	r.adopted[credential] = r.handles[v.handle]
}

// over returns why a session must be refused, or "".
func (r *credRun) over(l *credLife) string {
	now := time.Now()
	switch {
	case l.ended != "":
		return l.ended
	case l.parent != nil && now.After(l.parent.end), now.After(l.end):
		return "its lifetime"
	case l.busy > 0:
	case l.own:
		// With Adopt.Keep, its idle timeout is the old application's.
		if r.world.kind == "sliding" && now.Sub(l.used) > credOldIdle {
			return "its idle timeout"
		}
	case now.Sub(l.used) > credIdle:
		return "its idle timeout"
	}
	return ""
}

func (r *credRun) ends(l *credLife, why string, replaced bool) {
	if l == nil || l.ended != "" {
		return
	}
	l.ended, l.endedAt, l.replaced, l.maybe = why, time.Now(), replaced, false
}

// account records the effects of a request.
func (r *credRun) account(a *credAnswer) {
	now := time.Now()
	if a.status == http.StatusOK {
		before, after := a.seen, a.after
		if l := r.lives[before.label]; l != nil && a.op != opRead && a.op != opLogin && a.op != opLoginBob && a.op != opLogout {
			if why := r.over(l); l.ended != "" {
				r.fail("%s: a change of %s was acknowledged although it is over: %s", a.op.name, l.label, why)
			}
		}
		switch {
		case a.op == opLogin || a.op == opLoginBob:
			l := &credLife{
				label: after.label, user: after.user, staff: a.m == r.desk, carried: map[string]bool{},
				created: now, end: now.Add(credLifetime), used: now, stored: true,
			}
			last := r.lives[before.label]
			if h := r.handles[before.handle]; h != nil && before.placement == sojourn.PlacementInline && a.loaded.Sub(h.promoted) <= credGrace {
				last = r.lives[h.label] // a parallel request has promoted it
			}
			if last != nil && (last.user == "" || last.user == l.user) {
				maps.Copy(l.carried, last.carried)
				l.carried[last.label] = true
			}
			r.ends(last, "a login", true)
			r.evict(l)
			r.endPresented(a, "a login beside it")
			r.lives[l.label] = l
		case a.op == opLogout:
			if before.placement == sojourn.PlacementStored {
				r.ends(r.lives[before.label], "a logout", true)
			}
			r.endPresented(a, "a logout beside it")
		case after.label != "" && r.lives[after.label] == nil:
			r.lives[after.label] = &credLife{
				label: after.label, user: after.user, staff: a.m == r.desk, carried: map[string]bool{},
				created: now, end: now.Add(credLifetime), used: now, stored: true,
			}
		}
		if after.placement == sojourn.PlacementStored && after.label != "" && r.handles[after.handle] == nil {
			r.handles[after.handle] = &credHandle{label: after.label, promoted: now, used: now, shown: map[int]time.Time{}}
		}
	}
	for _, line := range a.lines {
		c, set := parseSetCookie(line)
		switch {
		case !set || c.name == "old":
		case strings.HasSuffix(c.name, "-state"):
			st := credState{at: now}
			if a.status == http.StatusOK && a.after.placement == sojourn.PlacementInline {
				st.handle = a.after.handle
			}
			r.states[c.value] = st
		default:
			handle := a.after.handle
			if a.status != http.StatusOK {
				handle = a.seen.handle
			}
			if h := r.handles[handle]; h != nil {
				r.refs[c.value] = &credReference{h, h.newest, r.sealsWith(a.m)}
			} else {
				r.fail("%s: a reference to no session is set (%d)", a.op.name, a.status)
			}
		}
	}
}

// sealsWith returns which key a manager seals with.
func (r *credRun) sealsWith(m *sojourn.Manager) int {
	if r.behind == nil || m == r.behind {
		return 0
	}
	return 1
}

// endPresented ends the sessions that a request brought beside its own.
func (r *credRun) endPresented(a *credAnswer, why string) {
	loads := 0
	for _, c := range a.jar {
		ref := r.refs[c.value]
		if ref == nil || (a.m == r.desk) != strings.Contains(c.name, "staff") {
			continue
		}
		if loads++; loads > 2 {
			continue
		}
		h := ref.handle
		if l := r.lives[h.label]; r.over(l) == "" && (h.busy > 0 || time.Since(h.used) <= credIdle) && l.label != a.after.label && !r.outdated(ref) {
			r.ends(l, why, true)
		}
	}
}

// evict ends what Config.Limit leaves no room for beside a new login.
func (r *credRun) evict(l *credLife) {
	if r.cfg.Limit.Max == 0 {
		return
	}
	for _, other := range r.lives {
		if other.user == l.user && other.staff == l.staff && other.stored && r.over(other) == "" {
			r.ends(other, "a login elsewhere", false)
		}
	}
}

// outdated reports whether rotations have certainly invalidated a reference.
func (r *credRun) outdated(ref *credReference) bool {
	h, now := ref.handle, time.Now()
	past := func(at time.Time) bool { return !at.IsZero() && now.Sub(at) > credGrace }
	switch {
	case ref.generation >= h.newest:
		return false
	case ref.generation+1 == h.newest:
		return past(h.shown[h.newest])
	default:
		return past(h.rotated)
	}
}

// current returns a live session that a jar's references are good for, or nil.
func (r *credRun) current(jar credJar) *credLife {
	for _, l := range r.currents(jar) {
		return l
	}
	return nil
}

// currents returns all of them, by label: the model does not depend on the
// order of cookies.
func (r *credRun) currents(jar credJar) map[string]*credLife {
	all := map[string]*credLife{}
	for _, c := range jar {
		if ref := r.refs[c.value]; ref != nil {
			h, l := ref.handle, r.lives[ref.handle.label]
			if r.over(l) == "" && !l.maybe && (h.busy > 0 || time.Since(h.used) <= credIdle) && !r.outdated(ref) {
				all[l.label] = l
			}
		}
	}
	return all
}

func labels(lives map[string]*credLife) string {
	return strings.Join(slices.Sorted(maps.Keys(lives)), " and ")
}

// isHere reports whether a session is live, other than in the old application.
func (r *credRun) isHere(l *credLife) bool {
	for _, h := range r.handles {
		if h.label == l.label && (h.busy > 0 || time.Since(h.used) <= credIdle) {
			return true
		}
	}
	return false
}

// Events.

func (r *credRun) manage() *sojourn.Manager { return r.sites[r.site] }

// handOut records every credential of a response.
func (r *credRun) handOut(lines []string) {
	for _, line := range lines {
		if c, set := parseSetCookie(line); set {
			if r.pool[c.name] == nil {
				r.pool[c.name] = map[string]bool{}
			}
			r.pool[c.name][c.value] = true
		}
	}
}

// receives delivers an answer to the visitor's browser.
func (r *credRun) receives(a *credAnswer) {
	r.handOut(a.lines)
	next := r.visitor.with(a.lines)
	if a.refused != "" {
		for label := range r.currents(r.visitor) {
			if r.currents(next)[label] == nil {
				r.fail("%s: an answer to a request with %s replaces %s in the browser", a.op.name, a.refused, label)
			}
		}
	}
	r.visitor = next
}

func (r *credRun) visits(op *credOp) bool {
	a := r.request(r.manage(), r.visitor, op, nil)
	r.receives(a)
	return op != opRead || len(a.lines) > 0
}

// slow sends a request that is answered after the next event.
func (r *credRun) slow(op *credOp) bool {
	if len(r.visitor) == 0 && op == opRead {
		return false
	}
	loaded, act, answered := make(chan struct{}), make(chan struct{}), make(chan *credAnswer)
	go func() {
		answered <- r.request(r.manage(), r.visitor, op, func() {
			close(loaded)
			<-act
		})
	}()
	<-loaded
	r.pending = append(r.pending, func() {
		close(act)
		r.receives(<-answered)
	})
	return true
}

func (r *credRun) late(op *credOp) bool {
	a := r.request(r.manage(), r.visitor, op, nil)
	r.handOut(a.lines)
	if len(a.lines) == 0 {
		return false
	}
	r.pending = append(r.pending, func() { r.receives(a) })
	return true
}

func (r *credRun) loginElsewhere() bool {
	a := r.request(r.manage(), nil, opLogin, nil)
	r.handOut(a.lines)
	r.other = credJar{}.with(a.lines)
	return true
}

// loginInATab is a login whose request brought nothing, such as one that was sent
// before the answer to another one had arrived.
func (r *credRun) loginInATab() bool {
	r.receives(r.request(r.manage(), nil, opLoginBob, nil))
	return true
}

func (r *credRun) passes(d time.Duration) bool {
	time.Sleep(d)
	return len(r.lives) > 0 || len(r.pending) > 0
}

func (r *credRun) revokes(user string, revoke func(*sojourn.Manager, context.Context, string, ...string) (int, error)) bool {
	if _, err := revoke(r.manage(), r.t.Context(), user); err != nil {
		r.fail("revoke: %v", err)
	}
	any := false
	for _, l := range r.lives {
		if l.user == user && !l.staff {
			any = any || l.ended == ""
			r.ends(l, "a revocation", false)
		}
	}
	return any
}

func (r *credRun) revokesHandle() bool {
	for _, c := range r.visitor {
		ref := r.refs[c.value]
		if ref == nil || strings.Contains(c.name, "staff") {
			continue
		}
		for handle, h := range r.handles {
			if h != ref.handle {
				continue
			}
			if h.busy == 0 && time.Since(h.used) > credIdle {
				return false // one that goes on for it has another handle
			}
			err := ops.For(r.manage()).End(r.t.Context(), handle)
			if errors.Is(err, sojourn.ErrNotFound) {
				return false
			}
			if err != nil {
				r.fail("revoke: %v", err)
			}
			r.ends(r.lives[h.label], "a revocation", false)
			return true
		}
	}
	return false
}

func (r *credRun) redeploy() bool {
	if r.site == 1 && r.world.formerly.Domain == "" {
		return false // the previous site does not know the cookies' new name
	}
	r.site = 1 - r.site
	return len(r.visitor) > 0
}

// newKeys makes another key seal from now on. One replica does not have it yet.
func (r *credRun) newKeys() bool {
	if r.behind != nil {
		return false
	}
	old, err := sojourn.ParseKeys(r.keyText)
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := r.cfg
	cfg.Keys = old
	r.behind = r.manager(cfg)
	entries := strings.Fields(r.keyText)[1:]
	entries[0] = "retired" + strings.TrimPrefix(entries[0], "active")
	if err := r.keys.Replace(sitetest.KeyText(append(entries, keys.Generate())...)); err != nil {
		r.t.Fatal(err)
	}
	return len(r.visitor) > 0
}

// behindWrites sends a request to the replica without the new key.
func (r *credRun) behindWrites() bool {
	if r.behind == nil || len(r.visitor) == 0 {
		return false
	}
	r.receives(r.request(r.behind, r.visitor, opWrite, nil))
	return true
}

func (r *credRun) staffLogin() bool {
	a := r.request(r.desk, r.staff, opLogin, nil)
	r.staff = r.staff.with(a.lines)
	r.handOut(a.lines)
	return true
}

func (r *credRun) sweep() bool {
	n, err := ops.For(r.manage()).Sweep(r.t.Context())
	if err != nil {
		r.fail("sweep: %v", err)
	}
	return n > 0
}

// The old application.

// credOld is another library's format. Nothing is ever removed from its store:
// a slow request of the old application may always write a session once more.
type credOld struct {
	kind     string // identifiers, sliding or copies
	made     int
	sessions map[string]*adopt.Session
}

func (o *credOld) Name() string  { return "old" }
func (o *credOld) Expires() bool { return true }

func (o *credOld) Find(_ context.Context, in http.Header, now time.Time) (*adopt.Session, error) {
	id := sitetest.OldID(in)
	s := o.sessions[id]
	switch {
	case id == "":
		return nil, nil
	case s == nil:
		return nil, adopt.Refusal("not_found")
	case now.After(s.Expires):
		return nil, adopt.Refusal("expired")
	}
	found := *s
	return &found, nil
}

func (o *credOld) Forget(*adopt.Session) []string { return []string{"old=; Path=/; Max-Age=0"} }

func (o *credOld) End(_ context.Context, old *adopt.Session) ([]string, error) {
	return o.Forget(old), nil
}

func (o *credOld) Write(_ context.Context, old *adopt.Session, now time.Time) ([]string, error) {
	id := string(old.State)
	if o.kind == "copies" {
		id = ""
	}
	*old = *o.put(id, old.Values, now)
	return []string{"old=" + string(old.State) + "; Path=/"}, nil
}

// lasts is how long a session of the old application lasts.
func (o *credOld) lasts() time.Duration {
	if o.kind == "identifiers" {
		return credOldShort
	}
	return credOldLasts
}

// put keeps a session under that identifier, or a new one for "".
func (o *credOld) put(id string, values map[string]any, now time.Time) *adopt.Session {
	s := &adopt.Session{Source: "old", Values: values, Issued: now, Expires: now.Add(o.lasts())}
	if have := o.sessions[id]; have != nil {
		s.Issued, s.Expires = have.Issued, have.Expires
	}
	if id == "" {
		o.made++
		id = fmt.Sprint("id", o.made)
	}
	switch o.kind {
	case "copies":
		s.Copies = true
	case "sliding":
		s.Issued, s.Idle, s.Expires = time.Time{}, credOldIdle, now.Add(credOldIdle)
	}
	s.Credential, s.State = []byte(id), []byte(id)
	o.sessions[id] = s
	return s
}

func credMap(old *adopt.Session, s *sojourn.Session) error {
	label, _ := old.Values["label"].(string)
	if label == "" {
		return errors.New("no label")
	}
	credLabel.Set(s, label)
	if user, _ := old.Values["user"].(string); user != "" {
		s.Login(user)
	}
	return nil
}

func credValues(s *sojourn.Session) (map[string]any, error) {
	label := credLabel.Get(s)
	if label == "" {
		return nil, nil
	}
	return map[string]any{"label": label, "user": s.User()}, nil
}

// oldSession returns the session that the old application finds in a jar.
func (r *credRun) oldSession(jar credJar) (*adopt.Session, *credLife) {
	if r.old == nil {
		return nil, nil
	}
	s := r.old.sessions[jar.find("old")]
	if s == nil {
		return nil, nil
	}
	return s, r.lives[s.Values["label"].(string)]
}

func (r *credRun) oldUse() bool {
	s, l := r.oldSession(r.visitor)
	now := time.Now()
	if s == nil || now.After(s.Expires) {
		return false
	}
	id := string(s.State)
	if r.old.kind == "copies" {
		id = ""
	}
	values := maps.Clone(s.Values)
	values["uses"] = 1
	r.oldSets(r.old.put(id, values, now))
	if l != nil {
		l.used = now
		if r.old.kind == "copies" && l.own && !l.stored {
			// The old application does not know that it has ended, and has
			// issued a new one.
			l.ended = ""
		}
	}
	return r.old.kind != "identifiers"
}

func (r *credRun) oldAlone() bool {
	id := r.visitor.find("old")
	if id == "" {
		return false
	}
	a := r.request(r.manage(), credJar{{name: "old", value: id}}, opRead, nil)
	r.handOut(a.lines)
	return true
}

func (r *credRun) oldSets(s *adopt.Session) {
	line := "old=" + string(s.State) + "; Path=/"
	r.visitor = r.visitor.with([]string{line})
	r.handOut([]string{line})
}

// oldLogin is a login in the old application: one of anna that begins a new
// session, or one of bob in the session that is there.
func (r *credRun) oldLogin(inside bool) bool {
	if r.old == nil {
		return false
	}
	now := time.Now()
	l := &credLife{label: r.label(), user: "anna", own: true, carried: map[string]bool{}, created: now, used: now, end: now.Add(r.old.lasts())}
	values := map[string]any{}
	id := ""
	if s, last := r.oldSession(r.visitor); inside {
		if s == nil || now.After(s.Expires) {
			return false
		}
		values = maps.Clone(s.Values)
		l.user = "bob"
		if values["_sojourn"] != nil {
			l.parent = last
		}
		if r.old.kind != "copies" {
			id = string(s.State)
		}
	}
	values["label"], values["user"] = l.label, l.user
	r.lives[l.label] = l
	s := r.old.put(id, values, now)
	if r.old.kind == "sliding" {
		l.end = now.Add(credOldLasts) // it has none there
	}
	r.oldSets(s)
	return true
}

// Probes.

// refuses returns why all credentials in a jar are refused, in a way that must
// not replace a newer one; "" if they are not.
func (r *credRun) refuses(m *sojourn.Manager, jar credJar) (why string) {
	strong := func(l *credLife, h *credHandle) string {
		if r.over(l) == "" {
			return ""
		}
		expired := h != nil && l.endedAt.Sub(h.used) > credIdle // before that
		if l.ended != "" && l.replaced && time.Since(l.endedAt) < store.MinTombstone && !expired {
			return "a credential that " + l.ended + " has ended"
		}
		return "-" // may start again
	}
	for _, c := range jar {
		var one string
		switch state, isState := r.states[c.value]; {
		case c.name == "old":
			s, l := r.oldSession(jar)
			if s == nil || l == nil || l.maybe {
				return ""
			}
			if one = strong(l, nil); one != "" && r.adopted[c.value] == nil && (l.own || s.Copies && time.Since(s.Issued) > credIdle) {
				one = "-" // it is indistinguishable from another's, or was already invalid
			}
			if one == "" && s.Values["_sojourn"] != nil && r.adopted[c.value] == nil && r.isHere(l) {
				one = "a copy of a live session"
			}
			if h := r.adopted[c.value]; one == "" && h != nil && h.newest > 0 && time.Since(h.used) <= credIdle {
				one = "a legacy credential of before a rotation"
			}
		case isState:
			if state.handle == "" || time.Since(state.at) > credIdle {
				return "" // it has the mark, or has itself expired
			}
			h := r.handles[state.handle]
			if h == nil {
				return ""
			}
			if one = strong(r.lives[h.label], h); one == "" && time.Since(h.promoted) > credGrace {
				one = "an inline cookie of before"
			}
		default:
			ref := r.refs[c.value]
			if ref == nil || r.lives[ref.handle.label].staff {
				return ""
			}
			l := r.lives[ref.handle.label]
			if l.maybe {
				return ""
			}
			switch one = strong(l, ref.handle); {
			case ref.key > r.sealsWith(m):
				one = "a credential of an unknown key"
			case one == "" && r.outdated(ref):
				one = "an outdated credential"
			}
		}
		if one == "" {
			return "" // one of them is good
		}
		if one != "-" {
			why = one
		}
	}
	return why
}

const atOnce = "at once"

// probe presents a jar.
func (r *credRun) probe(jar credJar, op *credOp, when string) {
	why := r.refuses(r.manage(), jar)
	had := r.currents(r.visitor)
	n := len(r.problems)
	a := r.request(r.manage(), jar, op, nil)
	if why != "" && op == opRead {
		for _, line := range a.lines {
			if c, _ := parseSetCookie(line); !strings.HasSuffix(c.name, "-state") {
				r.fail("a read with %s sets %s", why, c.name)
			}
		}
	}
	if why != "" {
		r.stats.refused++
		if a.seen.label != "" {
			r.fail("a request with %s is served as %s", why, a.seen.label)
		}
	}
	if why != "" && len(had) > 0 && len(a.lines) > 0 {
		r.stats.applied++
		b := r.request(r.manage(), r.visitor.with(a.lines), opRead, nil)
		if left := r.currents(r.visitor); had[b.seen.label] == nil && len(left) == len(had) {
			r.fail("an answer (%d) to a %s with %s replaces %s by %q", a.status, op.name, why, labels(had), b.seen.label)
		}
	}
	for i := n; i < len(r.problems); i++ {
		r.problems[i] += fmt.Sprintf(", %s, with %s", when, r.describe(jar))
	}
}

func (r *credRun) describe(jar credJar) string {
	var all []string
	for _, c := range jar {
		switch state, isState := r.states[c.value]; {
		case c.name == "old":
			_, l := r.oldSession(jar)
			all = append(all, fmt.Sprintf("legacy %s of %s", c.value, l.label))
		case isState && state.handle == "":
			all = append(all, "a mark")
		case isState:
			label := "nothing stored"
			if h := r.handles[state.handle]; h != nil {
				label = h.label
			}
			all = append(all, "inline of "+label)
		case r.refs[c.value] != nil:
			ref := r.refs[c.value]
			all = append(all, fmt.Sprintf("reference %d of %s", ref.generation, ref.handle.label))
		}
	}
	return strings.Join(all, " + ")
}

// check reads with the newest jars: live sessions must be live.
func (r *credRun) check(when string) {
	for name, jar := range map[string]credJar{"visitor": r.visitor, "other": r.other, "staff": r.staff} {
		m := r.manage()
		if name == "staff" {
			m = r.desk
		}
		want := r.currents(jar)
		if len(want) == 0 {
			continue // it is among the probes
		}
		a := r.request(m, jar, opRead, nil)
		if want[a.seen.label] == nil {
			r.fail("%s: the %s's session %s is lost, %q is served", when, name, labels(want), a.seen.label)
		}
	}
}

// present tries every combination of credentials.
func (r *credRun) present(when string) {
	n := len(r.problems)
	r.check(when)
	kinds := [3][]credCookie{{{}}, {{}}, {{}}}
	var staff []credCookie
	for _, name := range slices.Sorted(maps.Keys(r.pool)) {
		for _, value := range slices.Sorted(maps.Keys(r.pool[name])) {
			c := credCookie{name: name, value: value}
			switch {
			case name == "__Host-staff":
				staff = append(staff, c)
			case strings.HasSuffix(name, "-state"):
				kinds[1] = append(kinds[1], c)
			case name == "old":
				kinds[2] = append(kinds[2], c)
			default:
				kinds[0] = append(kinds[0], c)
			}
		}
	}
	for _, ref := range kinds[0] {
		for _, state := range kinds[1] {
			for _, old := range kinds[2] {
				r.probes(n, when, ref, state, old)
			}
		}
		if r.world.formerly != nil {
			for _, second := range kinds[0][1:] { // under the other Domain
				r.probes(n, when, ref, second)
			}
		}
		for _, s := range staff { // one manager's credential under the other's name
			r.probes(n, when, credCookie{name: "__Host-session", value: s.value})
			if ref.name != "" && r.request(r.desk, credJar{{name: s.name, value: ref.value}}, opRead, nil).seen.label != "" {
				r.fail("the other manager accepts a credential")
			}
		}
	}
}

func (r *credRun) probes(n int, when string, cookies ...credCookie) {
	jar := slices.DeleteFunc(credJar(cookies), func(c credCookie) bool { return c.name == "" })
	if len(jar) == 0 || len(r.problems) > n || when != atOnce && len(jar) > 1 && r.current(jar[:1]) != nil {
		return // the reference of a live session always wins
	}
	r.probe(jar, opRead, when)
	if when == atOnce && r.current(jar[:1]) == nil || r.refuses(r.manage(), jar) != "" {
		r.probe(jar, opWrite, when)
	}
}

// play runs a sequence, and reports whether each event did something.
func (r *credRun) play(events []string) bool {
	for _, name := range events {
		before := r.pending
		r.pending = nil
		if !credEvents[name](r) {
			for _, f := range append(before, r.pending...) {
				f()
			}
			return false
		}
		r.stats.did[name]++
		for _, f := range before {
			f()
		}
		time.Sleep(time.Second)
	}
	for _, f := range r.pending {
		f()
	}
	r.pending = nil
	if len(r.problems) > 0 {
		return true
	}
	for _, when := range []string{atOnce, "after the grace", "two minutes later"} {
		r.present(when)
		if len(r.problems) > 0 {
			break
		}
		time.Sleep(credGrace + time.Second)
	}
	r.check("at the end")
	return true
}

// run plays all sequences that begin with those events.
func (w *credWorld) run(t *testing.T, stats *credStats, keys *sojourn.KeyRing, first []string, depth int) (problems []string) {
	begun := len(strings.Fields(w.begin))
	if len(first) > begun {
		stats.sequences++
		r := newCredRun(t, w, stats, keys)
		did := r.play(first)
		r.close()
		if len(r.problems) > 0 {
			return []string{fmt.Sprintf("%s: %s", strings.Join(first, ", "), r.problems[0])}
		}
		if !did || len(first) == begun+depth {
			return nil
		}
	}
	for name := range strings.FieldsSeq(w.events) {
		problems = append(problems, w.run(t, stats, keys, append(slices.Clip(first), name), depth)...)
	}
	return problems
}

var moreEvents = flag.Int("model.more", 0, "let TestCredentialModel play sequences that are so many events longer")

var credWorlds = map[string]*credWorld{
	"without a legacy format": {
		depth: 3, events: "login colour write rotate logout bob elsewhere idle revoke-handle slow-write slow-login slow-logout late-login",
	},
	"anonymous visitors": {depth: 3, events: "colour write logout login grace idle slow-colour slow-write late-write late-colour revoke-handle"},
	"rotations":          {begin: "login", depth: 3, events: "write rotate grace slow-read late-rotate login"},
	"theft ends the session": {
		begin: "login", depth: 3, events: "rotate grace slow-write colour login",
		edit: func(c *sojourn.Config) { c.Rotation.EndOnTheft = true },
	},
	"rotation by itself": {
		begin: "login", depth: 3, events: "write read grace slow-write late-write login",
		edit: func(c *sojourn.Config) { c.Rotation.Every = time.Minute },
	},
	"a narrower Domain": {
		begin: "login", depth: 3, events: "login colour logout redeploy tab revoke-user",
		formerly: &sojourn.Cookie{Domain: "example.com"},
		edit:     func(c *sojourn.Config) { c.Cookie.Domain = "studio.example.com" },
	},
	"another name": {
		begin: "login", depth: 3, events: "login colour logout redeploy tab revoke-user",
		formerly: &sojourn.Cookie{},
		edit:     func(c *sojourn.Config) { c.Cookie.Domain = "example.com" },
	},
	"another manager": {depth: 3, events: "login write logout staff revoke-user erase-user"},
	"another key":     {begin: "login", depth: 3, events: "login write colour keys behind logout"},
	"identifiers":     {kind: "identifiers", depth: 3, events: "login write rotate logout idle lifetime old-login elsewhere erase-user sweep"},
	"sliding":         {kind: "sliding", depth: 3, events: "login logout bob elsewhere idle old-use old-login old-bob revoke-user"},
	"copies":          {kind: "copies", depth: 3, events: "login logout bob elsewhere idle rotate old-use old-alone old-login revoke-user"},
	// What brings a legacy session back into play takes more events.
	"sliding, rolled back": {
		kind: "sliding", begin: "login idle old-use", depth: 2, events: "login idle old-use old-alone elsewhere logout keys",
	},
	"copies, rolled back": {
		kind: "copies", begin: "login idle old-use old-use old-alone", depth: 2, events: "login idle old-use old-alone elsewhere",
	},
	"copies, rolled back, any number": {
		kind: "copies", begin: "login idle old-use old-use", depth: 2, events: "login idle old-use old-alone elsewhere logout bob",
		edit: func(c *sojourn.Config) { c.Limit.Max = 0 },
	},
}

func TestCredentialModel(t *testing.T) {
	for name, w := range credWorlds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys := sitetest.Keys(t)
			synctest.Test(t, func(t *testing.T) {
				stats := &credStats{did: map[string]int{}}
				problems := w.run(t, stats, keys, strings.Fields(w.begin), w.depth+*moreEvents)
				slices.SortStableFunc(problems, func(a, b string) int { return strings.Count(a, ",") - strings.Count(b, ",") })
				for i, p := range problems {
					if i == 20 {
						t.Errorf("and %d more", len(problems)-i)
						break
					}
					t.Error(p)
				}
				t.Logf("%+v", *stats)
				for event := range strings.FieldsSeq(w.events) {
					if stats.did[event] == 0 && *moreEvents >= 0 { // some need more events before them
						t.Errorf("%s never did anything", event)
					}
				}
				if stats.served == 0 || stats.refused == 0 || stats.applied == 0 || stats.adopted == 0 && w.kind != "" {
					t.Error("the model does not try what it is about")
				}
			})
		})
	}
}
