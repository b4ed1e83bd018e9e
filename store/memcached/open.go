package memcached

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/open"
)

// A program that imports this package can open its stores and caches by URL.
func init() {
	open.Register(open.Engine{
		Schemes: []string{"memcached"},
		Forms:   []string{"memcached://HOST,HOST"},
		Store:   openStore,
		Cache: func(url string) (store.Cache, io.Closer, error) {
			servers, o, err := parseURL(url)
			if err != nil {
				return nil, nil, err
			}
			c, err := NewCache(servers, o)
			if err != nil {
				return nil, nil, fmt.Errorf("%w: %w", open.ErrURL, err)
			}
			return c, c, nil
		},
	})
}

// openStore requires an answer from every server: without one, its share of the
// sessions is unreachable.
func openStore(ctx context.Context, url string) (store.Store, io.Closer, error) {
	servers, o, err := parseURL(url)
	if err != nil {
		return nil, nil, err
	}
	s, err := NewStore(servers, o)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", open.ErrURL, err)
	}
	// The client library does not support contexts.
	pinged := make(chan error, 1)
	go func() { pinged <- s.Ping() }()
	select {
	case err = <-pinged:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("memcached: not every server answers: %w", err), s.Close())
	}
	return s, s, nil
}

func parseURL(text string) (servers []string, o Options, err error) {
	at, err := open.Parse(text, "prefix", "timeout", "max_item")
	if err != nil {
		return nil, o, err
	}
	if at.Path != "" {
		return nil, o, urlError("memcached: nothing may follow the hosts but options")
	}
	for host := range strings.SplitSeq(at.Hosts, ",") {
		if _, _, err := net.SplitHostPort(host); err != nil {
			host += ":11211"
		}
		name, port, err := net.SplitHostPort(host)
		if _, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || name == "" {
			return nil, o, urlError("memcached: a host is not HOST or HOST:PORT")
		}
		servers = append(servers, host)
	}
	o.Prefix = at.Options["prefix"]
	if text, given := at.Options["timeout"]; given {
		if o.Timeout, err = time.ParseDuration(text); err != nil {
			return nil, o, urlError("timeout is a duration, such as 250ms")
		}
	}
	if text, given := at.Options["max_item"]; given {
		if o.MaxItem, err = strconv.Atoi(text); err != nil {
			return nil, o, urlError("max_item is a number of bytes")
		}
	}
	return servers, o, nil
}

func urlError(text string) error { return fmt.Errorf("%w: %s", open.ErrURL, text) }
