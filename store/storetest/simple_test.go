package storetest_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// simple is a store written for clarity, with an optional fault that breaks one
// rule of the contract. "" = no fault.
type simple struct {
	fault string
	// expires makes records vanish that are stored past their deadline, as in
	// an engine with native expiry.
	expires bool
	mu      sync.Mutex
	rows    map[store.ID]*simpleRow
	count   int
	ends    []simpleEnd
	ended   int // how many ends have a number
	read    int // up to which number the feed was read
	gap     chan struct{}
}

type simpleEnd struct {
	store.End
	number int
}

type simpleRow struct {
	store.Record
	number        int // in order of creation
	firstUser     store.UserHash
	firstDeadline time.Time
}

func newSimple(fault string) *simple {
	return &simple{fault: fault, rows: map[store.ID]*simpleRow{}, gap: make(chan struct{})}
}

// meet releases the lock for another call: for faults that only appear if two
// calls are between the same lines.
func (s *simple) meet() {
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case s.gap <- struct{}{}:
	case <-s.gap:
	case <-time.After(100 * time.Millisecond): // it is the only one
	}
}

func (s *simple) is(fault string) bool { return s.fault == fault }

func (s *simple) over(ctx context.Context) error {
	if s.is("context ignored") {
		return nil
	}
	return ctx.Err()
}

// key is the key of an ID's row.
func (s *simple) key(id store.ID) store.ID {
	switch {
	case s.is("ID cut short"):
		id[15] = 0
	case s.is("IDs cut to 8 bits"):
		id = store.ID{id[0]}
	}
	return id
}

