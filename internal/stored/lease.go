package stored

import (
	"context"
	"errors"
	"hash/fnv"
	"strings"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/store"
)

// A lease means that a process is replacing a value of a session. It is a field
// of the session's record, and changes by compare-and-set. It has no expiry
// time, because clocks differ. A lease is dead if, by the monotonic clock of a
// waiting process, it has not changed for its time to live, and the store has
// accepted a save meanwhile; otherwise the holder may be unable to write
// either.
type lease struct {
	_     struct{} `cbor:",toarray"`
	Nonce uint64   // of the holder; 0 = not held
	Beat  uint64   // grows while the holder lives
	TTL   int64    // in ms
	Fails uint64   // how many holders have failed since the last success
	Room  []byte   // reserves space for the new value
	Knock bool     // written by a waiting process; a live holder overwrites it
}

const (
	leasePrefix = "_renew."
	// MaxRenewName is the longest name of a value that can be renewed, in bytes.
	MaxRenewName = record.MaxName - len(leasePrefix)
	// leaseKept is how long an unchanged lease is kept. By then it is dead by
	// any clock.
	leaseKept = time.Hour

	beatsPerTTL = 10
	looksPerTTL = 8
	longestLook = 500 * time.Millisecond
	firstLook   = 50 * time.Millisecond
)

// leaseTTL is the time to live of leases that this process holds.
func (s *Sessions) leaseTTL() time.Duration { return 2 * s.Timeout }

// leaseOf returns the lease of a value; the zero lease if there is none.
func leaseOf(st *State, name string) lease {
	f, ok := st.Rec.Find(leasePrefix + name)
	if !ok {
		return lease{}
	}
	return parseLease(f.Value)
}

func parseLease(raw []byte) (l lease) {
	if cbor.Unmarshal(raw, &l) == nil {
		return l
	}
	// From a newer version. It counts as held while it changes.
	h := fnv.New64a()
	_, _ = h.Write(raw)
	return lease{Nonce: h.Sum64() | 1, TTL: (10 * time.Second).Milliseconds()}
}

func (l *lease) ttl() time.Duration { return time.Duration(l.TTL) * time.Millisecond }

// put sets the lease of a value in a draft; one without holder and failures is removed.
func (l *lease) put(d *draft.Draft, name string) error {
	if l.Nonce == 0 && l.Fails == 0 {
		d.Remove(leasePrefix + name)
		return nil
	}
	raw, err := cbor.Marshal(l)
	if err == nil {
		d.Set(draft.Slot{Name: leasePrefix + name, Flags: record.ServerSide, TTL: leaseKept}, raw, true)
	}
	return err
}

// liveValue returns the bytes of a value, if it is there at now.
func liveValue(st *State, name string, now time.Time) ([]byte, bool) {
	f, ok := st.Rec.Find(name)
	if !ok || !f.Live(now.UnixMilli()) || f.Value == nil {
		return nil, false
	}
	return f.Value, true
}

// leaseKey names a value of a session.
type leaseKey struct {
	id   store.ID
	name string
}

// leases are the leases that this process holds or waits for.
type leases struct {
	mu      sync.Mutex
	flights map[leaseKey]*flight
	// sightings outlive a waiting request: otherwise requests that give up
	// before a dead lease's time is over would never detect that it is dead.
	sightings map[leaseKey]*sighting
}

// sighting is a process's knowledge of another process's lease.
type sighting struct {
	nonce, beat uint64
	quiet       time.Duration // for how long it has certainly not changed
	knock       bool          // the lease has a knock
	knocked     time.Duration // for how long the knock was not answered
	at          time.Time     // when it was read last
}

// mostSightings is the number of sightings above which old ones are dropped.
const mostSightings = 256

// sighted records that the store has answered a load, sent at begin, with l.
func (ls *leases) sighted(k leaseKey, l lease, begin time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	g := ls.sightings[k]
	switch {
	case l.Nonce == 0:
		delete(ls.sightings, k)
		return
	case g == nil:
		if len(ls.sightings) >= mostSightings {
			for other, g := range ls.sightings {
				if begin.Sub(g.at) > time.Minute {
					delete(ls.sightings, other)
				}
			}
		}
		if ls.sightings == nil {
			ls.sightings = map[leaseKey]*sighting{}
		}
		g = &sighting{}
		ls.sightings[k] = g
		fallthrough
	case g.nonce != l.Nonce || g.beat != l.Beat:
		*g = sighting{nonce: l.Nonce, beat: l.Beat}
	default:
		// No request has looked for longer than that, so the store may have
		// been unavailable for the holder.
		more := max(0, min(begin.Sub(g.at), l.ttl()/4))
		g.quiet += more
		if g.knock {
			g.knocked += more
		}
	}
	g.knock, g.at = l.Knock, time.Now()
}

