// Package memcached keeps session records in memcached: as a cache in front of
// a durable store ([NewCache], with package tiered), or as the only store
// ([NewStore]), if you accept that sessions are lost when memcached restarts or
// is full.
//
// Several servers share the keys by rendezvous hashing: changing the list moves
// only the keys of added and removed servers. A key whose server is down is a
// miss. It is not moved to another server, because an outdated copy there could
// be used later.
package memcached

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/sojourn-go/sojourn/store"
)

// Options are the settings that NewCache and NewStore share. The zero value is
// a sensible default.
type Options struct {
	// Prefix is put before every key, so that several applications can share
	// servers. It has no spaces or control characters. "" = "sojourn:".
	Prefix string
	// Timeout bounds each read and write on a connection. 0 = 250 ms.
	Timeout time.Duration
	// MaxIdleConns is how many idle connections are kept to each server. Set it
	// to at least the number of parallel requests. 0 = 64.
	MaxIdleConns int
	// MaxItem is the largest item that the servers accept, in bytes:
	// memcached's -I. 0 = 1 MiB.
	MaxItem int
}

// itemOverhead is what memcached needs in an item besides key and value, with
// room to spare: its header is 48 bytes, plus 8 for the CAS id.
const itemOverhead = 128

// client is the shared part of Cache and Store.
type client struct {
	mc      *memcache.Client
	prefix  string
	maxItem int
}

func newClient(servers []string, o Options) (client, error) {
	if o.Prefix == "" {
		o.Prefix = "sojourn:"
	}
	if len(o.Prefix) > 200 || strings.ContainsFunc(o.Prefix, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return client{}, fmt.Errorf("memcached: prefix %.40q: at most 200 bytes without spaces or control characters", o.Prefix)
	}
	if o.Timeout < 0 || o.MaxIdleConns < 0 || o.MaxItem < 0 {
		return client{}, errors.New("memcached: negative option")
	}
	if o.Timeout == 0 {
		o.Timeout = 250 * time.Millisecond
	}
	if o.MaxIdleConns == 0 {
		o.MaxIdleConns = 64
	}
	if o.MaxItem == 0 {
		o.MaxItem = 1 << 20
	}
	ring, err := newRendezvous(servers)
	if err != nil {
		return client{}, err
	}
	mc := memcache.NewFromSelector(ring)
	mc.Timeout, mc.MaxIdleConns = o.Timeout, o.MaxIdleConns
	return client{mc: mc, prefix: o.Prefix, maxItem: o.MaxItem}, nil
}

func (c *client) key(id store.ID) string { return c.prefix + id.String() }

// fits returns ErrTooLarge for a value that the servers would refuse.
func (c *client) fits(id store.ID, value []byte) error {
	if n := len(c.key(id)) + len(value) + itemOverhead; n > c.maxItem {
		return fmt.Errorf("memcached: an item of %d bytes, at most %d: %w", n, c.maxItem, store.ErrTooLarge)
	}
	return nil
}

// Ping asks every server for its version. It returns the first error.
func (c *client) Ping() error { return c.mc.Ping() }

// Close closes the idle connections.
func (c *client) Close() error { return c.mc.Close() }

// relative is the longest expiry that memcached counts from now; anything
// above it is a Unix time.
const relative = 30 * 24 * time.Hour

// expiry is memcached's form of a time to live: whole seconds, at least one,
// rounded down because it is a bound; more than 30 days as a Unix time.
func expiry(ttl time.Duration, now time.Time) int32 {
	if ttl > relative {
		return int32(min(now.Add(ttl).Unix(), math.MaxInt32))
	}
	return int32(max(ttl/time.Second, 1))
}

// failed wraps an error of the client library. Keys and values are not in it.
func failed(doing string, err error) error { return fmt.Errorf("memcached: %s: %w", doing, err) }

// alive returns an error if ctx has ended. The client library does not support
// contexts, and bounds its calls by Options.Timeout.
func alive(ctx context.Context, doing string) error {
	if err := ctx.Err(); err != nil {
		return failed(doing, context.Cause(ctx))
	}
	return nil
}

// rendezvous picks for each key the server with the highest hash of both
// (Thaler and Ravishankar, "Using name-based mappings to increase hit rates").
type rendezvous struct {
	addrs []net.Addr
	names []string
}

func newRendezvous(servers []string) (*rendezvous, error) {
	if len(servers) == 0 {
		return nil, errors.New("memcached: no server given")
	}
	r := &rendezvous{}
	for _, s := range servers {
		if slices.Contains(r.names, s) {
			return nil, fmt.Errorf("memcached: server %q is given twice", s)
		}
		addr, err := address(s)
		if err != nil {
			return nil, err
		}
		r.names, r.addrs = append(r.names, s), append(r.addrs, addr)
	}
	return r, nil
}

// serverAddr is a configured server. Its name is resolved with each new
// connection, so that a server may move.
type serverAddr struct{ network, text string }

func (a serverAddr) Network() string { return a.network }
func (a serverAddr) String() string  { return a.text }

func address(server string) (net.Addr, error) {
	if strings.HasPrefix(server, "/") {
		return serverAddr{"unix", server}, nil
	}
	if _, _, err := net.SplitHostPort(server); err != nil {
		return nil, fmt.Errorf("memcached: server %q is not host:port or a socket's path: %w", server, err)
	}
	return serverAddr{"tcp", server}, nil
}

// PickServer implements [memcache.ServerSelector].
func (r *rendezvous) PickServer(key string) (net.Addr, error) {
	best, top := 0, uint64(0)
	for i, name := range r.names {
		if h := weight(name, key); i == 0 || h > top {
			best, top = i, h
		}
	}
	return r.addrs[best], nil
}

// Each implements [memcache.ServerSelector].
func (r *rendezvous) Each(f func(net.Addr) error) error {
	for _, a := range r.addrs {
		if err := f(a); err != nil {
			return err
		}
	}
	return nil
}

// weight must be the same in every process that shares the servers, now and
// later: FNV-1a over both names, and a finalizer that spreads its bits.
func weight(server, key string) uint64 {
	h := uint64(14695981039346656037)
	for _, s := range [...]string{server, "\x00", key} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
