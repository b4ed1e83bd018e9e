package sojourn

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/store"
)

// Commits of one session queue up within a process and are saved together, so
// that compare-and-set loses only against other processes: sixty-four
// independent loops would starve some of their members.
type queues struct {
	shards [64]queueShard
}

type queueShard struct {
	mu   sync.Mutex
	byID map[store.ID]*queue
}

// queue is one session's commits. The first of waiting is at work, or about to
// be; jobs that it took on are not in waiting any more.
type queue struct {
	waiting []*job
	known   *state // newest stored state that this queue has seen
}

// job is one request's part in the commits of a session.
type job struct {
	s   *Session
	who identity // of the session that the store is asked for
	// alone, if set, runs instead of merging this job's changes with others'.
	// It returns the session's newest stored state, if it knows it.
	alone func(ctx context.Context, known *state) (*state, error)

	lead     chan struct{} // closed when this job is to do the work
	done     chan struct{} // closed when another job has done it
	deadline time.Time

	next     *state        // the session as saved
	out      record.Record // what this job's changes made of it
	behind   bool          // later jobs' changes were saved on top
	err      error
	panicked any // by an Update function, in whatever goroutine it ran
}

const maxBatch = 64

// errOutdatedInline says that the session in a cookie was stored too long ago
// for the cookie to be good for it.
var errOutdatedInline = errors.New("sojourn: the cookie is older than the stored session")

var errAborted = errors.New("sojourn: the commit was aborted")

// do settles j, together with other jobs of its session where that is
// possible. It returns when j's outcome is known.
func (qs *queues) do(ctx context.Context, m *Manager, j *job) {
	j.deadline, _ = ctx.Deadline()
	j.lead, j.done = make(chan struct{}), make(chan struct{})
	j.err = errAborted // until it is known
	sh := &qs.shards[int(j.who.id[0])%len(qs.shards)]

	q := sh.join(j)
	select {
	case <-j.lead:
	case <-j.done:
	case <-ctx.Done():
		if sh.giveUp(q, j) {
			j.err = unavailable("save", context.Cause(ctx))
			return
		}
		// It is being worked on, or is to lead, within a bounded time.
		select {
		case <-j.lead:
		case <-j.done:
		}
	}
	select {
	case <-j.done:
	default:
		sh.work(ctx, m, q, j)
	}
	if j.panicked != nil {
		panic(j.panicked)
	}
	if errors.Is(j.err, errAborted) { // whoever did the work panicked
		j.err = unavailable("save", errAborted)
	}
}

// join adds j to its session's queue. The first one in leads.
func (sh *queueShard) join(j *job) *queue {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	q := sh.byID[j.who.id]
	if q == nil {
		if sh.byID == nil {
			sh.byID = map[store.ID]*queue{}
		}
		q = &queue{}
		sh.byID[j.who.id] = q
		close(j.lead)
	}
	q.waiting = append(q.waiting, j)
	return q
}

// giveUp takes j out of the queue unless it has been taken on already.
func (sh *queueShard) giveUp(q *queue, j *job) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	select {
	case <-j.lead:
		return false
	default:
	}
	i := slices.Index(q.waiting, j)
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	return true
}

// work settles j and the jobs behind it that can be merged with it.
func (sh *queueShard) work(ctx context.Context, m *Manager, q *queue, j *job) {
	sh.mu.Lock()
	n := 1
	if j.joins(m) {
		for n < len(q.waiting) && n < maxBatch && q.waiting[n].joins(m) {
			n++
		}
	}
	// While the work goes on, joiners find the queue busy because it exists.
	batch := slices.Clone(q.waiting[:n])
	q.waiting = slices.Delete(q.waiting, 0, n)
	known := q.known
	sh.mu.Unlock()

	defer func() {
		sh.mu.Lock()
		q.known = known
		if len(q.waiting) > 0 {
			close(q.waiting[0].lead)
		} else {
			delete(sh.byID, j.who.id)
		}
		sh.mu.Unlock()
		for _, other := range batch[1:] {
			close(other.done)
		}
	}()

	// The leader's values, such as its trace, go along to the store. Nobody waits
	// for longer than until his own deadline.
	first := j
	for _, other := range batch {
		if other.deadline.Before(first.deadline) {
			first = other
		}
	}
	if first != j {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, first.deadline)
		defer cancel()
	}
	if j.alone != nil {
		known, j.err = j.runAlone(ctx, known)
		return
	}
	known = m.saveMerged(ctx, batch, known)
}

// joins reports whether j can be saved together with others: it leaves them
// enough time until its deadline, which is theirs then.
func (j *job) joins(m *Manager) bool {
	return j.alone == nil && time.Until(j.deadline) >= m.cfg.Timeout/5
}

func (j *job) runAlone(ctx context.Context, known *state) (next *state, err error) {
	defer func() {
		if p := recover(); p != nil {
			j.panicked = p
		}
	}()
	return j.alone(ctx, known)
}