// blind records that the store has not answered, or not accepted a save, so
// that it may also be unreachable for the holders of a session's leases.
func (ls *leases) blind(id store.ID) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for k, g := range ls.sightings {
		if k.id == id {
			*g = sighting{nonce: g.nonce, beat: g.beat, at: time.Now()}
		}
	}
}

// abandon records that a lease of this process, which may be in the store, is not held any more.
func (ls *leases) abandon(k leaseKey, l lease) {
	ls.sighted(k, l, time.Now())
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.sightings[k].quiet, ls.sightings[k].knocked = l.ttl(), l.ttl()
}

// suspect reports whether it is time to knock.
func (ls *leases) suspect(k leaseKey, l lease) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	g := ls.sightings[k]
	return g != nil && !l.Knock && g.quiet >= l.ttl()/2
}

// dead reports whether l has not changed for its time to live.
func (ls *leases) dead(k leaseKey, l lease) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	g := ls.sightings[k]
	return g != nil && g.nonce == l.Nonce && g.beat == l.Beat && g.quiet >= l.ttl() && g.knocked >= l.ttl()/4
}

// held reports whether a process that may be alive holds the lease.
func (ls *leases) held(k leaseKey, l lease) bool { return l.Nonce != 0 && !ls.dead(k, l) }

// look loads a session from the store itself, and records its lease of that
// value.
func (s *Sessions) look(ctx context.Context, k leaseKey, who Who) (*State, error) {
	ctx, cancel := s.Bounded(ctx)
	defer cancel()
	begin := time.Now()
	st, err := s.loadNewest(ctx, who)
	if err != nil {
		s.leases.blind(k.id)
		return nil, err
	}
	s.leases.sighted(k, leaseOf(st, k.name), begin)
	return st, nil
}

// nextLook returns the pause after that pause.
func nextLook(pause, ttl time.Duration) time.Duration {
	return max(firstLook/4, min(2*pause, longestLook, ttl/looksPerTTL))
}

// errLeased means that a session must not be moved now, because a value is
// being fetched for it.
var errLeased = errors.New("sojourn: a value of the session is being renewed")

// leased returns the names of a session's values with a held lease.
func (s *Sessions) leased(st *State) (names []string) {
	for _, f := range st.Rec.Frames() {
		name, ok := strings.CutPrefix(f.Name, leasePrefix)
		if ok && s.leases.held(leaseKey{st.ID, name}, leaseOf(st, name)) {
			names = append(names, name)
		}
	}
	return names
}

// awaitLeases waits until no lease of a session is held, and returns its state
// then; nil if the session has ended or the limit comes first.
func (s *Sessions) awaitLeases(ctx context.Context, who Who, limit time.Time) *State {
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), limit)
	defer cancel()
	for pause := firstLook; sleep(ctx, pause); pause = nextLook(pause, s.leaseTTL()) {
		loading, cancel := context.WithTimeout(ctx, s.Timeout)
		begin := time.Now()
		st, err := s.loadNewest(loading, who)
		cancel()
		switch {
		case errors.Is(err, ErrGone):
			return nil
		case err != nil:
			s.leases.blind(who.ID)
			continue
		}
		for _, name := range s.leased(st) {
			s.leases.sighted(leaseKey{st.ID, name}, leaseOf(st, name), begin)
		}
		if len(s.leased(st)) == 0 {
			return st
		}
	}
	return nil
}

// knock writes into a lease that a process waits. If the store accepts this,
// the holder can also write.
func (s *Sessions) knock(ctx context.Context, k leaseKey, st *State) {
	ctx, cancel := s.Bounded(ctx)
	defer cancel()
	_, err := s.Edit(ctx, st, func(cur *State) (*draft.Draft, error) {
		d := &draft.Draft{Now: s.Now}
		d.Start(&cur.Rec)
		l := leaseOf(cur, k.name)
		if !s.leases.suspect(k, l) || l.Nonce == 0 {
			return d, nil
		}
		l.Knock = true
		return d, l.put(d, k.name)
	})
	if err != nil {
		s.leases.blind(k.id)
	}
}

// dropLeases removes the leases from a copied record: their holders have the
// original session.
func dropLeases(r *record.Record) {
	var names []string
	for _, f := range r.Frames() {
		if strings.HasPrefix(f.Name, leasePrefix) {
			names = append(names, f.Name)
		}
	}
	for _, name := range names {
		r.Remove(name)
	}
}

// mustWait reports whether a login must wait for the renewal of a value that it
// carries over.
func (m *mover) mustWait() bool {
	return m.patient && m.ends && !m.Login.Drop && m.old != nil && m.old.Where == rules.Stored && len(m.s.leased(m.old)) > 0
}
