package memcached

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/sojourn-go/sojourn/store"
)

// refusals are memcached's answers to add and cas after which the item is
// unchanged, and their errors. (After a set for which it has no memory,
// memcached drops the old item.) After any other answer the outcome is unknown.
var refusals = []struct {
	answer string // how it begins
	means  error
}{
	{"SERVER_ERROR out of memory", store.ErrRefused},
	{"SERVER_ERROR object too large", store.ErrTooLarge}, // its -I is less than Options.MaxItem
	{"CLIENT_ERROR bad command line format", store.ErrRefused},
	{"CLIENT_ERROR bad data chunk", store.ErrRefused},
	{"ERROR", store.ErrRefused}, // no such command
}

// unexpected is the client library's text before it quotes such an answer.
const unexpected = "memcache: unexpected response line from "

// told wraps the error of a write in the error of package store for the outcome, if that is known.
func told(err error) error {
	if notSent(err) {
		return fmt.Errorf("%w: %w", store.ErrRefused, err)
	}
	if text, ok := strings.CutPrefix(err.Error(), unexpected); ok {
		_, answer, _ := strings.Cut(text, `: "`)
		for _, r := range refusals {
			if strings.HasPrefix(answer, r.answer) {
				return fmt.Errorf("%w: %w", r.means, err)
			}
		}
	}
	return err
}

// notSent reports whether nothing was sent: there was no connection, or the
// library refused.
func notSent(err error) bool {
	var late *memcache.ConnectTimeoutError
	var op *net.OpError
	return errors.As(err, &late) || errors.As(err, &op) && op.Op == "dial" ||
		errors.Is(err, memcache.ErrMalformedKey) || errors.Is(err, memcache.ErrNoServers)
}

const (
	// patience is how long a store's call waits for an unreachable server, if
	// its context does not end before.
	patience = 5 * time.Second
	// firstPause and longestPause bound the pause between two attempts to connect.
	firstPause   = 5 * time.Millisecond
	longestPause = 200 * time.Millisecond
)

// patiently repeats an idempotent call until there is an answer. After a
// restart of the server, each idle connection to it fails once.
func patiently(ctx context.Context, again func(error) bool, do func() error) error {
	began, pause := time.Now(), firstPause
	for {
		err := do()
		if err == nil || !again(err) || time.Since(began) >= patience {
			return err
		}
		if !notSent(err) {
			if ctx.Err() != nil {
				return err
			}
			continue
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
			pause = min(2*pause, longestPause)
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// unreached reports whether a read failed without an answer.
func unreached(err error) bool {
	var op *net.OpError
	return notSent(err) && !errors.Is(err, memcache.ErrMalformedKey) && !errors.Is(err, memcache.ErrNoServers) ||
		errors.As(err, &op) && !op.Timeout() || errors.Is(err, io.EOF)
}
