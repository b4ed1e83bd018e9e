// Package memcached keeps other libraries' sessions in memcached: those of
// Beaker's ext:memcached, and those of an application that left App Engine and
// uses memcached in place of its memcache.
package memcached

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/sojourn-go/sojourn/legacy"
)

// Store is a legacy.Store, and so an appengine.Memcache. It supports guards
// with compare-and-set. It is safe for concurrent use.
type Store struct{ client *memcache.Client }

var _ legacy.Store = (*Store)(nil)

// New returns a Store. The caller configures and closes the client. The
// servers, their order, and the distribution of keys over them must be those of
// the old application. With several servers, the distribution differs between
// client libraries.
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

// Set implements legacy.Store. An entry that has already expired is stored as
// expired.
func (s *Store) Set(ctx context.Context, key string, e legacy.Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	item := &memcache.Item{Key: key, Value: e.Value, Flags: e.Flags}
	if !e.Expires.IsZero() {
		// As a Unix time, which memcached distinguishes from an age by its size.
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

// failed wraps an error of the client. The server's answer may repeat the key,
// a credential, so only network errors are passed on.
func failed(doing string, err error) error {
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, memcache.ErrNoServers) || errors.Is(err, memcache.ErrMalformedKey) {
		return fmt.Errorf("legacy memcached: %s: %w", doing, err)
	}
	return fmt.Errorf("legacy memcached: %s: unexpected answer (%T)", doing, err)
}
