package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/sojourn-go/sojourn/store"
)

// Store is a store.Store in Redis or Valkey with the optional interfaces
// Toucher, UserIndex, UserLimiter, EndFeed and Scanner. Make one with Open.
//
// Concurrent calls share connections and are sent in batches. Each is bounded
// by its context. If a server does not answer at all for three seconds, its
// connections are closed, and all calls on them fail.
//
// A call that a server refused temporarily, or that could not be sent, is sent
// again until its context ends, for at most five seconds. If the server is a
// replica or rejects the login, a new connection is used. The error of a
// refused write wraps store.ErrRefused. A write that may have been carried out
// is not sent again; a caller that sends the same Save again has it applied
// once.
type Store struct{ *client }

var (
	_ store.Store       = (*Store)(nil)
	_ store.Toucher     = (*Store)(nil)
	_ store.UserIndex   = (*Store)(nil)
	_ store.UserLimiter = (*Store)(nil)
	_ store.EndFeed     = (*Store)(nil)
	_ store.Scanner     = (*Store)(nil)
)

// ErrEviction means that the servers evict keys, and so sessions, when their
// memory is full. See [Options.AllowEviction].
var ErrEviction = errors.New("redis: the server may evict sessions")

// Open connects to the servers and checks that they evict nothing: it returns
// ErrEviction for every maxmemory-policy other than noeviction, unless Options
// allow it. In a Cluster it checks every master. ctx bounds the opening only.
func Open(ctx context.Context, o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c, err := newClient(ctx, o, patience)
	if err != nil {
		return nil, failed("open", err)
	}
	s := &Store{c}
	if !o.AllowEviction {
		if err := s.refuseEviction(ctx); err != nil {
			s.shut()
			return nil, err
		}
	}
	return s, nil
}

// refuseEviction uses INFO, because many providers forbid CONFIG.
func (s *Store) refuseEviction(ctx context.Context) error {
	policies := map[string]bool{}
	err := s.patiently(ctx, true, func(l *link) error {
		masters, err := s.masters(ctx, l.rdb)
		for _, m := range masters {
			text, err := m.rdb.Do(ctx, m.rdb.B().Info().Section("memory").Build()).ToString()
			if err != nil {
				return err
			}
			policies[infoField(text, "maxmemory_policy")] = true
		}
		return err
	})
	if err != nil {
		return failed("open: find out about eviction", err)
	}
	for policy := range policies {
		if policy != "noeviction" {
			return fmt.Errorf("%w: maxmemory-policy is %q", ErrEviction, policy)
		}
	}
	return nil
}

// Close closes all connections. Calls under way fail.
func (s *Store) Close() error {
	s.shut()
	return nil
}

// Load returns a record; see [store.Store].
func (s *Store) Load(ctx context.Context, id store.ID) (store.Record, error) {
	r, err := s.ask(ctx, func() valkey.Completed { return s.build.Get().Key(s.key(id)).Build() })
	return loaded(id, r, err)
}

func loaded(id store.ID, r reply, err error) (store.Record, error) {
	if valkey.IsValkeyNil(err) {
		return store.Record{}, store.ErrNotFound
	}
	if err != nil {
		return store.Record{}, failed("load", err)
	}
	if len(r) == 0 { // GETRANGE of a missing key
		return store.Record{}, store.ErrNotFound
	}
	rec, err := decode(id, r)
	if err != nil {
		return store.Record{}, failed("load", err)
	}
	return rec, nil
}

// The scripts' answers. A text of 16 bytes means success, and is the session's
// user.
const (
	refused   = 0 // a conflict, or not found; nothing was written
	succeeded = 1
	unindexed = 2 // nothing was written: the user's index does not have the session
)

var errAnswer = errors.New("the script's answer is none of those it has")

// outcome reads a script's answer. After a refusal, failure does not matter.
func outcome(r reply, failure error) (n int64, user store.UserHash, err error) {
	switch {
	case r == nil && failure != nil:
		return refused, user, failure
	case len(r) == len(user):
		return succeeded, store.UserHash(r), failure
	case len(r) != 1 || r[0] < '0' || r[0] > '9':
		return refused, user, errAnswer
	}
	if n = int64(r[0] - '0'); n != succeeded {
		return n, user, nil
	}
	return n, user, failure
}

// soundLua reads a record's head in the scripts: as ” if it is damaged, so that
// it counts as missing.
const soundLua = `
local function head(key)
	local b = redis.call('GETRANGE', key, 0, 119)
	local format, saves = string.byte(b, 1, 2)
	if b ~= '' and (format < 1 or format > 31 or format == 1 and (#b < 56 or saves > 8 or #b < 56 + 8 * saves)) then return '' end
	return b
end
`

