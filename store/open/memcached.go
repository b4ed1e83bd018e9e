package open

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
	"github.com/sojourn-go/sojourn/store/memcached"
)

// openMemcached wants an answer from every server: without one of them, its
// share of the sessions is out of reach.
func openMemcached(ctx context.Context, text string) (store.Store, io.Closer, error) {
	servers, o, err := parseMemcached(text)
	if err != nil {
		return nil, nil, err
	}
	s, err := memcached.NewStore(servers, o)
	if err != nil {
		return nil, nil, urlError("%w", err)
	}
	// The client library knows nothing of contexts.
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

func parseMemcached(text string) (servers []string, o memcached.Options, err error) {
	u, query, err := parse(text, "prefix", "timeout", "max_item")
	if err != nil {
		return nil, o, err
	}
	if u.path != "" {
		return nil, o, urlError("memcached: nothing may follow the hosts but options")
	}
	for _, host := range strings.Split(u.hosts, ",") {
		if _, _, err := net.SplitHostPort(host); err != nil {
			host += ":11211"
		}
		name, port, err := net.SplitHostPort(host)
		if _, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || name == "" {
			return nil, o, urlError("memcached: a host is not HOST or HOST:PORT")
		}
		servers = append(servers, host)
	}
	o.Prefix = query["prefix"]
	if text, given := query["timeout"]; given {
		if o.Timeout, err = time.ParseDuration(text); err != nil {
			return nil, o, urlError("timeout is a duration, such as 250ms")
		}
	}
	if text, given := query["max_item"]; given {
		if o.MaxItem, err = strconv.Atoi(text); err != nil {
			return nil, o, urlError("max_item is a number of bytes")
		}
	}
	return servers, o, nil
}
