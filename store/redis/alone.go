package redis

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valkey-io/valkey-go"
)

// alone carries a call while no other is running, on a separate connection, in
// its caller's goroutine. The shared connection has a writer and a reader
// goroutine, and waking both takes as long as the server does.
//
// Nothing reads from such a connection between calls, so its end goes
// undetected. It is used only while a shared connection, which is always being
// read, has not ended since.
type alone struct {
	busy    atomic.Bool
	flight  *flight       // belongs to the call that set busy
	watched atomic.Int32  // shared connections
	ended   atomic.Uint32 // how many of them have ended
}

// flight is one call that is carried alone.
type flight struct {
	context.Context

	mu   sync.Mutex
	conn net.Conn
	left bool // the caller no longer waits
	over bool
}

type flightKey struct{}

func (f *flight) Value(key any) any {
	if key == (flightKey{}) {
		return f
	}
	return f.Context.Value(key)
}

// long is a time in the past.
var long = time.Unix(1, 0)

// leave aborts the call.
func (f *flight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = true
	if f.conn != nil && !f.over {
		_ = f.conn.SetDeadline(long)
	}
}

// boards sets the call's connection and deadline.
func (f *flight) boards(conn net.Conn, until time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn = conn
	if f.left {
		until = long
	}
	return conn.SetDeadline(until)
}

func (f *flight) lands() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
}

// keep wraps a new connection, as a shared one or as one for calls that are
// carried alone.
func (a *alone) keep(ctx context.Context, conn net.Conn) net.Conn {
	if ctx.Value(flightKey{}) != nil {
		return &ownConn{Conn: conn, alone: a, since: a.ended.Load()}
	}
	a.watched.Add(1)
	return &sharedConn{Conn: conn, alone: a}
}

// sharedConn detects its end.
type sharedConn struct {
	net.Conn
	alone *alone
	ends  sync.Once
}

func (c *sharedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.end()
	}
	return n, err
}

func (c *sharedConn) Close() error {
	c.end()
	return c.Conn.Close()
}

func (c *sharedConn) end() {
	c.ends.Do(func() {
		c.alone.ended.Add(1)
		c.alone.watched.Add(-1)
	})
}

// ownConn is used by one call at a time, alone's flight.
type ownConn struct {
	net.Conn
	alone *alone
	since uint32 // how many shared connections had ended when this one was opened
}

// errUnwatched means that nothing was sent.
var errUnwatched = errors.New("the connection may have ended unnoticed")

func (c *ownConn) Write(b []byte) (int, error) {
	if c.alone.ended.Load() != c.since {
		return 0, errUnwatched
	}
	return c.Conn.Write(b)
}

func (c *ownConn) SetDeadline(t time.Time) error { return c.alone.flight.boards(c.Conn, t) }

// reply is an answer, a text or a number, as text: the library does not
// distinguish them for a call that is carried alone. nil = none.
type reply []byte

// roundTrip sends a command whose answer is a reply.
func (c *client) roundTrip(ctx context.Context, l *link, command func() valkey.Completed) (reply, error) {
	if l.users.Load() == 1 && l.alone.watched.Load() > 0 && l.alone.busy.CompareAndSwap(false, true) {
		r, err := l.carryAlone(ctx, command())
		if !errors.Is(err, errUnwatched) {
			return r, err
		}
	}
	m, err := l.rdb.Do(ctx, command()).ToMessage()
	if err != nil {
		return nil, err
	}
	return replyOf(m)
}

func replyOf(m valkey.ValkeyMessage) (reply, error) {
	if m.IsInt64() {
		n, err := m.AsInt64()
		return strconv.AppendInt(nil, n, 10), err
	}
	text, err := m.AsBytes()
	if err != nil {
		return nil, errAnswer
	}
	return text, nil
}

// ask sends a command that only reads, and whose answer is a reply.
func (c *client) ask(ctx context.Context, command func() valkey.Completed) (r reply, err error) {
	err = c.patiently(ctx, true, func(l *link) (err error) {
		r, err = c.roundTrip(ctx, l, command)
		return err
	})
	return r, err
}

// message sends a command with any answer.
func (c *client) message(ctx context.Context, reads bool, command func() valkey.Completed) (m valkey.ValkeyMessage, err error) {
	err = c.patiently(ctx, reads, func(l *link) (err error) {
		m, err = l.rdb.Do(ctx, command()).ToMessage()
		return err
	})
	return m, err
}

func (l *link) carryAlone(ctx context.Context, command valkey.Completed) (reply, error) {
	f := &flight{Context: ctx}
	defer l.alone.busy.Store(false)
	defer f.lands()
	defer context.AfterFunc(ctx, f.leave)()
	l.alone.flight = f
	stream := l.rdb.DoStream(f, command)
	var answer reply
	if _, err := stream.WriteTo(&answer); err != nil {
		if end, ok := ctx.Deadline(); ok && errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(end) {
			err = context.DeadlineExceeded
		} else if ctx.Err() != nil && !valkey.IsValkeyNil(err) && judged(err) == unsure {
			err = ctx.Err()
		}
		return nil, err
	}
	if answer == nil {
		answer = reply{}
	}
	return answer, nil
}

// Write and ReadFrom take an answer from the library, which passes its length.
func (r *reply) Write(b []byte) (int, error) {
	*r = append(*r, b...)
	return len(b), nil
}

func (r *reply) ReadFrom(in io.Reader) (int64, error) {
	l, ok := in.(*io.LimitedReader)
	if !ok {
		b, err := io.ReadAll(in)
		*r = append(*r, b...)
		return int64(len(b)), err
	}
	at := len(*r)
	*r = append(*r, make([]byte, l.N)...)
	n, err := io.ReadFull(l, (*r)[at:])
	return int64(n), err
}