// saveScript compares and sets. Its arguments are the record, the base, now in
// Unix milliseconds, whether the user's index has the session, whether times
// may move backwards, and when the key of an ordinary save expires, see
// ordinary.
//
// It begins with a fast path for most saves: an ordinary save over an undamaged
// record, with the same user and end.
var saveScript = newScript(soundLua + `
local NEVER, NOBODY = '\0\0\0\0\0\0', '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
local sub, unpack = string.sub, struct.unpack
local key, new, base = KEYS[1], ARGV[1], ARGV[2]
local have = head(key)
local seen, deadline, _, expires = unpack('>I6I6I6I6', new, 3)
if ARGV[6] ~= '' and string.byte(have) == 1 and sub(have, 21, 64) == sub(new, 21, 48) .. base then
	local wasSeen, wasDeadline = unpack('>I6I6', have, 3)
	if seen >= wasSeen and deadline >= wasDeadline then
		redis.call('SET', key, new, 'PXAT', ARGV[6])
		return 1
	end
end
local now, indexed, shorten = tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5] == '1'
local live, user = sub(new, 27, 32) == NEVER, sub(new, 33, 48)
local wasLive, wasUser, wasSeen, wasDeadline, wasExpires = false, NOBODY, 0, -1, -1
if have ~= '' then
	if string.byte(have) ~= 1 then return redis.error_reply('FORMAT unknown') end
	wasSeen, wasDeadline, _, wasExpires = unpack('>I6I6I6I6', have, 3)
	wasLive, wasUser = sub(have, 27, 32) == NEVER, sub(have, 33, 48)
end
local update = base ~= ''
if not (update and wasLive and sub(have, 49, 64) == base) then
	if have ~= '' then
		local save = sub(new, 57, 64)
		for at = 57, 49 + 8 * string.byte(have, 2), 8 do
			if sub(have, at, at + 7) == save then
				-- Saved before. WAIT waits for what its connection wrote, so write.
				redis.call('PEXPIREAT', key, wasDeadline + 60000)
				return 1
			end
		end
	end
	if update or now <= wasDeadline then return 0 end
end
if live and user ~= NOBODY and not indexed then
	-- An entry lives as long as the session may, and 0 means no limit.
	local covered = expires <= wasExpires and (expires ~= 0 or wasExpires == 0)
	if user ~= wasUser or not covered then return 2 end
end
if update and live and not shorten and (seen < wasSeen or deadline < wasDeadline) then
	seen, deadline = math.max(seen, wasSeen), math.max(deadline, wasDeadline)
	new = sub(new, 1, 2) .. struct.pack('>I6I6', seen, deadline) .. sub(new, 15)
end
-- A full server refuses SET, but neither DEL nor what comes after it in a
-- script: ending a session always works.
if not live then redis.call('DEL', key) end
redis.call('SET', key, new, 'PXAT', deadline + 60000)
-- A session that expires at once has ended as well for the index.
local listed = live and user ~= NOBODY and deadline + 60000 >= now
if not listed and wasLive and wasUser ~= NOBODY then return wasUser end
return 1
`)

// Save stores a record; see [store.Store]. It returns store.ErrTooLarge for
// more than about 512 MiB.
//
// It takes one round trip. The first save for a user takes another round trip
// before it, so that no live session is missing from the user's index. A save
// that ends a session takes another after it, so that the feed has no end that
// did not happen.
func (s *Store) Save(ctx context.Context, rec store.Record, base store.Base) error {
	if err := fits(len(rec.Data)); err != nil {
		return failed("save", err)
	}
	value := encode(&rec)
	insert := base == (store.Base{})
	// A record that expires at once gets no entry, because nothing would remove it.
	indexed := rec.User == store.UserHash{} || rec.IsEnd() || insert && rec.Expired(time.Now().Add(-clockSkew))
	var was store.UserHash
	var err error
	result := int64(unindexed)
	if indexed || !insert {
		result, was, err = s.save(ctx, &rec, value, base, indexed)
	}
	if err == nil && result == unindexed {
		if err := s.index(ctx, &rec); err != nil {
			return failed("save: index by user", err)
		}
		result, was, err = s.save(ctx, &rec, value, base, true)
	}
	switch {
	case err != nil:
		return failed("save", err)
	case result == refused:
		return store.ErrConflict
	case rec.IsEnd():
		return s.hasEnded(ctx, was, rec.Deadline, rec.ID)
	}
	s.unindex(ctx, was, rec.ID)
	return nil
}

// save runs saveScript with a record and its encoded form.
func (s *Store) save(ctx context.Context, rec *store.Record, value []byte, base store.Base, indexed bool) (int64, store.UserHash, error) {
	now := time.Now()
	return outcome(s.runKept(ctx, saveScript, s.key(rec.ID), valkey.BinaryString(value), encodeBase(base),
		strconv.FormatInt(now.UnixMilli(), 10), flag(indexed), flag(rec.Shorten), ordinary(rec, base, now)))
}

