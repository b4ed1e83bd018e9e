package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// The feed of ends is one sorted set, and so within one slot. It has two members
// for each tombstone:
//
//	o ID   score: the end's number, the server's time in microseconds, always increasing
//	u ID   score: until when the tombstone is kept, in Unix milliseconds, negated
//
// so that it can be read in the order of the ends, and trimmed by deadline.

// feedTime is how long an end stays in the feed after its tombstone's deadline,
// at least. The script repeats it.
const feedTime = time.Hour

// tellScript adds ends. Its arguments are the tombstones' deadline and the IDs.
// Its first write is a ZREM, because a full server refuses ZADD, but neither
// ZREM nor commands after it in a script. An end that is there already gets a
// new number and the later of both deadlines.
var tellScript = newScript(`
local key, deadline = KEYS[1], tonumber(ARGV[1])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local last = redis.call('ZREVRANGEBYSCORE', key, '+inf', '(0', 'WITHSCORES', 'LIMIT', 0, 1)
local number = math.max(t[1] * 1000000 + t[2], (tonumber(last[2]) or 0) + 1)
local latest = 0
for i = 2, #ARGV do
	local order, kept = 'o' .. ARGV[i], 'u' .. ARGV[i]
	local till = math.max(deadline, now, -(redis.call('ZSCORE', key, kept) or 0))
	redis.call('ZREM', key, order)
	redis.call('ZADD', key, number, order, -till, kept)
	number, latest = number + 1, math.max(latest, till)
end
local out = redis.call('ZRANGEBYSCORE', key, string.format('(%.0f', 3600000 - now), '(0', 'LIMIT', 0, 100)
for _, kept in ipairs(out) do redis.call('ZREM', key, kept, 'o' .. string.sub(kept, 2)) end
local ttl = redis.call('PTTL', key)
if ttl < 0 or now + ttl < latest + 3600000 then redis.call('PEXPIREAT', key, latest + 3600000) end
return 1
`)

// tell adds sessions that have ended to the feed.
func (s *Store) tell(ctx context.Context, until time.Time, ids ...store.ID) error {
	args := make([]string, 1, 1+len(ids))
	args[0] = strconv.FormatInt(min(max(until.UnixMilli(), 0), longestTime), 10)
	for _, id := range ids {
		args = append(args, string(id[:]))
	}
	_, err := s.runKept(ctx, tellScript, s.options.Prefix+feedKey, args...)
	return err
}

// endsScript returns the ends after a number, at most so many. Its arguments
// are the number, the ID of the end that has it, and how many. Its answer is
// the number and ID of the last returned end, followed by the ID and deadline
// of each. Without a number it returns no ends.
//
// If that end is no longer in the feed, a failover may have lost it, and the
// new master's clock may be behind, so that new ends get lower numbers. So the
// ends of the last two minutes are returned again.
var endsScript = newScript(`
local key, number, id, limit = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
if number == '' then
	local last = redis.call('ZREVRANGEBYSCORE', key, '+inf', '(0', 'WITHSCORES', 'LIMIT', 0, 1)
	if last[1] then return {last[2], string.sub(last[1], 2)} end
	local t = redis.call('TIME')
	return {string.format('%.0f', t[1] * 1000000 + t[2]), ''}
end
local after = tonumber(number)
if tonumber(redis.call('ZSCORE', key, 'o' .. id)) ~= after then after = math.max(after - 120000000, 0) end
local answer, seen, found = {number, id}, 0, nil
repeat
	found = redis.call('ZRANGEBYSCORE', key, string.format('(%.0f', after), '+inf', 'WITHSCORES', 'LIMIT', seen, limit)
	seen = seen + limit
	for i = 1, #found, 2 do
		id = string.sub(found[i], 2)
		if #id == 16 and #answer < 2 + 2 * limit then -- another is no session's
			answer[1], answer[2] = found[i + 1], id
			table.insert(answer, id)
			table.insert(answer, string.format('%.0f', -(redis.call('ZSCORE', key, 'u' .. id) or 0)))
		end
	end
until #found < 2 * limit or #answer == 2 + 2 * limit
return answer
`)

// ErrFeedCursor means that a text is not a cursor that Ends returned.
var ErrFeedCursor = errors.New("redis: not a cursor of the feed of ends")

// Ends returns the ends of sessions in one round trip, at most a thousand at a
// time; see [store.EndFeed].
//
// An end stays in the feed until an hour after its tombstone's deadline, so a
// cursor is valid for at least an hour. The package documentation says what a
// failover loses.
func (s *Store) Ends(ctx context.Context, cursor string, limit int) (page store.EndPage, err error) {
	number, id, err := parseCursor(cursor)
	if err != nil {
		return page, err
	}
	limit = min(max(limit, 1), 1000)
	m, err := s.eval(ctx, true, endsScript, s.options.Prefix+feedKey, number, id, strconv.Itoa(limit))
	if err != nil {
		return page, failed("read the feed of ends", err)
	}
	answer, err := m.AsStrSlice()
	if err != nil || len(answer) < 2 || len(answer)%2 != 0 {
		return page, failed("read the feed of ends", errAnswer)
	}
	page.Cursor = answer[0]
	if len(answer[1]) == len(store.ID{}) {
		page.Cursor += "-" + store.ID([]byte(answer[1])).String()
	}
	for i := 2; i < len(answer); i += 2 {
		until, err := strconv.ParseInt(answer[i+1], 10, 64)
		if err != nil || len(answer[i]) != len(store.ID{}) {
			return store.EndPage{}, failed("read the feed of ends", errAnswer)
		}
		page.Ends = append(page.Ends, store.End{ID: store.ID([]byte(answer[i])), Until: time.UnixMilli(until).UTC()})
	}
	page.More = len(page.Ends) == limit
	return page, nil
}

// parseCursor reads NUMBER-HANDLE, or NUMBER alone if no session has ended yet.
func parseCursor(cursor string) (number, id string, err error) {
	switch cursor {
	case store.FeedFromNow:
		return "", "", nil
	case store.FeedFromStart:
		return "0", "", nil
	}
	number, handle, anchored := strings.Cut(cursor, "-")
	// Redis and Lua store larger numbers inexactly.
	if n, err := strconv.ParseUint(number, 10, 53); err != nil || strconv.FormatUint(n, 10) != number {
		return "", "", ErrFeedCursor
	}
	if !anchored {
		return number, "", nil
	}
	parsed, err := store.ParseID(handle)
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", ErrFeedCursor, err)
	}
	return number, string(parsed[:]), nil
}
