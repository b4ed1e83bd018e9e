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

// refusals are memcached's answers to add and cas that say that the item is as it
// was, and what they mean here. (After a set that it has no memory for, memcached
// drops the old item.) Any other answer leaves the outcome open.
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

// unexpected is what the client library says before it quotes such an answer.
const unexpected = "memcache: unexpected response line from "

// told wraps the error of a write in what it means for the item, if that is sure.
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

// notSent reports whether nothing was sent: there is no connection, or the library
// has refused.
func notSent(err error) bool {
	var late *memcache.ConnectTimeoutError
	var op *net.OpError
	return errors.As(err, &late) || errors.As(err, &op) && op.Op == "dial" ||
		errors.Is(err, memcache.ErrMalformedKey) || errors.Is(err, memcache.ErrNoServers)
}

const (
	// patience is for how long a store's call waits for a server that cannot be
	// reached, if its context does not end before.
	patience = 5 * time.Second
	// firstPause and longestPause are between two tries to connect.
	firstPause   = 5 * time.Millisecond
	longestPause = 200 * time.Millisecond
)

// patiently does something that may be done twice until there is an answer. After a
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

// unreached reports whether a read failed on its way.
func unreached(err error) bool {
	var op *net.OpError
	return notSent(err) && !errors.Is(err, memcache.ErrMalformedKey) && !errors.Is(err, memcache.ErrNoServers) ||
		errors.As(err, &op) && !op.Timeout() || errors.Is(err, io.EOF)
}
