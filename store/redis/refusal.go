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

// verdict is the meaning of an error for its command or script.
type verdict uint8

const (
	// unsure: it may have been carried out, at least in part.
	unsure verdict = iota
	// final: it was not carried out, and sending it again is useless.
	final
	// later: it was not carried out, and sending it again after a while may succeed.
	later
	// elsewhere is later, but on another connection: this one leads to a server
	// that refuses writes or our login.
	elsewhere
)

// refusals are the answers of Redis and Valkey after which nothing was written.
// Within a script they only come before its first write: a server checks its
// role, memory, disk and replicas when a script begins, or at its first write.
// After an answer that is not listed the outcome is unknown: ERR can come from
// a script that failed halfway.
var refusals = map[string]verdict{
	"READONLY":    elsewhere, // a replica
	"MASTERDOWN":  elsewhere, // a replica that has lost its master
	"NOAUTH":      elsewhere, // the connection is not logged in
	"REDIRECT":    elsewhere, // a replica that names its master
	"MOVED":       later,     // after too many redirections, which the client library follows
	"ASK":         later,
	"CLUSTERDOWN": later, // no node serves the slot
	"TRYAGAIN":    later, // the slot is being moved
	"LOADING":     later, // the server has just been started
	"BUSY":        later, // some script runs for too long
	"UNKILLABLE":  later,
	"NOREPLICAS":  later, // min-replicas-to-write
	"OOM":         final, // maxmemory
	"MISCONF":     final, // a snapshot or append-only file cannot be written
	"NOPERM":      final, // an ACL; see judgedText
	"WRONGPASS":   final,
	"NOPROTO":     final,
	"DENIED":      final, // protected mode
	"NOSCRIPT":    final, // then the script's text is sent
	"EXECABORT":   final,
	"CROSSSLOT":   final,
	"WRONGTYPE":   final, // each script reads its key before it writes
	"FORMAT":      final, // from our scripts
}

// withinScript is the form in which Redis before 7.0 reports an error of a
// command in a script. The library removes the ERR at its beginning.
var withinScript = regexp.MustCompile(`^Error running script .*: -?([A-Z]+) `)

// judged returns the verdict on an error. Do not call it for nil or a missing
// key.
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
		return unsure // the command may follow writes of the script
	}
	if m := withinScript.FindStringSubmatch(text); m != nil {
		text = m[1]
	}
	code, _, _ := strings.Cut(text, " ")
	return refusals[code]
}

// notConnected means that there was no connection, so nothing was sent.
type notConnected struct {
	err error
	verdict
}

func (e *notConnected) Error() string { return e.err.Error() }
func (e *notConnected) Unwrap() error { return e.err }

const (
	// patience is how long a store's call waits for a server that refuses
	// temporarily or is unreachable, if its context does not end before. A
	// cache's call does not wait.
	patience = 5 * time.Second
	// firstPause and longestPause bound the pause between two attempts.
	firstPause   = 5 * time.Millisecond
	longestPause = 200 * time.Millisecond
)

// patiently sends a call until it is answered or finally refused, or until its
// outcome is unknown. A read is sent again even then, unless the context has
// ended. The error of a refused write wraps store.ErrRefused.
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

// isOver reports whether the error is the end of a context. If the call's own
// context is alive, it was that of a connection attempt, and nothing was sent.
func isOver(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

func alive(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ctx.Err() == nil && (!ok || time.Now().Before(end))
}

// rest waits for d, or until happened is closed. It reports whether ctx is
// still alive.
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

// halfDone is for an error in the second half of a call whose first half was
// applied: it is not a refusal of the whole call.
func halfDone(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return r.why
	}
	return err
}
