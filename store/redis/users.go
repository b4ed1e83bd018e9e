package redis

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/sojourn-go/sojourn/store"
)

// The index of a user is a hash: for the ID of each session, when the entry was
// written, when the session expires at the latest, and when it was created, 6
// bytes each. The index is in another slot than the sessions, so the two are
// not updated atomically: an entry is written before its record, and removed
// after the record has ended. An interrupted call leaves at most a surplus
// entry. A surplus entry younger than a minute may belong to a record that is
// about to be written; older ones do not count.

// indexScript adds an entry. Its arguments are the ID and the session's end and
// creation in Unix milliseconds. Each time the number of entries has doubled,
// entries of expired sessions are removed.
var indexScript = newScript(`
local key, id, expires, created = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
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
redis.call('HSET', key, id, struct.pack('>I6I6I6', now, expires, created))
local ttl = redis.call('PTTL', key)
if ttl < 0 or now + ttl < expires + 60000 then redis.call('PEXPIREAT', key, expires + 60000) end
return 1
`)

// pruneScript removes the entries of the given IDs, except those younger than a
// minute: their records may be about to be written.
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
	_, err := s.runKept(ctx, indexScript, s.userKey(rec.User), entry(rec)...)
	return err
}

// entry returns what the scripts need to know to write a session's entry.
func entry(rec *store.Record) []string {
	over := rec.Expires
	if rec.Deadline.After(over) {
		over = rec.Deadline
	}
	ms := min(over.UnixMilli(), longestTime)
	if rec.Expires.IsZero() {
		ms = longestTime
	}
	created := min(max(rec.Created.UnixMilli(), 0), longestTime)
	return []string{string(rec.ID[:]), strconv.FormatInt(ms, 10), strconv.FormatInt(created, 10)}
}

// unindexTime bounds how long the end of a session waits for the removal of its entry.
const unindexTime = 250 * time.Millisecond

// unindex removes the entries of sessions that have ended. If that fails, the
// entries are harmless until a later call finds and removes them.
func (s *Store) unindex(ctx context.Context, user store.UserHash, ids ...store.ID) {
	if user == (store.UserHash{}) {
		return
	}
	fields := make([]string, len(ids))
	for i, id := range ids {
		fields[i] = string(id[:])
	}
	ctx, cancel := context.WithTimeout(ctx, unindexTime)
	defer cancel()
	_ = s.patiently(ctx, false, func(l *link) error {
		return l.rdb.Do(ctx, s.build.Hdel().Key(s.userKey(user)).Field(fields...).Build()).Error()
	})
}

// entries returns the IDs that the user's index holds, including surplus ones.
func (s *Store) entries(ctx context.Context, user store.UserHash) ([]store.ID, error) {
	m, err := s.message(ctx, true, func() valkey.Completed { return s.build.Hkeys().Key(s.userKey(user)).Build() })
	if err != nil {
		return nil, err
	}
	fields, err := m.AsStrSlice()
	if err != nil {
		return nil, err
	}
	var ids []store.ID
	for _, f := range fields {
		if len(f) == len(store.ID{}) {
			ids = append(ids, store.ID([]byte(f)))
		}
	}
	return ids, nil
}

// ByUser returns a user's records; see [store.UserIndex]. It takes two round
// trips, and a third one if it finds entries to remove.
func (s *Store) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, failed("list a user's sessions", err)
	}
	if user == (store.UserHash{}) {
		return nil, nil
	}
	ids, err := s.entries(ctx, user)
	if err != nil {
		return nil, failed("list a user's sessions", err)
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

// prune tidies up an index. If that fails, the next ByUser tries again.
func (s *Store) prune(ctx context.Context, user store.UserHash, stray map[store.ID]bool) {
	args := make([]string, 0, len(stray))
	for id := range stray {
		args = append(args, string(id[:]))
	}
	_, _ = s.run(ctx, pruneScript, s.userKey(user), args[:min(len(args), pageSize)]...)
}

// pageSize is how many records are read at once.
const pageSize = 500

// loadAll returns the records with those IDs, without those that do not exist or
// are damaged.
func (s *Store) loadAll(ctx context.Context, ids []store.ID) ([]store.Record, error) {
	return s.getAll(ctx, ids, func(key string) valkey.Completed { return s.build.Get().Key(key).Build() })
}

// loadHeads is loadAll without the Data.
func (s *Store) loadHeads(ctx context.Context, ids []store.ID) ([]store.Record, error) {
	return s.getAll(ctx, ids, func(key string) valkey.Completed {
		return s.build.Getrange().Key(key).Start(0).End(longestHead - 1).Build()
	})
}

func (s *Store) getAll(ctx context.Context, ids []store.ID, get func(key string) valkey.Completed) ([]store.Record, error) {
	recs := make([]store.Record, 0, len(ids))
	for len(ids) > 0 {
		page := ids[:min(len(ids), pageSize)]
		ids = ids[len(page):]
		found := recs
		err := s.patiently(ctx, true, func(l *link) error {
			found = recs
			commands := make(valkey.Commands, 0, len(page))
			for _, id := range page {
				commands = append(commands, get(s.key(id)))
			}
			for i, answer := range l.rdb.DoMulti(ctx, commands...) {
				m, err := answer.ToMessage()
				var r reply
				if err == nil {
					r, err = replyOf(m)
				}
				rec, err := loaded(page[i], r, err)
				if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged) {
					continue
				}
				if err != nil {
					return err
				}
				found = append(found, rec)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		recs = found
	}
	return recs, nil
}
