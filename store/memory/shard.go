package memory

import (
	"container/heap"
	"slices"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// A shard holds the entries of some IDs, with three more indexes: by deadline,
// by user, and by a fixed slot.
type shard struct {
	mu      sync.RWMutex
	entries map[store.ID]*entry
	live    queue                     // sessions, the next deadline first
	marks   queue                     // tombstones, the next deadline first
	users   map[store.UserHash]*entry // the first of each user's live entries
	slots   []*entry                  // for Scan: nil where an entry was removed
	free    []int                     // the empty slots
	bytes   int64                     // sum of len(data)
	listed  int64                     // entries that belong to a user
}

// An entry is a row and its place in the shard's indexes.
type entry struct {
	row
	place      int    // in live or marks
	slot       int    // in slots
	prev, next *entry // of the same user
}

// A row is the stored form of a store.Record. Times are Unix milliseconds.
type row struct {
	id          store.ID
	version     uint64
	saveIDs     [store.RecentSaveIDs]store.SaveID
	saveIDCount int
	user        store.UserHash
	created     int64
	seen        int64
	deadline    int64
	expires     int64
	ended       int64
	data        []byte
}

// overhead is about the size of an entry besides its data, including its share
// of maps and slices. Measured: 300 to 340 bytes.
const overhead = 350

// zeroTime is the stored form of the zero time.Time.
var zeroTime = time.Time{}.UnixMilli()

func newRow(rec *store.Record) row {
	r := row{
		id:       rec.ID,
		version:  rec.Version,
		user:     rec.User,
		created:  rec.Created.UnixMilli(),
		seen:     rec.Seen.UnixMilli(),
		deadline: rec.Deadline.UnixMilli(),
		expires:  rec.Expires.UnixMilli(),
		ended:    rec.Ended.UnixMilli(),
		data:     rec.Data,
	}
	r.saveIDCount = copy(r.saveIDs[:], rec.SaveIDs)
	return r
}

func (r *row) record() store.Record {
	return store.Record{
		ID:       r.id,
		Version:  r.version,
		SaveIDs:  slices.Clone(r.saveIDs[:r.saveIDCount]),
		User:     r.user,
		Created:  time.UnixMilli(r.created).UTC(),
		Seen:     time.UnixMilli(r.seen).UTC(),
		Deadline: time.UnixMilli(r.deadline).UTC(),
		Expires:  time.UnixMilli(r.expires).UTC(),
		Ended:    time.UnixMilli(r.ended).UTC(),
		Data:     r.data,
	}
}

func (r *row) cost() int64      { return overhead + int64(len(r.data)) }
func (r *row) isEnd() bool      { return r.ended != zeroTime }
func (r *row) isListed() bool   { return r.user != store.UserHash{} && !r.isEnd() }
func (r *row) base() store.Base { return store.Base{Version: r.version, SaveID: r.saveIDs[0]} }
func (r *row) has(saveID store.SaveID) bool {
	return slices.Contains(r.saveIDs[:r.saveIDCount], saveID)
}

func (sh *shard) init() {
	sh.entries = map[store.ID]*entry{}
	sh.users = map[store.UserHash]*entry{}
}

// save is Store.Save; grown is the growth of the shard in bytes.
func (sh *shard) save(r row, base store.Base, shorten bool) (grown int64, err error) {
	e := sh.entries[r.id]
	insert := base == store.Base{}
	switch {
	case e == nil:
		if !insert {
			return 0, store.ErrConflict
		}
		sh.add(r)
		return r.cost(), nil
	case e.has(r.saveIDs[0]):
		return 0, nil
	case insert:
		if e.deadline >= time.Now().UnixMilli() {
			return 0, store.ErrConflict
		}
	case e.isEnd() || e.base() != base:
		return 0, store.ErrConflict
	case !shorten && !r.isEnd():
		r.seen, r.deadline = max(r.seen, e.seen), max(r.deadline, e.deadline)
	}
	grown = r.cost() - e.cost()
	sh.replace(e, r)
	return grown, nil
}

// end is Store.Delete.
func (sh *shard) end(id store.ID, until int64) (grown int64) {
	e := sh.entries[id]
	if e == nil {
		mark := newRow(&store.Record{ID: id, Ended: time.Now()})
		mark.deadline = until
		sh.add(mark)
		return mark.cost()
	}
	mark := e.row
	if mark.isEnd() {
		mark.deadline = max(mark.deadline, until)
	} else {
		mark.ended, mark.deadline, mark.data = time.Now().UnixMilli(), until, nil
	}
	grown = mark.cost() - e.cost()
	sh.replace(e, mark)
	return grown
}

// touch is Store.Touch.
func (sh *shard) touch(id store.ID, seen, deadline int64) error {
	e := sh.entries[id]
	if e == nil || e.isEnd() {
		return store.ErrNotFound
	}
	e.seen, e.deadline = max(e.seen, seen), max(e.deadline, deadline)
	heap.Fix(&sh.live, e.place)
	return nil
}

// sweep removes at most limit entries with a deadline before the given time.
func (sh *shard) sweep(before int64, limit int) (removed int, freed int64) {
	for _, q := range []*queue{&sh.live, &sh.marks} {
		for ; removed < limit && len(*q) > 0 && (*q)[0].deadline < before; removed++ {
			freed += (*q)[0].cost()
			sh.remove((*q)[0])
		}
	}
	return removed, freed
}

// victim returns the entry to evict first, but never the one with the ID keep,
// and a tombstone before its deadline only if marks is true. It returns nil if
// there is none.
func (sh *shard) victim(now int64, keep store.ID, marks bool) *entry {
	mark := sh.marks.first(keep)
	if mark != nil && mark.deadline < now {
		return mark
	}
	if e := sh.live.first(keep); e != nil {
		return e
	}
	if marks {
		return mark
	}
	return nil
}

func (sh *shard) count(now int64, c *store.Counts) {
	expired, loggedIn := sh.live.over(now, 0)
	c.Live += int64(len(sh.live)) - expired
	c.LoggedIn += sh.listed - loggedIn
	c.Expired += expired
	c.Ended += int64(len(sh.marks))
	c.Bytes += sh.bytes
}

func (sh *shard) add(r row) {
	e := &entry{row: r}
	sh.entries[r.id] = e
	if n := len(sh.free); n > 0 {
		e.slot = sh.free[n-1]
		sh.free = sh.free[:n-1]
		sh.slots[e.slot] = e
	} else {
		e.slot = len(sh.slots)
		sh.slots = append(sh.slots, e)
	}
	sh.bytes += int64(len(r.data))
	heap.Push(sh.queue(e), e)
	sh.list(e)
}

func (sh *shard) remove(e *entry) {
	sh.unlist(e)
	heap.Remove(sh.queue(e), e.place)
	sh.bytes -= int64(len(e.data))
	sh.slots[e.slot] = nil
	sh.free = append(sh.free, e.slot)
	delete(sh.entries, e.id)
}

// replace gives the entry another row, with the same ID.
func (sh *shard) replace(e *entry, r row) {
	sh.bytes += int64(len(r.data)) - int64(len(e.data))
	relist := e.user != r.user || e.isEnd() != r.isEnd()
	requeue := e.isEnd() != r.isEnd()
	if relist {
		sh.unlist(e)
	}
	if requeue {
		heap.Remove(sh.queue(e), e.place)
	}
	e.row = r
	if requeue {
		heap.Push(sh.queue(e), e)
	} else {
		heap.Fix(sh.queue(e), e.place)
	}
	if relist {
		sh.list(e)
	}
}

// queue returns the queue that the entry belongs to.
func (sh *shard) queue(e *entry) *queue {
	if e.isEnd() {
		return &sh.marks
	}
	return &sh.live
}

// list adds the entry to its user's list.
func (sh *shard) list(e *entry) {
	if !e.isListed() {
		return
	}
	e.next = sh.users[e.user]
	if e.next != nil {
		e.next.prev = e
	}
	sh.users[e.user] = e
	sh.listed++
}

// unlist removes the entry from its user's list.
func (sh *shard) unlist(e *entry) {
	if !e.isListed() {
		return
	}
	switch {
	case e.prev != nil:
		e.prev.next = e.next
	case e.next != nil:
		sh.users[e.user] = e.next
	default:
		delete(sh.users, e.user)
	}
	if e.next != nil {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
	sh.listed--
}

// A queue is a heap of entries: the one with the next deadline is the first,
// and none is before the one at (i-1)/2.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].deadline < q[j].deadline }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *queue) Push(x any) {
	e := x.(*entry)
	e.place = len(*q)
	*q = append(*q, e)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return e
}

// first returns the entry with the next deadline whose ID is not keep, or nil.
func (q queue) first(keep store.ID) *entry {
	if len(q) == 0 {
		return nil
	}
	if q[0].id != keep {
		return q[0]
	}
	var second *entry
	for _, e := range q[1:min(len(q), 3)] {
		if second == nil || e.deadline < second.deadline {
			second = e
		}
	}
	return second
}

// over counts the entries of the subtree at i whose deadline has passed, and
// how many of them belong to a user.
func (q queue) over(now int64, i int) (n, listed int64) {
	if i >= len(q) || q[i].deadline >= now {
		return 0, 0
	}
	n = 1
	if q[i].isListed() {
		listed = 1
	}
	for _, below := range []int{2*i + 1, 2*i + 2} {
		m, l := q.over(now, below)
		n, listed = n+m, listed+l
	}
	return n, listed
}