// ordinary returns when the key of a replacing, live record expires; "" for
// other records.
func ordinary(rec *store.Record, base store.Base, now time.Time) string {
	if base == (store.Base{}) || rec.IsEnd() || rec.Expired(now) {
		return ""
	}
	deadline := timeAt(appendTime(nil, rec.Deadline)).UnixMilli() // as the record has it
	return strconv.FormatInt(deadline+60_000, 10)
}

// endScript leaves a tombstone. Its arguments are now and the mark's deadline,
// as in a record.
var endScript = newScript(soundLua + `
local key, now, till = KEYS[1], ARGV[1], ARGV[2]
local NEVER, NOBODY = string.rep('\0', 6), string.rep('\0', 16)
local have = head(key)
local deadline = struct.unpack('>I6', till)
if have == '' then
	have = '\1\0' .. string.rep(NEVER, 5) .. NOBODY .. string.rep('\0', 8)
elseif string.byte(have) ~= 1 then
	return redis.error_reply('FORMAT unknown')
elseif string.sub(have, 27, 32) ~= NEVER then
	deadline = math.max(deadline, (struct.unpack('>I6', have, 9)))
	redis.call('PEXPIREAT', key, deadline + 60000)
	redis.call('SETRANGE', key, 8, struct.pack('>I6', deadline))
	return 1
end
local user = string.sub(have, 33, 48)
local mark = string.sub(have, 1, 8) .. till .. string.sub(have, 15, 26) .. now .. string.sub(have, 33, 56 + 8 * string.byte(have, 2))
redis.call('DEL', key) -- so that a full server does not refuse the mark
redis.call('SET', key, mark, 'PXAT', deadline + 60000)
if user ~= NOBODY then return user end
return 1
`)

// Delete ends a session; see [store.Store]. It takes two round trips.
func (s *Store) Delete(ctx context.Context, id store.ID, until time.Time) error {
	was, err := s.end(ctx, id, until)
	if err != nil {
		return failed("delete", err)
	}
	return s.hasEnded(ctx, was, until, id)
}

// end runs endScript. It returns the user of a session that was live until now.
func (s *Store) end(ctx context.Context, id store.ID, until time.Time) (store.UserHash, error) {
	now := appendTime(nil, time.Now())
	_, was, err := outcome(s.runKept(ctx, endScript, s.key(id), string(now), string(appendTime(nil, until))))
	return was, err
}

// hasEnded removes an ended session from the user's index, and adds it to the
// feed.
func (s *Store) hasEnded(ctx context.Context, user store.UserHash, until time.Time, id store.ID) error {
	var wg sync.WaitGroup
	if user != (store.UserHash{}) {
		wg.Go(func() { s.unindex(ctx, user, id) })
	}
	err := s.tell(ctx, until, id)
	wg.Wait()
	if err != nil {
		return failed("tell of an end", halfDone(err))
	}
	return nil
}

// touchScript moves times forward. Its arguments are both times, as in a
// record. For a user's session it returns when it was created, when it expires,
// and the user.
var touchScript = newScript(soundLua + `
local key = KEYS[1]
local seen, deadline = struct.unpack('>I6I6', ARGV[1])
local have = head(key)
if have == '' then return 0 end
if string.byte(have) ~= 1 then return redis.error_reply('FORMAT unknown') end
if string.sub(have, 27, 32) ~= string.rep('\0', 6) then return 0 end
local was_seen, was_deadline = struct.unpack('>I6I6', have, 3)
seen, deadline = math.max(seen, was_seen), math.max(deadline, was_deadline)
redis.call('PEXPIREAT', key, deadline + 60000)
redis.call('SETRANGE', key, 2, struct.pack('>I6I6', seen, deadline))
local user = string.sub(have, 33, 48)
if user ~= string.rep('\0', 16) then return string.sub(have, 15, 26) .. user end
return 1
`)

// Touch extends a session; see [store.Toucher]. It does not rewrite the Data,
// neither in memory, in the append-only file, nor on the replicas, and does not
// wait for replicas. For a user's session it takes two round trips.
func (s *Store) Touch(ctx context.Context, id store.ID, seen, deadline time.Time) error {
	times := appendTime(appendTime(nil, seen), deadline)
	r, err := s.run(ctx, touchScript, s.key(id), string(times))
	if err != nil {
		return failed("touch", err)
	}
	if len(r) != 2*timeSize+len(store.UserHash{}) {
		switch result, _, err := outcome(r, nil); {
		case err != nil:
			return failed("touch", err)
		case result == refused:
			return store.ErrNotFound
		}
		return nil
	}
	// A failover may have lost the entry but not the session.
	rec := store.Record{ID: id, User: store.UserHash(r[2*timeSize:]), Deadline: deadline, Created: timeAt(r), Expires: timeAt(r[timeSize:])}
	_ = s.index(ctx, &rec)
	return nil
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
