package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/store/open"
)

// ErrURL means that a text is not a URL that ParseURL supports.
var ErrURL = errors.New("redis: not a URL of Redis servers")

// ParseURL reads the servers and how to use them from a URL:
//
//	redis://[[USER]:PASSWORD@]HOST[:PORT][/DB][?OPTIONS]             one node
//	redissentinel://[…@]HOST[:PORT],…/MASTER[?OPTIONS]               nodes that sentinels watch
//	rediscluster://[…@]HOST[:PORT],…[?OPTIONS]                       a Cluster
//
// The schemes rediss, redissentinels and redisclusters use TLS. The default
// port is 6379, and that of sentinels 26379. The options are those of Options:
// prefix, db, dial_timeout, replicas, replica_timeout, sentinel_username,
// sentinel_password, and allow_eviction (true or false). Times are written like
// 500ms. Instead of PASSWORD, password-file=PATH or password-command=COMMAND
// can give the password for each new connection, see open.PasswordSource.
//
// Errors wrap ErrURL and contain no part of the text that may be a password.
func ParseURL(text string) (Options, error) {
	o, err := parseURL(text)
	if err != nil {
		return Options{}, fmt.Errorf("%w: %w", ErrURL, err)
	}
	if _, err := o.withDefaults(); err != nil {
		return Options{}, fmt.Errorf("%w: %w", ErrURL, err)
	}
	return o, nil
}

func parseURL(text string) (o Options, err error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return o, errors.New("it has no ://")
	}
	kind, encrypted := strings.CutSuffix(scheme, "s")
	if scheme == "redis" { // the s of redis is not that of TLS
		kind, encrypted = "redis", false
	}
	port := "6379"
	switch kind {
	case "redis":
	case "redissentinel":
		port = "26379"
	case "rediscluster":
		o.Cluster = true
	default:
		return o, fmt.Errorf("scheme %q is unknown", scheme)
	}
	if encrypted {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}

	// Package url supports one host only.
	end := len(rest)
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		end = i
	}
	user, hosts := "", rest[:end]
	if i := strings.LastIndexByte(hosts, '@'); i >= 0 {
		user, hosts = hosts[:i+1], hosts[i+1:]
	}
	for _, host := range strings.Split(hosts, ",") {
		name, p, err := net.SplitHostPort(host)
		if err != nil {
			name, p, err = net.SplitHostPort(host + ":" + port)
		}
		if _, e := strconv.ParseUint(p, 10, 16); err != nil || e != nil || name == "" {
			return o, errors.New("a host is not host:port (a / in a password is %2F)")
		}
		o.Addrs = append(o.Addrs, net.JoinHostPort(name, p))
	}
	u, err := url.Parse("redis://" + user + "host" + rest[end:])
	if err != nil {
		return o, errors.New("its user, password, path or options are not written as in a URL")
	}
	o.Username = u.User.Username()
	o.Password, _ = u.User.Password()
	if u.Fragment != "" {
		return o, errors.New("it has a # (in a password, that is %23)")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return o, errors.New("its options are not written as in a URL")
	}
	source, err := open.PasswordSource(query)
	switch {
	case err != nil:
		return o, err
	case source != nil && o.Password != "":
		return o, errors.New("it has a password, and says where there is another one")
	case source != nil:
		user := o.Username
		o.Username, o.Credentials = "", func(ctx context.Context) (string, string, error) {
			password, err := source(ctx)
			return user, password, err
		}
	}
	path := strings.Trim(u.Path, "/")
	switch {
	case kind == "redissentinel":
		if o.Master = path; path == "" {
			return o, errors.New("the name of the master is missing after the sentinels")
		}
	case path == "":
	case o.Cluster || query.Has("db"):
		return o, errors.New("nothing may follow the hosts but options")
	default:
		query.Set("db", path)
	}
	for name, values := range query {
		if err := o.set(name, values); err != nil {
			return o, err
		}
	}
	return o, nil
}

// set sets one field by its name in a URL.
func (o *Options) set(name string, values []string) (err error) {
	value := values[0]
	switch name {
	case "prefix":
		o.Prefix = value
	case "db":
		o.DB, err = strconv.Atoi(value)
	case "dial_timeout":
		o.DialTimeout, err = time.ParseDuration(value)
	case "allow_eviction":
		o.AllowEviction, err = strconv.ParseBool(value)
	case "replicas":
		o.Replicas, err = strconv.Atoi(value)
	case "replica_timeout":
		o.ReplicaTimeout, err = time.ParseDuration(value)
	case "sentinel_username":
		o.SentinelUsername = value
	case "sentinel_password":
		o.SentinelPassword = value
	default:
		return errors.New("one of its options is unknown (a ? in a password is %3F)")
	}
	if err != nil || len(values) != 1 {
		return fmt.Errorf("the value of %s is not of its kind, or given twice", name)
	}
	return nil
}
