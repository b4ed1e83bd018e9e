package stored

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/store"
)

// Commits of one session queue up within a process and are saved together, so
// that compare-and-set conflicts only come from other processes: of many
// independent retry loops, some would starve.
type queues struct {
	shards [64]queueShard
}

type queueShard struct {
	mu   sync.Mutex
	byID map[store.ID]*queue
}

// queue is one session's commits. The first of waiting is working, or about to;
// jobs that it has taken on are not in waiting any more.
type queue struct {
	waiting []*job
	known   *State // newest stored state that this queue has seen
}

// job is one request's part in the commits of a session.
type job struct {
	Change
	// alone, if set, runs instead of merging this job's changes with others. It
	// returns the session's newest stored state, if known.
	alone func(ctx context.Context, known *State) (*State, error)

	lead     chan struct{} // closed when this job must do the work
	done     chan struct{} // closed when another job has done it
	deadline time.Time

	result   Result
	err      error
	panicked any // by an Update function, in any goroutine
}

// maxBatch is the maximum number of commits that are saved together.
const maxBatch = 64

// ErrMovedOn means that the inline session was stored too long ago for its
// cookie to be valid for the stored one.
var ErrMovedOn = errors.New("sojourn: the cookie is older than the stored session")

// ErrAborted means that the goroutine that did the work panicked.
var ErrAborted = errors.New("sojourn: the commit was aborted")

// Save applies the draft, together with others of the session that wait in this
// process, to the newest state and saves that once. On a conflict it loads the
// session and applies them again: Update functions may run again, in the
// leader's goroutine. If one panics, Save panics with the same value in its
// caller's goroutine.
func (s *Sessions) Save(ctx context.Context, c Change) (Result, error) {
	j := &job{Change: c}
	s.queues.do(ctx, s, j)
	return j.result, j.err
}

// Rewrite saves a session's state unchanged, to record activity if the store
// cannot touch.
func (s *Sessions) Rewrite(ctx context.Context, st *State) error {
	var d draft.Draft
	d.Start(&st.Rec)
	_, err := s.Save(ctx, Change{Who: st.Who, Base: st, Draft: &d})
	return err
}

// do carries out j, together with other jobs of its session if possible. It
// returns when j's outcome is known.
func (qs *queues) do(ctx context.Context, s *Sessions, j *job) {
	j.deadline, _ = ctx.Deadline()
	j.lead, j.done = make(chan struct{}), make(chan struct{})
	j.err = ErrAborted // until it is known
	sh := &qs.shards[int(j.Who.ID[0])%len(qs.shards)]

	q := sh.join(j)
	select {
	case <-j.lead:
	case <-j.done:
	case <-ctx.Done():
		if sh.giveUp(q, j) {
			j.err = fault.Away("save", context.Cause(ctx))
			return
		}
		// Another job is doing it, or it will lead, within a bounded time.
		select {
		case <-j.lead:
		case <-j.done:
		}
	}
	select {
	case <-j.done:
	default:
		sh.work(ctx, s, q, j)
	}
	if j.panicked != nil {
		panic(j.panicked)
	}
	if errors.Is(j.err, ErrAborted) { // the goroutine that did the work panicked
		j.err = fault.Away("save", ErrAborted)
	}
}

// join adds j to its session's queue. The first job leads.
func (sh *queueShard) join(j *job) *queue {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	q := sh.byID[j.Who.ID]
	if q == nil {
		if sh.byID == nil {
			sh.byID = map[store.ID]*queue{}
		}
		q = &queue{}
		sh.byID[j.Who.ID] = q
		close(j.lead)
	}
	q.waiting = append(q.waiting, j)
	return q
}

// giveUp removes j from the queue unless it has been taken on already.
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

// work carries out j and the jobs after it that can be merged with it.
func (sh *queueShard) work(ctx context.Context, s *Sessions, q *queue, j *job) {
	sh.mu.Lock()
	n := 1
	if j.joins(s) {
		for n < len(q.waiting) && n < maxBatch && q.waiting[n].joins(s) {
			n++
		}
	}
	// Meanwhile joiners find the queue busy because it exists.
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
			delete(sh.byID, j.Who.ID)
		}
		sh.mu.Unlock()
		for _, other := range batch[1:] {
			close(other.done)
		}
	}()

	// The context has the leader's values, such as its trace. No job waits
	// longer than its own deadline.
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
	known = s.saveMerged(ctx, batch, known)
}

// joins reports whether j can be saved together with others: its deadline,
// which then applies to all, leaves enough time.
func (j *job) joins(s *Sessions) bool {
	return j.alone == nil && time.Until(j.deadline) >= s.Timeout/5
}

func (j *job) runAlone(ctx context.Context, known *State) (next *State, err error) {
	defer func() {
		if p := recover(); p != nil {
			j.panicked = p
		}
	}()
	return j.alone(ctx, known)
}

// newest returns the newest of the stored states that a job could start from,
// or nil if the session is not known to be stored.
func newest(known *State, jobs ...*job) *State {
	for _, j := range jobs {
		if st := j.Base; st.Where == rules.Stored && (known == nil || st.atLeast(known)) {
			known = st
		}
	}
	return known
}

