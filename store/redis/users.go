package redis

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/sojourn-go/sojourn/store"
)

// The index of a user is a hash: the ID of each session, and when the entry was
// written and when the session is over at the latest, 6 bytes each. It lives in
// another slot than the sessions, so nothing keeps the two in step but their
// order: an entry is written before its record, and removed after the record has
// ended. What is lost in between is an entry too many, and those do not count.

// indexScript adds an entry. Its arguments are the ID and the session's end in
// Unix milliseconds. When the entries have doubled in number, those of sessions
// that are over make room.
var indexScript = newScript(`
local key, id, expires = KEYS[1], ARGV[1], tonumber(ARGV[2])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local n = redis.call('HLEN', key)
if n >= 16 and bit.band(n, n - 1) == 0 and redis.call('HEXISTS', key, id) == 0 then
	local all = redis.call('HGETALL', key)
	for i = 1, #all, 2 do
		local _, over = struct.unpack('>I6I6', all[i + 1])
		if over + 60000 < now then redis.call('HDEL', key, all[i]) end
	end
end
redis.call('HSET', key, id, struct.pack('>I6I6', now, expires))
local ttl = redis.call('PTTL', key)
if ttl < 0 or now + ttl < expires + 60000 then redis.call('PEXPIREAT', key, expires + 60000) end
return 1
`)

// pruneScript removes the entries of the IDs in its arguments, but not those
// that are younger than a minute: their records may be about to be written.
var pruneScript = newScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for _, id in ipairs(ARGV) do
	local entry = redis.call('HGET', KEYS[1], id)
	if entry and (struct.unpack('>I6', entry)) + 60000 < now then redis.call('HDEL', KEYS[1], id) end
end
return 1
`)

// index makes sure that the user's index has the session.
func (s *Store) index(ctx context.Context, rec *store.Record) error {
	over := rec.Expires
	if rec.Deadline.After(over) {
		over = rec.Deadline
	}
	ms := min(over.UnixMilli(), longestTime)
	if rec.Expires.IsZero() {
		ms = longestTime
	}
	_, err := s.evalKept(ctx, indexScript, s.userKey(rec.User), string(rec.ID[:]), strconv.FormatInt(ms, 10))
	return err
}

// unindexTime bounds what an ended session's caller waits for its entry to go.
const unindexTime = 250 * time.Millisecond

// unindex removes the entry of a session that has ended. Should that fail, the
// entry does no harm until the next ByUser removes it.
func (s *Store) unindex(ctx context.Context, user store.UserHash, id store.ID) {
	if user == (store.UserHash{}) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, unindexTime)
	defer cancel()
	_, _ = s.do(ctx, func() valkey.Completed {
		return s.rdb.B().Hdel().Key(s.userKey(user)).Field(string(id[:])).Build()
	})
}

// ByUser returns a user's records, as store.UserIndex says. It takes two round
// trips, and a third one if it finds entries to remove.
func (s *Store) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, failed("list a user's sessions", err)
	}
	if user == (store.UserHash{}) {
		return nil, nil
	}
	m, err := s.do(ctx, func() valkey.Completed { return s.rdb.B().Hkeys().Key(s.userKey(user)).Build() })
	if err != nil {
		return nil, failed("list a user's sessions", err)
	}
	entries, err := m.AsStrSlice()
	if err != nil {
		return nil, failed("list a user's sessions", err)
	}
	var ids []store.ID
	for _, e := range entries {
		if len(e) == len(store.ID{}) {
			ids = append(ids, store.ID([]byte(e)))
		}
	}
	recs, err := s.loadAll(ctx, ids)
	if err != nil {
		return nil, failed("list a user's sessions", err)
	}
	live := recs[:0]
	stray := map[store.ID]bool{}
	for _, id := range ids {
		stray[id] = true
	}
	for _, rec := range recs {
		if rec.User == user && !rec.IsEnd() {
			live = append(live, rec)
			delete(stray, rec.ID)
		}
	}
	if len(stray) > 0 {
		s.prune(ctx, user, stray)
	}
	return live, nil
}

// prune tidies up an index. Should that fail, the next ByUser tries again.
func (s *Store) prune(ctx context.Context, user store.UserHash, stray map[store.ID]bool) {
	args := make([]string, 0, len(stray))
	for id := range stray {
		args = append(args, string(id[:]))
	}
	_, _ = s.eval(ctx, pruneScript, s.userKey(user), args[:min(len(args), pageSize)]...)
}

// pageSize is how many records are asked for at once.
const pageSize = 500

// loadAll returns the records with those IDs, without those that do not exist.
func (s *Store) loadAll(ctx context.Context, ids []store.ID) ([]store.Record, error) {
	recs := make([]store.Record, 0, len(ids))
	for len(ids) > 0 {
		page := ids[:min(len(ids), pageSize)]
		ids = ids[len(page):]
		commands := make(valkey.Commands, 0, len(page))
		for _, id := range page {
			commands = append(commands, s.rdb.B().Get().Key(s.key(id)).Build())
		}
		for i, answer := range s.rdb.DoMulti(ctx, commands...) {
			m, err := answer.ToMessage()
			rec, err := loaded(page[i], m, err)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			recs = append(recs, rec)
		}
	}
	return recs, nil
}
