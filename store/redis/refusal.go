package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/sojourn-go/sojourn/store"
)

// verdict is what an error says about the command, or script, that met it.
type verdict uint8

const (
	// unsure: it may have been carried out, or a part of it.
	unsure verdict = iota
	// final: it was not carried out, and would not be if it were sent again.
	final
	// later: it was not carried out, and may be if it is sent again in a while.
	later
	// elsewhere is later, and another connection may lead to a server that carries
	// it out: this one leads to one that does not, or that does not know us.
	elsewhere
)

// refusals are the answers of Redis and Valkey that say that nothing was written.
// Those that a command within a script may meet come before the script's first
// write, or not at all: a server looks at its role, memory, disk and replicas when a
// script begins, or at its first write. An answer that is not listed leaves the
// outcome open: ERR, is what becomes of a script that failed in the middle.
var refusals = map[string]verdict{
	"READONLY":    elsewhere, // a replica
	"MASTERDOWN":  elsewhere, // a replica that has lost its master
	"NOAUTH":      elsewhere, // the connection is nobody's
	"REDIRECT":    elsewhere, // a replica that names its master
	"MOVED":       later,     // the client library follows it; it has done so too often
	"ASK":         later,
	"CLUSTERDOWN": later, // nobody serves the slot
	"TRYAGAIN":    later, // the slot is being moved
	"LOADING":     later, // the server has just been started
	"BUSY":        later, // a script of somebody's runs for too long
	"UNKILLABLE":  later,
	"NOREPLICAS":  later, // min-replicas-to-write
	"OOM":         final, // maxmemory
	"MISCONF":     final, // the disk takes no snapshot or no append-only file
	"NOPERM":      final, // an ACL; see judgedText
	"WRONGPASS":   final,
	"NOPROTO":     final,
	"DENIED":      final, // protected mode
	"NOSCRIPT":    final, // and the script's text is sent then
	"EXECABORT":   final,
	"CROSSSLOT":   final,
	"WRONGTYPE":   final, // each script reads its key before it writes
	"FORMAT":      final, // our scripts' own
}

// withinScript is how Redis before 7.0 reports what a command in a script met. The
// library leaves ERR out, with which it begins.
var withinScript = regexp.MustCompile(`^Error running script .*: -?([A-Z]+) `)

// judged returns what an error says. No error, and a key that is not there, is no
// matter for it.
func judged(err error) verdict {
	var answer *valkey.ValkeyError
	var none *notConnected
	switch {
	case errors.As(err, &none):
		return none.verdict
	case !errors.As(err, &answer):
		return unsure
	}
	return judgedText(answer.Error())
}

func judgedText(text string) verdict {
	if strings.HasPrefix(text, "NOPERM") && strings.Contains(text, "executing the script") {
		return unsure // a command that comes after others in it
	}
	if m := withinScript.FindStringSubmatch(text); m != nil {
		text = m[1]
	}
	code, _, _ := strings.Cut(text, " ")
	return refusals[code]
}

// notConnected says that there was no connection to send anything on.
type notConnected struct {
	err error
	verdict
}

func (e *notConnected) Error() string { return e.err.Error() }
func (e *notConnected) Unwrap() error { return e.err }

const (
	// patience is for how long a store's call waits for a server that refuses for
	// now, or cannot be reached, if its context does not end before. A cache's does
	// not wait.
	patience = 5 * time.Second
	// firstPause and longestPause are between two tries.
	firstPause   = 5 * time.Millisecond
	longestPause = 200 * time.Millisecond
)

// patiently sends something until it has been answered, or is refused for good, or
// until the outcome is not known. What only reads is sent again even then, as long as
// the error is not the context's. A refusal of what writes wraps store.ErrRefused.
func (c *client) patiently(ctx context.Context, reads bool, send func(l *link) error) error {
	refused := func(why error) error {
		if reads {
			return why
		}
		return &refusal{why}
	}
	if err := ctx.Err(); err != nil {
		return refused(err)
	}
	began := time.Now()
	pause := firstPause
	for try := 0; ; try++ {
		l, err := c.take()
		if err != nil {
			return refused(err)
		}
		err = send(l)
		l.release()
		if err == nil || valkey.IsValkeyNil(err) {
			return err
		}
		v := judged(err)
		if v == unsure && alive(ctx) && (reads || isOver(err)) {
			v = later
		}
		var renewed <-chan struct{}
		switch v {
		case unsure:
			return err
		case final:
			return refused(err)
		case later:
			if isOver(err) {
				c.renew(l, false)
				if try == 0 && alive(ctx) {
					continue
				}
			}
		case elsewhere:
			renewed = c.renew(l, true)
		}
		if time.Since(began) >= c.patience {
			return refused(err)
		}
		if !rest(ctx, pause/2+rand.N(pause), renewed) {
			return refused(fmt.Errorf("%w: %w", ctx.Err(), err))
		}
		pause = min(2*pause, longestPause)
	}
}

// isOver reports whether a context's end is the error. If that of the call is alive,
// then it was that of somebody who was making a connection, for longer than he had
// time or than a connection may take, and nothing was sent.
func isOver(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

func alive(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ctx.Err() == nil && (!ok || time.Now().Before(end))
}

// rest waits for d, or only until something has happened that is worth a try. It
// reports whether ctx is still alive then.
func rest(ctx context.Context, d time.Duration, happened <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	if happened != nil {
		select {
		case <-happened:
		case <-ctx.Done():
			return false
		}
	}
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// refusal is store.ErrRefused, and why.
type refusal struct{ why error }

func (e *refusal) Error() string   { return store.ErrRefused.Error() + ": " + e.why.Error() }
func (e *refusal) Unwrap() []error { return []error{store.ErrRefused, e.why} }

// halfDone is for an error in the second half of a call whose first half is kept:
// it is no refusal of the whole.
func halfDone(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return r.why
	}
	return err
}