// atLeast reports whether a job should start from st rather than from known,
// another state of the same session. If they are equal, it should use its own,
// the base of its draft, unless that is missing the other's volatile values.
func (st *State) atLeast(known *State) bool {
	if st.Meta.Base() == known.Meta.Base() {
		return st.Volatile != 0 || known.Volatile == 0
	}
	return st.Meta.Version > known.Meta.Version
}

// saveMerged applies the changes of all jobs, in order, to the newest state of
// their session and saves the result once. A job whose own changes cannot be
// applied fails alone. It returns the newest known state.
func (s *Sessions) saveMerged(ctx context.Context, jobs []*job, known *State) *State {
	cur := newest(known, jobs...)
	floor := uint64(0) // the newest version that the store has lost
	for attempt := 0; ; attempt++ {
		next, in, err := s.saveOnce(ctx, jobs, cur, floor)
		switch jobs = in; {
		case len(jobs) == 0:
			return cur
		case err == nil:
			rotated := cur != nil && next.Rec.Header.Generation != cur.Rec.Header.Generation
			for i, j := range jobs {
				j.result.State, j.result.Behind, j.result.Rotated, j.err = next, i < len(jobs)-1, rotated && i == 0, nil
			}
			return next
		case errors.Is(err, fault.TooLarge) && len(jobs) > 1:
			// One job's result is too large for the store, which must not fail the others.
			for _, j := range jobs {
				cur = s.saveMerged(ctx, []*job{j}, cur)
			}
			return cur
		case !errors.Is(err, store.ErrConflict):
			return failAll(jobs, cur, err)
		case !BackOff(ctx, attempt):
			return failAll(jobs, cur, fault.Away("save", ctx.Err()))
		}
		fresh, err := s.loadNewest(ctx, jobs[0].Who)
		if err != nil {
			return failAll(jobs, nil, err)
		}
		if cur != nil && fresh.Meta.Version < cur.Meta.Version {
			s.Observer.LostWrites(fresh.ID)
			floor = cur.Meta.Version
		}
		cur = fresh
	}
}

// saveOnce tries to save the jobs' changes on top of cur, and returns the jobs
// whose changes could be applied.
func (s *Sessions) saveOnce(ctx context.Context, jobs []*job, cur *State, floor uint64) (next *State, in []*job, err error) {
	now := s.Now()
	rec, in, minimum := s.merge(cur, jobs, now)
	if len(in) == 0 {
		return nil, nil, nil
	}
	seen, base := now, store.Base{}
	if cur != nil {
		base = cur.Meta.Base()
		if !slices.ContainsFunc(in, func(j *job) bool { return !j.Quiet }) {
			seen = cur.Meta.Seen
		}
	}
	next, data, err := s.seal(rec, in[0].Who, cur, max(minimum, floor), now, seen)
	if err == nil {
		err = s.keepLinked(ctx, cur, next)
	}
	if err == nil {
		err = s.send(ctx, withData(next, data), base)
	}
	return next, in, err
}

func failAll(jobs []*job, known *State, err error) *State {
	for _, j := range jobs {
		j.err = err
	}
	return known
}

// merge applies the jobs' changes to cur (nil: the session is being stored for
// the first time) and returns the result, the jobs whose changes are in it, and
// the version that it must exceed.
func (s *Sessions) merge(cur *State, jobs []*job, now time.Time) (rec record.Record, in []*job, minimum uint64) {
	if cur != nil {
		rec = cur.Rec
	}
	for _, j := range jobs {
		from := rec
		switch {
		case cur == nil && len(in) == 0:
			from = j.Base.Rec
			from.Header = s.firstHeader(j.Base, j.Visit, now)
		case j.Base.Where == rules.Inline && cur != nil && !s.Limits.Joinable(&cur.Rec.Header, j.Arrived):
			j.err = ErrMovedOn
			continue
		case j.Base.Where == rules.Inline:
			from = draft.MergeInline(&rec, &j.Base.Rec)
			from.Header.InlineUntil = max(from.Header.InlineUntil, s.Limits.LifetimeEnd(&j.Base.Rec.Header).UnixMilli())
		}
		out, err := j.apply(&from, now)
		if err == nil && out.Size() > s.Limits.MaxSize {
			// Size is an upper bound: compute the exact size only now.
			if n := len(out.Append(nil)); n > s.Limits.MaxSize {
				err = fault.Size(n, s.Limits.MaxSize)
			}
		}
		if err != nil {
			j.err = err
			continue
		}
		rec = out
		minimum = max(minimum, j.Above)
		j.result.Mine = out
		in = append(in, j)
	}
	return rec, in, minimum
}

// apply applies the job's changes, in the leader's goroutine.
func (j *job) apply(r *record.Record, now time.Time) (out record.Record, err error) {
	defer func() {
		if p := recover(); p != nil {
			j.panicked, err = p, ErrAborted
		}
	}()
	return j.Draft.Apply(r, now)
}

// firstHeader is the header of a session that is stored for the first time.
func (s *Sessions) firstHeader(from *State, v Visit, now time.Time) record.Header {
	h := from.Rec.Header
	if from.Where == rules.Inline {
		h.PromotedAt, h.Promoted = h.Counter, now.UnixMilli()
		// References to it exist from now on. So nothing may be stored under
		// its identifier again while such a cookie can be refreshed.
		h.InlineUntil = s.Limits.LifetimeEnd(&h).UnixMilli()
	}
	h.UserAgent, h.IP = v.UserAgent, v.IP
	return h
}
