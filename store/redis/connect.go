package redis

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valkey-io/valkey-go"
)

const (
	// unresponsive is how long a connection may be without any answer before it
	// is closed, and the calls on it fail. A busy server needs far less, and a
	// longer wait would let calls queue up behind a frozen server.
	unresponsive = 3 * time.Second
	// keepAlive is how often an idle connection is tested.
	keepAlive = time.Second
	// waiting is how many saves may wait for replicas at the same time, on a
	// connection each, per server.
	waiting = 64
	// credentialsTime is how long Options.Credentials may take.
	credentialsTime = 10 * time.Second
	// lifetime is how long the connections to one node are used: its address
	// may lead to another server by then, while the old one still answers.
	lifetime = 10 * time.Second
)

// client is the shared part of Store and Cache.
type client struct {
	options  *Options // behind a pointer, which printers do not follow
	patience time.Duration
	build    valkey.Builder

	current atomic.Pointer[link] // never nil
	mu      sync.Mutex           // guards the replacement of current
	renewal chan struct{}        // closed when the renewal under way ends; nil = none
	closed  bool
}

// link is a client of the library, with its connections. The link to a single
// node is replaced from time to time, see renew.
type link struct {
	rdb     valkey.Client
	alone   *alone
	due     atomic.Int64 // when it must be replaced, in Unix nanoseconds
	users   atomic.Int64 // calls under way
	retired atomic.Bool
	close   sync.Once
}

func (l *link) dueIn(d time.Duration) { l.due.Store(time.Now().Add(d).UnixNano()) }

var errClosed = errors.New("the connections were closed")