func (s *simple) Load(ctx context.Context, id store.ID) (store.Record, error) {
	if err := s.over(ctx); err != nil {
		return store.Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	row := s.rows[s.key(id)]
	if row == nil {
		return store.Record{}, store.ErrNotFound
	}
	return s.out(row), nil
}

// out returns a row's record for the caller.
func (s *simple) out(row *simpleRow) store.Record {
	rec := row.Record
	if !s.is("save IDs shared with the loader") {
		rec.SaveIDs = slices.Clone(rec.SaveIDs)
	}
	return rec
}

// in returns a record in its stored form.
func (s *simple) in(rec store.Record) store.Record {
	precision := time.Millisecond
	if s.is("times in seconds") {
		precision = time.Second
	}
	for _, at := range []*time.Time{&rec.Created, &rec.Seen, &rec.Deadline, &rec.Expires, &rec.Ended} {
		*at = at.Truncate(precision)
		if !s.is("times not in UTC") {
			*at = at.UTC()
		}
		if s.is("zero times lost") && at.IsZero() {
			*at = time.Unix(0, 0).UTC()
		}
	}
	if !s.is("save IDs shared with the saver") {
		rec.SaveIDs = slices.Clone(rec.SaveIDs)
	}
	if s.is("one save ID too few kept") {
		rec.SaveIDs = rec.SaveIDs[:min(len(rec.SaveIDs), store.RecentSaveIDs-1)]
	}
	if s.is("ID is text") {
		copy(rec.ID[:], bytes.ToValidUTF8(rec.ID[:], []byte("?")))
	}
	if s.is("numbers are floats") {
		rec.Version = uint64(float64(rec.Version))
	}
	if s.is("data is text") {
		rec.Data = bytes.ToValidUTF8(rec.Data, []byte("?"))
	}
	if s.is("large data cut") {
		rec.Data = rec.Data[:min(len(rec.Data), 1<<16)]
	}
	if !s.is("shorten stored") {
		rec.Shorten = false
	}
	return rec
}

// copyRow puts a row in the place of another one.
func (s *simple) copyRow(from, to store.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row := *s.rows[s.key(from)]
	if !s.is("copied row keeps its ID") {
		row.ID = to
	}
	s.rows[s.key(to)] = &row
	if s.is("copied row is shared") {
		s.rows[s.key(from)] = &row
	}
}

func (s *simple) Save(ctx context.Context, rec store.Record, base store.Base) error {
	if err := s.over(ctx); err != nil {
		return err
	}
	var lost error // of a save that is applied and cannot be recognized
	if s.is("cancelled saves get another save ID") {
		for range 200 {
			runtime.Gosched()
		}
		lost = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.save(rec, base, lost)
}

// save is Save, with the lock held, and without a context.
func (s *simple) save(rec store.Record, base store.Base, lost error) error {
	key := s.key(rec.ID)
	if rec.IsEnd() && s.is("feed tells of what is refused") {
		s.tell(rec.ID, rec.Deadline)
	}
	row := s.rows[key]
	var stored store.Record
	if row != nil {
		stored = row.Record
	}
	insert := base == store.Base{}

	if row != nil && s.recognises(stored, rec) {
		if s.is("own save ID overwrites") {
			row.Record = s.in(rec)
		}
		return nil
	}
	switch {
	case row == nil:
		if !insert && !s.is("update creates") {
			return store.ErrConflict
		}
	case insert:
		expired := stored.Expired(time.Now()) && !s.is("insert keeps an expired record")
		allowed := s.is("insert replaces a live record") && !stored.IsEnd() ||
			s.is("insert after the end") && stored.IsEnd()
		if !expired && !allowed {
			return store.ErrConflict
		}
		row = nil
	default:
		if stored.IsEnd() && !s.is("update after the end") ||
			!s.matches(stored, base) && !(s.is("mark not compared") && rec.IsEnd()) {
			return store.ErrConflict
		}
		backwards := rec.Shorten && !s.is("shorten ignored") ||
			rec.IsEnd() && !s.is("mark takes the later deadline") ||
			s.is("save moves times back")
		if !backwards {
			rec.Seen, rec.Deadline = latest(rec.Seen, stored.Seen), latest(rec.Deadline, stored.Deadline)
		}
	}
	if s.is("not atomic") {
		s.mu.Unlock()
		runtime.Gosched()
		s.mu.Lock()
	}
	if lost != nil {
		rec.SaveIDs = append([]store.SaveID{12345}, rec.SaveIDs[1:]...)
	}
	s.put(key, row, s.in(rec))
	if rec.IsEnd() && !s.is("feed forgets marks") && !(insert && s.is("feed forgets inserted marks")) {
		s.tell(rec.ID, rec.Deadline)
	}
	return lost
}

func (s *simple) recognises(stored, rec store.Record) bool {
	switch {
	case s.is("own save ID not looked for"), s.is("own save ID not looked for in marks") && stored.IsEnd():
		return false
	case s.is("only the newest save ID looked for"):
		return len(stored.SaveIDs) > 0 && stored.SaveIDs[0] == rec.SaveIDs[0]
	}
	return stored.HasSaveID(rec.SaveIDs[0])
}

func (s *simple) matches(stored store.Record, base store.Base) bool {
	switch {
	case s.is("version not compared"):
		return true
	case s.is("save ID not compared"):
		return stored.Version == base.Version
	case s.is("any recent save ID compared"):
		return stored.Version == base.Version && stored.HasSaveID(base.SaveID)
	}
	return stored.Base() == base
}

func (s *simple) put(key store.ID, row *simpleRow, rec store.Record) {
	if row == nil {
		s.count++
		row = &simpleRow{number: s.count, firstUser: rec.User, firstDeadline: rec.Deadline}
		s.rows[key] = row
	}
	row.Record = rec
	if s.expires && rec.Expired(time.Now()) {
		delete(s.rows, key)
	}
}

func (s *simple) Delete(ctx context.Context, id store.ID, until time.Time) error {
	if err := s.over(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	row := s.rows[s.key(id)]
	s.end(id, until)
	switch {
	case s.is("feed forgets Delete"),
		s.is("feed forgets unknown IDs") && row == nil,
		s.is("feed forgets later deadlines") && row != nil && s.told(id):
	default:
		s.tell(id, until)
	}
	return nil
}

// end is Delete, with the lock held, and without telling the feed.
func (s *simple) end(id store.ID, until time.Time) {
	key := s.key(id)
	if s.is("Delete removes") {
		delete(s.rows, key)
		return
	}
	row := s.rows[key]
	if row == nil {
		if !s.is("Delete of nothing leaves no mark") {
			s.put(key, nil, s.in(store.Record{ID: id, Ended: time.Now(), Deadline: until}))
		}
		return
	}
	mark := row.Record
	if mark.IsEnd() {
		if s.is("Delete again moves Ended") {
			mark.Ended = time.Now().Add(time.Second)
		}
		if s.is("Delete again forgets the user") {
			mark.User = store.UserHash{}
		}
		if !s.is("Delete again moves the deadline back") {
			until = latest(until, mark.Deadline)
		}
	} else {
		mark.Ended = time.Now()
	}
	if !s.is("Delete keeps the deadline") {
		mark.Deadline = until
	}
	if !s.is("Delete keeps data") {
		mark.Data = nil
	}
	if s.is("Delete forgets the save IDs") {
		mark.SaveIDs = nil
	}
	s.put(key, row, s.in(mark))
}

func (s *simple) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	if err := s.over(ctx); err != nil {
		return err
	}
	key := s.key(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	row := s.rows[key]
	if row == nil && s.is("touch creates") {
		s.put(key, nil, s.in(store.Record{ID: id, Version: 1, Seen: seen, Deadline: deadline}))
		return nil
	}
	if row == nil || row.IsEnd() && !s.is("touch extends marks") {
		return store.ErrNotFound
	}
	rec := row.Record
	if s.is("touch moves back") {
		rec.Seen, rec.Deadline = seen, deadline
	} else {
		rec.Seen, rec.Deadline = latest(rec.Seen, seen), latest(rec.Deadline, deadline)
	}
	if s.is("touch raises the version") {
		rec.Version++
	}
	if s.is("touch in seconds") {
		rec.Seen, rec.Deadline = rec.Seen.Truncate(time.Second), rec.Deadline.Truncate(time.Second)
	}
	s.put(key, row, s.in(rec))
	return nil
}

func (s *simple) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	if err := s.over(ctx); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := time.Now().Add(-age)
	removed := 0
	for key, row := range s.rows {
		deadline := row.Deadline
		if s.is("sweep by first deadline") {
			deadline = row.firstDeadline
		}
		over := deadline.Before(before)
		switch {
		case s.is("sweep too eager"):
			over = deadline.Before(time.Now())
		case s.is("sweep takes live marks") && row.IsEnd():
			over = true
		case s.is("sweep leaves marks") && row.IsEnd():
			over = false
		}
		if !over || removed == limit && !s.is("sweep has no limit") {
			continue
		}
		delete(s.rows, key)
		removed++
	}
	if s.is("sweep miscounts") {
		return min(removed, limit-1), nil
	}
	return removed, nil
}

func (s *simple) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	if err := s.over(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var recs []store.Record
	for _, row := range s.sorted() {
		owner := row.User
		if s.is("index keeps the first user") {
			owner = row.firstUser
		}
		nobody := user == store.UserHash{} && !s.is("index lists nobody")
		if owner != user || nobody || row.IsEnd() && !s.is("index lists marks") {
			continue
		}
		if s.is("index holds 100") && len(recs) == 100 {
			break
		}
		recs = append(recs, s.out(row))
	}
	return recs, nil
}

func (s *simple) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) (ended []store.ID, err error) {
	if err := s.over(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if row := s.rows[s.key(rec.ID)]; row != nil {
		again := s.recognises(row.Record, rec)
		switch {
		case again && (s.is("resend evicts again") || s.is("resend after the end evicts") && row.IsEnd()):
		case again:
			return nil, nil
		case !row.Expired(now) && !s.is("limit evicts before it refuses the ID"):
			return nil, store.ErrConflict
		}
	}
	if s.is("limit counts copies of itself") {
		s.meet()
	}
	var others []store.ID
	for _, row := range s.sorted() {
		if s.counts(row, rec, limit, now) {
			others = append(others, row.ID)
		}
	}
	if s.is("limit evicts the newest") {
		slices.Reverse(others)
	}
	over := len(others) - (limit.Max - 1)
	late := func(id store.ID) bool {
		return s.rows[s.key(id)].Expired(now) && !s.is("limit counts expired sessions")
	}
	if !s.is("limit ends late sessions last") {
		slices.SortStableFunc(others, func(a, b store.ID) int {
			switch {
			case late(a) == late(b):
				return 0
			case late(a):
				return -1
			default:
				return 1
			}
		})
	}
	switch {
	case s.is("limit leaves one too many"):
		over--
	case s.is("limit leaves one too few"):
		over++
	}
	over = min(max(over, 0), len(others))
	if s.is("limit not atomic") {
		s.meet()
	}
	if over > 0 && !late(others[over-1]) && limit.Refuse && !s.is("limit never refuses") {
		if s.is("limit saves what it refuses") {
			_ = s.save(rec, store.Base{}, nil)
		}
		return nil, store.ErrLimit
	}
	for _, id := range others[:over] {
		until := limit.Until
		if s.is("limit ignores Until") {
			until = now.Add(24 * time.Hour)
		}
		if s.is("limit leaves no marks") {
			delete(s.rows, s.key(id))
		} else {
			s.end(id, until)
		}
		if s.is("limit forgets the save IDs of the evicted") {
			s.rows[s.key(id)].SaveIDs = nil
		}
		if !s.is("feed forgets evictions") {
			s.tell(id, until)
		}
	}
	if !s.is("limit does not say which") {
		ended = others[:over]
	}
	return ended, s.save(rec, store.Base{}, nil)
}

// counts reports whether a session counts when rec is saved with a limit.
func (s *simple) counts(row *simpleRow, rec store.Record, limit store.UserLimit, now time.Time) bool {
	owner, deadline, skew := row.User, row.Deadline, store.ClockSkew
	switch {
	case s.is("limit forgets late sessions"):
		skew = 0
	case s.is("limit counts by the first user"):
		owner = row.firstUser
	case s.is("limit counts everybody's"):
		owner = rec.User
	case s.is("limit counts by the first deadline"):
		deadline = row.firstDeadline
	}
	return owner == rec.User &&
		(row.ID != rec.ID || s.is("limit counts copies of itself") || s.is("resend evicts again")) &&
		(!row.IsEnd() || s.is("limit counts marks")) &&
		(!now.After(deadline.Add(skew)) || s.is("limit counts expired sessions")) &&
		(row.ID != limit.Replaces || s.is("limit counts the one that is replaced"))
}

// tell adds an end to the feed of ends.
func (s *simple) tell(id store.ID, until time.Time) {
	until = until.Truncate(time.Millisecond).UTC()
	if s.is("feed makes up deadlines") {
		until = until.Add(time.Minute)
	}
	s.ended++
	e := simpleEnd{store.End{ID: id, Until: until}, s.ended}
	if s.is("feed numbers an end before it shows it") && e.number%2 == 1 {
		for begun := time.Now(); s.read < e.number && time.Since(begun) < 100*time.Millisecond; {
			s.mu.Unlock()
			runtime.Gosched()
			s.mu.Lock()
		}
	}
	at, _ := slices.BinarySearchFunc(s.ends, e.number, func(e simpleEnd, n int) int { return cmp.Compare(e.number, n) })
	s.ends = slices.Insert(s.ends, at, e)
}

func (s *simple) told(id store.ID) bool {
	return slices.ContainsFunc(s.ends, func(e simpleEnd) bool { return e.ID == id })
}

func (s *simple) Ends(ctx context.Context, cursor string, limit int) (page store.EndPage, err error) {
	if err := s.over(ctx); err != nil {
		return page, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	after := 0
	switch {
	case cursor == store.FeedFromStart && !s.is("feed starts with what follows"):
	case cursor == store.FeedFromNow, cursor == store.FeedFromStart:
		after = s.ended
		if s.is("feed starts one too late") {
			after++
		}
	default:
		if after, err = strconv.Atoi(cursor); (err != nil || after < 0) && !s.is("feed takes any cursor") {
			return page, errors.New("not a cursor")
		}
	}
	rest := slices.DeleteFunc(slices.Clone(s.ends), func(e simpleEnd) bool { return e.number <= after })
	for _, e := range rest[:min(len(rest), limit)] {
		page.Ends = append(page.Ends, e.End)
		after = e.number
	}
	page.More = len(rest) > limit && !s.is("feed forgets More") || s.is("feed says More for ever")
	if page.More && s.is("feed loses an end between pages") {
		after++
	}
	if s.is("feed is a queue") {
		s.ends = rest[min(len(rest), limit):]
	}
	s.read = after
	page.Cursor = strconv.Itoa(after)
	if s.is("feed returns no cursor") {
		page.Cursor = ""
	}
	return page, nil
}

// sorted returns the rows in order of creation.
func (s *simple) sorted() []*simpleRow {
	rows := make([]*simpleRow, 0, len(s.rows))
	for _, row := range s.rows {
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b *simpleRow) int { return cmp.Compare(a.number, b.number) })
	return rows
}

func (s *simple) Scan(ctx context.Context, cursor string, limit int) ([]store.Record, string, error) {
	if err := s.over(ctx); err != nil {
		return nil, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	from, _ := strconv.Atoi(cursor) // 0 for the start
	var recs []store.Record
	for position, row := range s.sorted() {
		at := row.number
		if s.is("scan by position") { // which moves when a row before it goes
			at = position + 1
		}
		if at < from || s.is("scan skips marks") && row.IsEnd() {
			continue
		}
		if len(recs) == limit && !s.is("scan ignores the limit") {
			return recs, strconv.Itoa(at), nil
		}
		recs = append(recs, s.out(row))
	}
	return recs, "", nil
}

func (s *simple) Count(ctx context.Context) (store.Counts, error) {
	if err := s.over(ctx); err != nil {
		return store.Counts{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var c store.Counts
	for _, row := range s.rows {
		c.Bytes += int64(len(row.Data))
		switch {
		case row.IsEnd() && !s.is("count takes marks for live"):
			c.Ended++
		case row.Expired(time.Now()) && !s.is("count takes expired for live"):
			c.Expired++
		default:
			c.Live++
			if row.User != (store.UserHash{}) {
				c.LoggedIn++
			}
		}
	}
	return c, nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// floorless is a simple store whose LoadFrom answers from the first copy that
// it made, whatever the floor.
type floorless struct{ *simple }

func (f floorless) LoadFrom(ctx context.Context, id store.ID, _ uint64) (store.Record, error) {
	rec, err := f.Load(ctx, id)
	rec.Version = min(rec.Version, 1)
	return rec, err
}
