package redis

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// reserveScript lists a session that is about to be saved, and answers which
// others have to end to make room for it, the oldest first. They stay listed
// until they have ended, so that the next caller waits for their end as well. Or
// it refuses.
//
// The choice is kept: the entries of sessions that have to end get 0 as their time
// of creation, so every later call takes the same ones first. Without that, two
// calls could choose each other's sessions, and one session too many would end.
//
// A caller that has reserved its place before, and starts over, has had its turn:
// others have counted it since. It may be among those that have to go; and if its
// place is gone, another call has ended it, and it has to look again.
//
// Its arguments are the new session's entry, how many others may stay, whether
// to refuse, the one that is replaced, whether the caller has found its own
// entry, and the entries that it found without a live session, each after a
// letter for the reason. All other entries count, even those that the caller
// has not seen, which are new reservations. The order is that of
// store.UserLimit.InTheWay.
var reserveScript = newScript(`
local key, id, expires, created = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local room, refuse, replaced = tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6]
local why = {}
local again = redis.call('HEXISTS', key, id) == 1
if ARGV[7] == '1' and not again then return -1 end
for i = 8, #ARGV do why[string.sub(ARGV[i], 2)] = string.sub(ARGV[i], 1, 1) end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local others, live = {}, 0
local all = redis.call('HGETALL', key)
for i = 1, #all, 2 do
	local other = all[i]
	if other ~= replaced and (again or other ~= id) then
		local written, over, born = struct.unpack('>I6I6I6', all[i + 1])
		local old = written + 60000 < now
		local late = why[other] == 'l'
		if other == id then
			table.insert(others, {id = other, born = born, written = written, over = over})
		elseif not why[other] or late or why[other] == 'a' and not old then
			table.insert(others, {id = other, born = born, written = written, over = over, late = late})
			if not late then live = live + 1 end
		elseif why[other] ~= 'x' and old then
			redis.call('HDEL', key, other)
		end
	end
end
if refuse and live > room then return 0 end
-- In the same order for everybody; that of texts depends on the server's locale.
table.sort(others, function(a, b)
	if (a.late or false) ~= (b.late or false) then return a.late end
	if a.born ~= b.born then return a.born < b.born end
	return (struct.unpack('>I6', a.id)) < (struct.unpack('>I6', b.id))
end)
if again then room = room + 1 end -- it is one of them
redis.call('HSET', key, id, struct.pack('>I6I6I6', now, expires, created))
local ttl = redis.call('PTTL', key)
if ttl < 0 or now + ttl < expires + 60000 then redis.call('PEXPIREAT', key, expires + 60000) end
local victims = {}
for i = 1, #others - room do
	local o = others[i]
	victims[i] = o.id
	redis.call('HSET', key, o.id, struct.pack('>I6I6I6', o.written, o.over, 0))
end
return victims
`)

// Why an entry may count less than others.
const (
	absent  = "a" // no record; it may be about to be written
	over    = "e" // the session has ended, or is another user's
	expired = "x" // expired by every replica's clock
	late    = "l" // it counts: it may be live by a slow clock
)

const (
	// promptly is how long after the reservation a place may be taken. After a
	// minute it does not count.
	promptly = clockSkew / 2
	// limitTries is the maximum number of looks of SaveLimited. Normally it looks
	// twice, the second time to check the result; more often after a failover
	// or a long pause.
	limitTries = 8
)

var (
	errUnsettled = errors.New("the index by user does not keep its entries")
	errLookAgain = errors.New("the place that was reserved is gone")
)

