// Package redis keeps other libraries' sessions in Redis or Valkey: those of
// Beaker's ext:redis, gorilla's redistore and scs's redis stores.
package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/valkey-io/valkey-go"

	"github.com/sojourn-go/sojourn/legacy"
)

// Store is a legacy.Store. It supports guards with scripts that compare the
// whole value. It is safe for concurrent use.
type Store struct{ client valkey.Client }

var _ legacy.Store = (*Store)(nil)

// New returns a Store. The client must be for the old application's server and
// database; the caller closes it.
func New(client valkey.Client) *Store { return &Store{client} }

// Get implements legacy.Store.
func (s *Store) Get(ctx context.Context, key string) (legacy.Entry, error) {
	b, err := s.client.Do(ctx, s.client.B().Get().Key(key).Build()).AsBytes()
	switch {
	case valkey.IsValkeyNil(err):
		legacy.GuardOf(ctx).Saw(s, key, nil)
		return legacy.Entry{}, legacy.ErrNoEntry
	case err != nil:
		return legacy.Entry{}, failed("get", err)
	}
	e := legacy.Entry{Value: b}
	legacy.GuardOf(ctx).SawEntry(s, key, e, true)
	return e, nil
}

// set sets KEYS[1] to ARGV[3] if it is still ARGV[2] (ARGV[1] is "same"), if it
// is still missing ("none"), or always ("any"). ARGV[4] is when it expires in
// Unix milliseconds, 0 = never.
var set = valkey.NewLuaScript(`
if ARGV[1] ~= 'any' then
  local now = redis.call('GET', KEYS[1])
  if ARGV[1] == 'none' then
    if now then return 0 end
  elseif now ~= ARGV[2] then
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[3])
if ARGV[4] ~= '0' then
  redis.call('PEXPIREAT', KEYS[1], ARGV[4])
end
return 1
`)

// Set implements legacy.Store. Flags are not kept.
func (s *Store) Set(ctx context.Context, key string, e legacy.Entry) error {
	expires := int64(0)
	if !e.Expires.IsZero() {
		expires = e.Expires.UnixMilli()
	}
	seen, guarded := legacy.GuardOf(ctx).Seen(s, key)
	was, there := seen.([]byte)
	mode := "any"
	switch {
	case guarded && there:
		mode = "same"
	case guarded:
		mode = "none"
	}
	args := []string{mode, string(was), string(e.Value), strconv.FormatInt(expires, 10)}
	n, err := set.Exec(ctx, s.client, []string{key}, args).AsInt64()
	switch {
	case err != nil:
		return failed("set", err)
	case n == 0:
		return legacy.ErrChanged
	}
	return nil
}

// Delete implements legacy.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.client.Do(ctx, s.client.B().Del().Key(key).Build()).Error(); err != nil {
		return failed("delete", err)
	}
	return nil
}

// failed wraps an error of the client. The server's answer may repeat the key,
// a credential, so only its first word is passed on.
func failed(doing string, err error) error {
	var answer *valkey.ValkeyError
	if errors.As(err, &answer) {
		word, _, _ := strings.Cut(answer.Error(), " ")
		return fmt.Errorf("legacy redis: %s: refused by the server: %s", doing, word)
	}
	return fmt.Errorf("legacy redis: %s: %w", doing, err)
}
