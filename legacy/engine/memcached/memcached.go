// Package memcached keeps other libraries' sessions in memcached, where Beaker's
// ext:memcached has them, or where an App Engine application that was moved off
// App Engine has its memcache.
package memcached

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/sojourn-go/sojourn/legacy"
)

// Store is a legacy.Store, and so an appengine.Memcache. It takes part in
// guards by compare-and-set. It is safe for concurrent use.
type Store struct{ client *memcache.Client }

var _ legacy.Store = (*Store)(nil)

// New takes a client, which knows the servers and the timeouts; the caller closes
// it. The servers and their order must be those of the old application, and so
// must be the way in which keys are spread over them, which differs between
// client libraries where there is more than one server.
func New(client *memcache.Client) *Store { return &Store{client} }

// Get implements legacy.Store.
func (s *Store) Get(ctx context.Context, key string) (legacy.Entry, error) {
	if err := ctx.Err(); err != nil {
		return legacy.Entry{}, err
	}
	item, err := s.client.Get(key)
	switch {
	case errors.Is(err, memcache.ErrCacheMiss):
		legacy.GuardOf(ctx).Saw(s, key, nil)
		return legacy.Entry{}, legacy.ErrNoEntry
	case err != nil:
		return legacy.Entry{}, failed("get", err)
	}
	legacy.GuardOf(ctx).Saw(s, key, item)
	return legacy.Entry{Value: item.Value, Flags: item.Flags}, nil
}

// Set implements legacy.Store. An entry that has expired already is stored as
// one that is over.
func (s *Store) Set(ctx context.Context, key string, e legacy.Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	item := &memcache.Item{Key: key, Value: e.Value, Flags: e.Flags}
	if !e.Expires.IsZero() {
		// As a time of day, which memcached can tell from an age by its size.
		item.Expiration = int32(min(e.Expires.Unix(), 1<<31-1))
	}
	seen, guarded := legacy.GuardOf(ctx).Seen(s, key)
	var err error
	switch was, _ := seen.(*memcache.Item); {
	case !guarded:
		err = s.client.Set(item)
	case was == nil:
		err = s.client.Add(item)
	default:
		next := *was // with the number that compare-and-set compares
		next.Value, next.Flags, next.Expiration = item.Value, item.Flags, item.Expiration
		err = s.client.CompareAndSwap(&next)
	}
	switch {
	case guarded && (errors.Is(err, memcache.ErrNotStored) || errors.Is(err, memcache.ErrCASConflict) || errors.Is(err, memcache.ErrCacheMiss)):
		return legacy.ErrChanged
	case err != nil:
		return failed("set", err)
	}
	return nil
}

// Delete implements legacy.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.client.Delete(key); err != nil && !errors.Is(err, memcache.ErrCacheMiss) {
		return failed("delete", err)
	}
	return nil
}

// failed wraps an error of the client. What the server answered may repeat the
// key, which is a credential, so only errors of the network are passed on.
func failed(doing string, err error) error {
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, memcache.ErrNoServers) || errors.Is(err, memcache.ErrMalformedKey) {
		return fmt.Errorf("legacy memcached: %s: %w", doing, err)
	}
	return fmt.Errorf("legacy memcached: %s: unexpected answer (%T)", doing, err)
}