// newest returns the newest of the stored states that a job could start from,
// or nil if the session is not known to be stored.
func newest(known *state, jobs ...*job) *state {
	for _, j := range jobs {
		st := j.s.last
		if st.placement == PlacementStored && (known == nil || st.stored.Version > known.stored.Version ||
			st.volatile != 0 && known.volatile == 0 && st.stored.Base() == known.stored.Base()) {
			known = st
		}
	}
	return known
}

// saveMerged applies the changes of all jobs, in order, to the newest state of
// their session and saves the result once. A job whose own changes cannot be
// applied fails alone. It returns the newest state that it knows.
func (m *Manager) saveMerged(ctx context.Context, jobs []*job, known *state) *state {
	cur := newest(known, jobs...)
	floor := uint64(0) // the newest version that the store has lost
	for attempt := 0; ; attempt++ {
		now := m.now()
		rec, rest, minimum := m.merge(cur, jobs, now)
		if len(rest) == 0 {
			return cur
		}
		jobs = rest
		seen := now
		if cur != nil && !slices.ContainsFunc(jobs, func(j *job) bool { return !j.s.background }) {
			seen = cur.stored.Seen
		}
		next, err := m.sealRecord(rec, jobs[0].who, cur, max(minimum, floor), now, seen)
		if err == nil {
			base := store.Base{}
			if cur != nil {
				base = cur.stored.Base()
			}
			err = m.send(ctx, next.stored, base)
		}
		if err == nil {
			next.stored.Data = nil
			if cur != nil && next.rec.Header.Generation != cur.rec.Header.Generation {
				m.count.rotations.Add(1)
				m.tell(ctx, jobs[0].s.event(EventRotated, next))
			}
			for i, j := range jobs {
				j.next, j.err, j.behind = next, nil, i < len(jobs)-1
			}
			return next
		}
		if errors.Is(err, ErrTooLarge) && len(jobs) > 1 {
			// One of them is too large for the store; that must not fail the others.
			for _, j := range jobs {
				cur = m.saveMerged(ctx, []*job{j}, cur)
			}
			return cur
		}
		if !errors.Is(err, store.ErrConflict) {
			return settleAll(jobs, cur, err)
		}
		if !backOff(ctx, attempt) {
			return settleAll(jobs, cur, unavailable("save", ctx.Err()))
		}
		fresh, err := m.fetchNewest(ctx, jobs[0].who)
		if err != nil {
			return settleAll(jobs, nil, err)
		}
		if cur != nil && fresh.stored.Version < cur.stored.Version {
			m.fellBack(fresh.id)
			floor = cur.stored.Version
		}
		cur = fresh
	}
}

func settleAll(jobs []*job, known *state, err error) *state {
	for _, j := range jobs {
		j.err = err
	}
	return known
}

// merge applies the jobs' changes to cur (nil: the session is being stored for
// the first time) and returns the result, the jobs whose changes are in it, and
// the version that it must exceed.
func (m *Manager) merge(cur *state, jobs []*job, now time.Time) (rec record.Record, in []*job, minimum uint64) {
	st := nothing
	if cur != nil {
		st = cur
	}
	for _, j := range jobs {
		from := j.s.last
		next := *st
		switch {
		case cur == nil && len(in) == 0:
			next = *from
			next.rec.Header = m.storedHeader(from, j.s.visit(), now)
		case from.placement == PlacementInline && cur != nil && !m.joinable(&cur.rec.Header, j.s.loaded):
			j.err = errOutdatedInline
			continue
		case from.placement == PlacementInline:
			next.rec = mergeInline(st.rec, &from.rec)
			next.rec.Header.InlineUntil = max(next.rec.Header.InlineUntil, m.lifetimeEnd(&from.rec.Header).UnixMilli())
			next.stored = store.Record{} // not a state that anybody's view was made of
		}
		out, err := j.apply(&next, now)
		if err == nil && out.Size() > m.cfg.MaxSize {
			// Size is an upper bound: only now is the exact one worth it.
			if n := len(out.Append(nil)); n > m.cfg.MaxSize {
				err = tooLarge(n, m.cfg.MaxSize)
			}
		}
		if err != nil {
			j.err = err
			continue
		}
		st = &state{placement: PlacementStored, identity: j.who, rec: out}
		minimum = max(minimum, j.s.jar.lost)
		j.out = out
		in = append(in, j)
	}
	return st.rec, in, minimum
}

// apply does the job's changes, in whatever goroutine leads.
func (j *job) apply(st *state, now time.Time) (out record.Record, err error) {
	defer func() {
		if p := recover(); p != nil {
			j.panicked, err = p, errAborted
		}
	}()
	return j.s.applyTo(st, now)
}

// storedHeader is the header of a session that is stored for the first time.
func (m *Manager) storedHeader(from *state, v visit, now time.Time) record.Header {
	h := from.rec.Header
	if from.placement == PlacementInline {
		h.PromotedAt, h.Promoted = h.Counter, now.UnixMilli()
		// References to it exist from now on. So nothing may be stored under its
		// identifier again, however long such a cookie is kept fresh.
		h.InlineUntil = m.lifetimeEnd(&h).UnixMilli()
	}
	h.UserAgent, h.IP = v.userAgent, v.ip
	return h
}