// SaveLimited stores a user's new session; see [store.UserLimiter]. It takes
// six round trips, and three more to end others.
//
// The index by user, which decides, and the sessions may be on different
// servers. So a place in the index is reserved first; then the surplus sessions
// are ended; then the session is saved; and then everything is checked again.
// If a session's place was given to another meanwhile, a tombstone refuses its
// save. A call that stops halfway leaves at worst an unused place, for a
// minute.
//
// The sessions are ordered by Created. If the ID is taken, or another call ends
// the session, during the call, the error is ErrConflict although others were
// ended.
func (s *Store) SaveLimited(ctx context.Context, rec store.Record, limit store.UserLimit) (ended []store.ID, err error) {
	if rec.User == (store.UserHash{}) || rec.IsEnd() || rec.Expired(time.Now().Add(-clockSkew)) {
		return nil, s.Save(ctx, rec, store.Base{}) // which does not count
	}
	if err := fits(len(rec.Data)); err != nil {
		return nil, failed("save", err)
	}
	value := encode(&rec)
	changed := false // a later refusal is not one of the whole call
	sent := false    // the session may have been saved
	failed := func(doing string, err error) error {
		if changed {
			err = halfDone(err)
		}
		return failed(doing, err)
	}
	for range limitTries {
		found, err := s.look(ctx, &rec)
		if err != nil {
			return ended, failed("save: look at the user's sessions", &refusal{err}) // it has only read
		}
		own := found.own
		saved := own != nil && own.HasSaveID(rec.SaveIDs[0])
		switch {
		case saved && (found.listed || own.IsEnd()):
			return ended, nil
		case saved: // but its entry was lost
			limit.Refuse = false
		case own != nil && !own.Expired(time.Now()):
			return ended, store.ErrConflict
		}
		begun := time.Now()
		victims, err := s.reserve(ctx, &rec, limit, found)
		switch {
		case errors.Is(err, errLookAgain):
			continue
		case errors.Is(err, store.ErrLimit):
			return ended, store.ErrLimit
		case err != nil:
			return ended, failed("save: reserve a place", err)
		}
		victims = append(victims, found.ended...)
		changed = changed || len(victims) > 0
		gone, err := s.evict(ctx, rec.User, victims, limit.Until)
		ended = append(ended, gone...)
		if err != nil {
			return ended, failed("save: make room", err)
		}
		if time.Since(begun) > promptly {
			continue
		}
		if _, _, err := s.save(ctx, &rec, value, store.Base{}, true); err != nil {
			if errors.Is(err, store.ErrRefused) && !sent {
				s.unindex(ctx, rec.User, rec.ID)
			}
			return ended, failed("save", err)
		}
		changed, sent = true, true
		// After a conflict, the next look finds the reason.
	}
	return ended, failed("save", errUnsettled)
}

// census is the result of look.
type census struct {
	own    *store.Record // nil = there is none
	listed bool          // the index has an entry for it
	idle   []string      // the other entries without a live session, as reserveScript takes them
	ended  []store.ID    // those of idle that may be missing from the feed of ends
}

// look reads the index of a record's user, and then its sessions' records. In
// that order: an entry is removed after its session has ended, so a live
// session without an entry has lost it.
func (s *Store) look(ctx context.Context, rec *store.Record) (c census, err error) {
	ids, err := s.entries(ctx, rec.User)
	if err != nil {
		return c, err
	}
	if c.listed = slices.Contains(ids, rec.ID); !c.listed {
		ids = append(ids, rec.ID)
	}
	recs, err := s.loadHeads(ctx, ids)
	if err != nil {
		return c, err
	}
	found := make(map[store.ID]*store.Record, len(recs))
	for i := range recs {
		found[recs[i].ID] = &recs[i]
	}
	c.own = found[rec.ID]
	now := time.Now()
	for _, id := range ids {
		if id == rec.ID {
			continue
		}
		var why string
		switch r := found[id]; {
		case r == nil:
			why = absent
		case r.IsEnd():
			why = over
			c.ended = append(c.ended, id)
		case r.User != rec.User:
			why = over
		case r.Expired(now.Add(-clockSkew)):
			why = expired
		case r.Expired(now):
			why = late
		default:
			continue
		}
		c.idle = append(c.idle, why+string(id[:]))
	}
	return c, nil
}

// reserve runs reserveScript. It returns store.ErrLimit if there is no room, and
// errLookAgain if the place that found says is reserved is gone.
func (s *Store) reserve(ctx context.Context, rec *store.Record, limit store.UserLimit, found census) ([]store.ID, error) {
	args := append(entry(rec), strconv.Itoa(limit.Max-1), flag(limit.Refuse), string(limit.Replaces[:]), flag(found.listed))
	m, err := s.evalKept(ctx, reserveScript, s.userKey(rec.User), append(args, found.idle...)...)
	if n, e := m.AsInt64(); m.IsInt64() && e == nil {
		switch n {
		case refused:
			return nil, store.ErrLimit
		case -1:
			return nil, errLookAgain
		}
	}
	if err != nil {
		return nil, err
	}
	texts, err := m.AsStrSlice()
	if err != nil {
		return nil, errAnswer
	}
	victims := make([]store.ID, len(texts))
	for i, text := range texts {
		if len(text) != len(victims[i]) {
			return nil, errAnswer
		}
		victims[i] = store.ID([]byte(text))
	}
	return victims, nil
}

// evict ends sessions, and returns those that were live until then. It adds all
// of them to the feed before it removes them from the index: if it fails, the
// next call that finds them in the index tries again.
func (s *Store) evict(ctx context.Context, user store.UserHash, victims []store.ID, until time.Time) (live []store.ID, err error) {
	for page := range slices.Chunk(victims, waiting) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		var failure error
		for _, id := range page {
			wg.Go(func() {
				was, err := s.end(ctx, id, until)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					failure = err
				case was != store.UserHash{}:
					live = append(live, id)
				}
			})
		}
		wg.Wait()
		if failure != nil {
			return live, failure
		}
		if err := s.tell(ctx, until, page...); err != nil {
			return live, err
		}
		s.unindex(ctx, user, page...)
	}
	return live, nil
}
