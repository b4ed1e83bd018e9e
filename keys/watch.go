package keys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sojourn-go/sojourn/internal/seal"
)

// ErrIndexKey means that a new set of keys was refused because it would change
// the index key, so that users' existing sessions could not be found: its index
// entry differs, or it has none and its oldest key differs.
var ErrIndexKey = errors.New("sojourn: the key that finds users' sessions has changed")

// ErrSealingKey means that a new set of keys was refused because it does not
// have the key that seals now: recently sealed data could not be opened.
// Activate another key first, in a set that has both.
var ErrSealingKey = errors.New("sojourn: the key that seals now is not among the new keys")

// Info describes one key of a [Ring], without its secret.
type Info struct {
	ID      string // public ID, 8 hexadecimal digits; sealed data names it
	State   string // "published", "active" or "retired"
	Created time.Time
	Seals   bool // it is the key that seals: the newest active one
}

// Keys describes the current keys, in the order of the file.
func (k *Ring) Keys() []Info {
	ring := k.current()
	if ring == nil {
		return nil
	}
	var infos []Info
	for _, key := range ring.Keys() {
		infos = append(infos, Info{key.ID, key.State.String(), key.Created, key.Seals})
	}
	return infos
}

// Replace replaces the keys in use by those in text, in every manager that has
// this ring, without a restart. On an error the ring is unchanged. A text with
// another index key is [ErrIndexKey].
//
// To change keys in many processes without logging users out, publish the new
// key everywhere, then make it active everywhere, and remove the old key once
// no session is left that it sealed. The guide has the procedure.
func (k *Ring) Replace(text string) error {
	ring, err := seal.ParseKeys(text)
	if err != nil {
		return fmt.Errorf("sojourn: replacing keys: %w", err)
	}
	for {
		old := k.current()
		if old != nil {
			if !ring.Continue(old) {
				return fmt.Errorf("sojourn: replacing keys: %w", ErrIndexKey)
			}
			if !ring.CanOpenNewest(old) {
				return fmt.Errorf("sojourn: replacing %v: %w", old, ErrSealingKey)
			}
		}
		if k.ring.CompareAndSwap(old, ring) {
			return nil
		}
	}
}

// defaultInterval is how often watched keys are read.
const defaultInterval = 10 * time.Second

// WatchFile calls [LoadFile] and then applies the file's changes until ctx
// ends. It checks the file every interval (0 = 10 seconds), so wait at least
// that long between the stages of a key change. A file that cannot be used,
// such as a partly written one, is logged as an error, and the keys in use
// stay; see [Ring.Replace]. A nil logger is slog.Default().
func WatchFile(ctx context.Context, path string, interval time.Duration, logger *slog.Logger) (*Ring, error) {
	if logger == nil {
		logger = slog.Default()
	}
	if _, err := loadOrMake(path, logger); err != nil { // made when missing
		return nil, err
	}
	return Watch(ctx, interval, logger, func(context.Context) (string, error) { return readFile(path) })
}

// Watch makes a Ring of the text that load returns, and calls load again every
// interval (0 = 10 seconds) until ctx ends: for keys from a key management
// service. If the first load fails or returns keys that cannot be used, Watch
// returns an error. Later failures are logged, and the keys in use stay. A nil
// logger is slog.Default().
func Watch(ctx context.Context, interval time.Duration, logger *slog.Logger, load func(context.Context) (string, error)) (*Ring, error) {
	if interval < 0 {
		return nil, fmt.Errorf("sojourn: watching keys: the interval %v is negative", interval)
	}
	if interval == 0 {
		interval = defaultInterval
	}
	if logger == nil {
		logger = slog.Default()
	}
	text, err := load(ctx)
	if err != nil {
		return nil, fmt.Errorf("sojourn: loading keys: %w", err)
	}
	ring, err := Parse(text)
	if err != nil {
		return nil, err
	}
	go ring.watch(ctx, interval, logger, text, load)
	return ring, nil
}

func (k *Ring) watch(ctx context.Context, interval time.Duration, logger *slog.Logger, last string, load func(context.Context) (string, error)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	failing := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		once, cancel := context.WithTimeout(ctx, max(interval, time.Second))
		text, err := load(once)
		cancel()
		if err == nil && text != last {
			if err = k.Replace(text); err == nil {
				last = text
				logger.Info("session keys were reloaded", slog.String("keys", k.String()))
			}
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failing = ""
		case err.Error() != failing: // not every time
			failing = err.Error()
			logger.Error("session keys could not be reloaded; those in use stay", slog.Any("error", err))
		}
	}
}