// newClient connects. The library does not support contexts here; a connection
// that comes too late is closed.
func newClient(ctx context.Context, o Options, patience time.Duration) (*client, error) {
	c := &client{options: &o, patience: patience}
	done := make(chan error, 1)
	go func() {
		l, err := c.connect()
		if err == nil {
			c.build = l.rdb.B()
			c.current.Store(l)
		} else if l != nil {
			l.rdb.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return nil, err
		}
		return c, nil
	case <-ctx.Done():
		go func() {
			if err := <-done; err == nil {
				c.shut()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// sentinels marks the connections to sentinels for dial. It resolves names like
// the default resolver.
var sentinels = &net.Resolver{}

// connect makes a link. A link to a single node exists even if it could not
// connect, and keeps trying.
func (c *client) connect() (*link, error) {
	o := c.options
	l := &link{alone: &alone{}}
	l.dueIn(lifetime)
	dialer := net.Dialer{Timeout: o.DialTimeout, KeepAlive: keepAlive}
	sentinel := dialer
	sentinel.Resolver = sentinels
	var err error
	l.rdb, err = valkey.NewClient(valkey.ClientOption{
		InitAddress: o.Addrs,
		SelectDB:    o.DB,
		TLSConfig:   o.TLS,
		DialCtxFn: func(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
			return c.dial(ctx, addr, dialer, config, l.alone)
		},
		ClientName:        "sojourn",
		ClientSetInfo:     valkey.DisableClientSetInfo,
		Dialer:            dialer,
		ConnWriteTimeout:  unresponsive,
		ForceSingleClient: o.single(),
		Sentinel: valkey.SentinelOption{
			MasterSet: o.Master,
			TLSConfig: o.TLS,
			Dialer:    sentinel,
			// The message about a failover can be lost, and a demoted master
			// keeps its connections.
			TopologyRefreshInterval: time.Second,
		},
		ClusterOption: valkey.ClusterOption{
			ShardsRefreshInterval: 5 * time.Second,
			MaxMovedRedirections:  5,
		},
		// Only this package knows which commands may be sent again.
		DisableRetry: true,
		DisableCache: true,
		// Otherwise a connection starts in a mode where one call's deadline
		// closes it for all calls, and where its end goes undetected.
		AlwaysPipelining: true,
		// One connection to each server, as in a Cluster: with two, batches are
		// half as large, which costs both sides a third more.
		PipelineMultiplex:   -1,
		ReadBufferEachConn:  64 << 10,
		WriteBufferEachConn: 64 << 10,
		BlockingPoolSize:    waiting,
		BlockingPoolCleanup: time.Minute,
	})
	if l.rdb == nil {
		return nil, err
	}
	return l, err
}

// take returns the current link. The caller releases it.
func (c *client) take() (*link, error) {
	for {
		l := c.current.Load()
		if l == nil {
			return nil, errClosed
		}
		l.users.Add(1)
		if c.current.Load() != l {
			l.release()
			continue
		}
		if c.options.single() && time.Now().UnixNano() > l.due.Load() {
			c.renew(l, false)
		}
		return l, nil
	}
}

func (l *link) release() {
	if l.users.Add(-1) == 0 && l.retired.Load() {
		l.close.Do(func() { go l.rdb.Close() })
	}
}

// retire closes a replaced link once no call uses it: closing it earlier would
// fail calls whose outcome is then unknown.
func (l *link) retire() {
	l.retired.Store(true)
	if l.users.Load() == 0 {
		l.close.Do(func() { go l.rdb.Close() })
	}
}

// renew connects to a single node again, resolving its address again, and
// replaces l. If that fails, l stays, unless must is true because it leads to
// the wrong server. With Sentinel and in a Cluster, the library finds the
// servers. The channel is closed when the caller should try again.
func (c *client) renew(l *link, must bool) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.options.single() || c.closed || c.current.Load() != l:
		return nil
	case c.renewal != nil:
		return c.renewal
	}
	done := make(chan struct{})
	c.renewal = done
	go func() {
		fresh, err := c.connect()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.renewal = nil
		defer close(done)
		switch {
		case fresh == nil: // the options were refused
		case c.closed || err != nil && !must && !errors.Is(err, errReplica):
			go fresh.rdb.Close()
			l.dueIn(time.Second)
		default:
			c.current.Store(fresh)
			l.retire()
		}
	}()
	return done
}

// shut closes all connections. Calls under way fail.
func (c *client) shut() {
	c.mu.Lock()
	c.closed = true
	l := c.current.Swap(nil)
	renewal := c.renewal
	c.mu.Unlock()
	if l != nil {
		l.close.Do(l.rdb.Close)
	}
	if renewal != nil {
		<-renewal
	}
}

// errReplica means that the server is a replica, which refuses writes.
var errReplica = errors.New("the server is a replica")

// dial connects, logs in, and checks that the server accepts writes. In a
// Cluster that check is not needed, because nodes redirect. The library could
// connect and log in, but then its errors could not be distinguished from
// errors of the call. dial's errors are notConnected.
func (c *client) dial(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config, alone *alone) (net.Conn, error) {
	isSentinel := dialer.Resolver == sentinels
	user, password, err := c.credentials(ctx, isSentinel)
	if err != nil {
		return nil, &notConnected{fmt.Errorf("get the credentials: %w", err), later}
	}
	ctx, cancel := context.WithTimeout(ctx, dialer.Timeout)
	defer cancel()
	var raw net.Conn
	if config == nil {
		raw, err = dialer.DialContext(ctx, "tcp", addr)
	} else {
		raw, err = (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", addr)
	}
	if err != nil {
		return nil, &notConnected{err, later}
	}
	unhurried := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(long) })
	err = c.greet(raw, user, password, isSentinel)
	if !unhurried() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	if isSentinel || c.options.Cluster {
		return raw, nil
	}
	return alone.keep(ctx, raw), nil
}

func (c *client) credentials(ctx context.Context, isSentinel bool) (user, password string, err error) {
	user, password, ask := c.options.Username, c.options.Password, c.options.Credentials
	if isSentinel {
		user, password, ask = c.options.SentinelUsername, c.options.SentinelPassword, c.options.SentinelCredentials
	}
	if ask == nil {
		return user, password, nil
	}
	ctx, cancel := context.WithTimeout(ctx, credentialsTime)
	defer cancel()
	return ask(ctx)
}

// greet logs in and gets the role of a new connection's server.
func (c *client) greet(raw net.Conn, user, password string, isSentinel bool) error {
	var out []byte
	login := user != "" || password != ""
	switch {
	case user != "":
		out = command("AUTH", user, password)
	case login:
		out = command("AUTH", password)
	}
	if _, err := raw.Write(append(out, command("INFO", "replication")...)); err != nil {
		return &notConnected{err, later}
	}
	in := bufio.NewReader(raw)
	if login {
		if _, err := answer(in); err != nil {
			v := later
			if c.options.Credentials == nil && !isSentinel || c.options.SentinelCredentials == nil && isSentinel {
				v = final // fixed credentials stay wrong
			}
			return &notConnected{loginFailed(err), v}
		}
	}
	info, err := answer(in)
	var said *saying
	switch {
	case errors.As(err, &said) && said.tellsNothing():
	case errors.As(err, &said) && said.code() == "NOAUTH":
		return &notConnected{err, final}
	case err != nil:
		return &notConnected{err, later}
	case infoField(info, "role") == "slave" && !isSentinel && !c.options.Cluster:
		return &notConnected{errReplica, later}
	}
	return nil
}

// command returns a command in the protocol's form.
func command(words ...string) []byte {
	out := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, w := range words {
		out = fmt.Appendf(out, "$%d\r\n%s\r\n", len(w), w)
	}
	return out
}

// saying is a server's error answer in greet.
type saying struct{ text string }

func (e *saying) Error() string { return e.text }

func (e *saying) code() string {
	code, _, _ := strings.Cut(e.text, " ")
	return code
}

// tellsNothing reports whether a server that answered with this error may still
// be a master.
func (e *saying) tellsNothing() bool {
	switch e.code() {
	case "NOPERM", "LOADING", "BUSY":
		return true
	}
	return strings.HasPrefix(e.text, "ERR unknown command")
}

// loginFailed returns only the code of the answer to a login: the rest may
// repeat the name of the user.
func loginFailed(err error) error {
	var said *saying
	if errors.As(err, &said) {
		return fmt.Errorf("the login was refused: %s", said.code())
	}
	return err
}

// answer reads a simple answer.
func answer(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", errAnswer
	}
	switch line[0] {
	case '+':
		return line[1:], nil
	case '-':
		return "", &saying{line[1:]}
	case '$':
		n, err := strconv.Atoi(line[1:])
		if err != nil || n < 0 || n > 1<<20 {
			return "", errAnswer
		}
		text := make([]byte, n+2)
		_, err = io.ReadFull(in, text)
		return string(text[:n]), err
	}
	return "", errAnswer
}
