// Package redis keeps session records in Redis or Valkey: as a store ([Open]),
// or as a cache in front of one ([NewCache], with package tiered).
//
//	db, err := redis.Open(ctx, redis.Options{Addrs: []string{"10.0.0.1:6379"}})
//	if err != nil {
//		return err
//	}
//	defer db.Close()
//	sessions, err := sojourn.New(sojourn.Config{Keys: keys, Store: db})
//
// The servers may be one node, a node and its replicas watched by Sentinel, or
// a Cluster; Redis 6.2 or newer, or any Valkey. [ParseURL] reads all of it from
// a URL.
//
// A session is one key, so it is always within one slot of a Cluster. A save is
// one round trip: a script on the server compares and sets. The key expires by
// itself, a minute after the record's deadline. These are all keys, each behind
// [Options.Prefix]:
//
//	s:HANDLE  string      a session's record, or its tombstone
//	u:HASH    hash        a user's sessions: ID to when the entry was written, when
//	                      the session expires at the latest, when it was created
//	ends      sorted set  the feed of ends: each twice, by its number and by its
//	                      tombstone's deadline
//	c:HANDLE  string      a copy in a cache
//
// The durability of a Save depends on the servers' configuration. Redis
// acknowledges a write when it is in the memory of one server. If that server
// is killed, it loses writes that are not yet in its append-only file; if a
// replica takes over, writes not yet sent to it are lost. The README lists for
// each setting what can be lost. [Options.Replicas] reduces the second risk but
// does not remove it. A failover may also lose the last ends of the feed, so
// readers miss them, although the sessions' tombstones exist.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Options are the servers' addresses and settings. Only Addrs is required.
type Options struct {
	// Addrs are the servers, each as host:port: one node; with Cluster, some
	// nodes of the cluster, which name the others; with Master, the sentinels.
	Addrs []string
	// Cluster means that Addrs belong to a Cluster.
	Cluster bool
	// Master is the name of the master that the sentinels at Addrs watch. "" =
	// no Sentinel.
	Master string

	// Username and Password are those of an ACL user. "" = the default user,
	// and no password.
	Username, Password string
	// Credentials returns the user and the password for each new connection, so
	// that they may change; existing connections stay logged in. It may be
	// called by several goroutines at once, and may take at most 10 seconds.
	// While it fails, or the server refuses its result, calls wait until their
	// contexts end, for at most 5 seconds. nil = Username and Password, which
	// exclude it.
	Credentials func(ctx context.Context) (user, password string, err error)
	// SentinelUsername and SentinelPassword, or SentinelCredentials, are for the
	// sentinels.
	SentinelUsername, SentinelPassword string
	SentinelCredentials                func(ctx context.Context) (user, password string, err error)
	// TLS is used for all connections, including those to sentinels. nil =
	// plain TCP. If the client certificate or the certificate authorities
	// change while the program runs, set its GetClientCertificate or
	// VerifyConnection.
	TLS *tls.Config
	// DB is the number of the database. A Cluster has only number 0.
	DB int

	// Prefix is put before every key, so that several applications can share
	// servers: at most 200 bytes, without braces, which would put all keys of a
	// Cluster into one slot. "" = "sojourn:".
	Prefix string
	// DialTimeout bounds connecting to a server. 0 = 1 s.
	DialTimeout time.Duration

	// AllowEviction lets Open accept servers that evict keys when their memory
	// is full. Then sessions can be lost, and also tombstones, so a logout may
	// not be final. A cache does not need it.
	AllowEviction bool
	// Replicas is how many replicas must have acknowledged a save or an end
	// before it counts as kept (WAIT). It reduces what a failover can lose, but
	// does not rule out loss: another replica may take over. If fewer replicas
	// are reachable, every save is an error. 0 = the master alone. A cache does
	// not use it.
	Replicas int
	// ReplicaTimeout is how long to wait for them. 0 = 500 ms.
	ReplicaTimeout time.Duration
}

// withDefaults returns the options with all zero values filled in, or an error
// that names every mistake.
func (o Options) withDefaults() (Options, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("redis: "+format, args...)) }
	if len(o.Addrs) == 0 {
		bad("no address given")
	}
	for _, a := range o.Addrs {
		if _, _, err := net.SplitHostPort(a); err != nil {
			bad("address %q is not host:port", a)
		}
	}
	switch {
	case o.Cluster && o.Master != "":
		bad("Cluster and Master exclude each other")
	case o.Cluster && o.DB != 0:
		bad("a Cluster has no database %d", o.DB)
	case !o.Cluster && o.Master == "" && len(o.Addrs) > 1:
		bad("%d addresses, but neither Cluster nor Master", len(o.Addrs))
	}
	if o.Credentials != nil && o.Username+o.Password != "" || o.SentinelCredentials != nil && o.SentinelUsername+o.SentinelPassword != "" {
		bad("a user or password, and also a function for them")
	}
	if len(o.Prefix) > 200 || strings.ContainsAny(o.Prefix, "{}") {
		bad("prefix %.40q: at most 200 bytes without braces", o.Prefix)
	}
	if o.DB < 0 || o.DialTimeout < 0 || o.Replicas < 0 || o.ReplicaTimeout < 0 {
		bad("negative option")
	}
	if o.Prefix == "" {
		o.Prefix = "sojourn:"
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = time.Second
	}
	if o.ReplicaTimeout == 0 {
		o.ReplicaTimeout = 500 * time.Millisecond
	}
	o.Addrs = slices.Clone(o.Addrs)
	return o, errors.Join(errs...)
}

// single reports whether there is one node, at one address.
func (o *Options) single() bool { return !o.Cluster && o.Master == "" }

// failed wraps an error of the client library. Keys and values are not in it.
func failed(doing string, err error) error { return fmt.Errorf("redis: %s: %w", doing, err) }
