package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/redis"
)

// A pass copies the old store to the new one. While the service uses the old
// store, everything in the new store came from earlier passes, so it can be
// replaced, and sessions that are no longer in the old store have ended. After
// the switch this does not hold: then a pass only adds sessions that no earlier
// pass can have seen, and only replaces a record if the old store's record was
// provably made from it.
type pass struct {
	from, to store.Store
	move     *moveState
	keep     func() error // saves move
	dry      bool
	parallel int
	term     terminal

	mu    sync.Mutex // guards counts
	count tally
	shown time.Time
	step  string
}

// tally is the counts of a pass so far, in its JSON form.
type tally struct {
	Read      int `json:"read"`
	Inserted  int `json:"inserted"`
	Replaced  int `json:"replaced"`
	Extended  int `json:"extended"`
	Ended     int `json:"ended"`
	Unchanged int `json:"unchanged"`
	Over      int `json:"over"`
	Kept      int `json:"kept"`
	TooLarge  int `json:"too_large"`
}

// errInUse means that another program has changed the new store.
var errInUse = errors.New("the new store has sessions that no pass has put there: if the service uses it already, copy with --switched; otherwise start with an empty store and a new --state file")

// clocks is how much the clocks of replicas may differ.
const clocks = time.Minute

func (p *pass) run(ctx context.Context, switched bool) error {
	fromScan, ok := p.from.(store.Scanner)
	if !ok {
		return errors.New("the old store cannot list its sessions, so they cannot be copied")
	}
	toScan, ok := p.to.(store.Scanner)
	if !ok {
		return errors.New("the new store cannot list its sessions, so nobody could tell which have to end")
	}
	p.shown = time.Now()
	if p.move.Current == nil || p.move.Current.Switched != switched {
		p.move.Current = &passState{Started: time.Now().UTC(), Switched: switched}
		if p.move.Passes > 0 && !switched {
			p.move.Current.Step = stepCheck
		}
		if p.move.Passes == 0 {
			if err := p.eachOf(ctx, toScan, p.notUsed); err != nil {
				return err
			}
		}
	}
	current := p.move.Current
	p.count = current.Tally
	if err := p.keep(); err != nil {
		return err
	}
	if current.Step == stepCheck {
		// Check before every start, before any change.
		if err := p.eachOf(ctx, toScan, p.cameFromHere); err != nil {
			return err
		}
		p.step = "checking"
		if err := p.walk(ctx, toScan, p.checkOne); err != nil {
			return err
		}
		current.Step, current.Cursor = stepCopy, ""
	}
	p.step = "copying"
	if err := p.walk(ctx, fromScan, p.copyOne); err != nil {
		return err
	}
	p.done()
	p.move.finish(p.count)
	return p.keep()
}

// notUsed refuses a new store with sessions: before the first pass they cannot
// be copies.
func (p *pass) notUsed(store.Record) error { return errInUse }

// cameFromHere refuses a session that was used in the new store: a copied
// session was last seen before its pass.
func (p *pass) cameFromHere(there store.Record) error {
	if there.Seen.After(p.move.Finished.Add(clocks)) {
		return errInUse
	}
	return nil
}

// eachOf calls f for the live sessions of a store until it returns an error.
func (p *pass) eachOf(ctx context.Context, s store.Scanner, f func(store.Record) error) error {
	now := time.Now()
	for cursor := ""; ; {
		recs, next, err := scanPage(ctx, s, cursor)
		if err != nil {
			return err
		}
		for _, rec := range recs {
			if rec.IsEnd() || rec.Expired(now) {
				continue
			}
			if err := f(rec); err != nil {
				return err
			}
		}
		if cursor = next; cursor == "" {
			return nil
		}
	}
}

// callTime bounds the work for one session or one page, because not every store
// has its own timeout.
const callTime = time.Minute

func scanPage(ctx context.Context, s store.Scanner, cursor string) ([]store.Record, string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return s.Scan(ctx, cursor, pageSize)
}

// restarts is how often a walk may restart after the servers have changed.
const restarts = 5

// walk calls f for all records of a store, many at a time, from where the pass
// was interrupted.
func (p *pass) walk(ctx context.Context, s store.Scanner, f func(context.Context, store.Record) error) error {
	current := p.move.Current
	for again := 0; ; {
		recs, next, err := scanPage(ctx, s, current.Cursor)
		if errors.Is(err, redis.ErrScanCursor) && current.Cursor != "" && again < restarts {
			// Visiting a record again is harmless.
			p.say("the servers of the store have changed: the walk begins again")
			current.Cursor = ""
			again++
			continue
		}
		if err != nil {
			return err
		}
		if err := p.all(ctx, recs, f); err != nil {
			return err
		}
		p.progress()
		current.Cursor, current.Tally = next, p.count
		if next == "" {
			return nil
		}
		if err := p.keep(); err != nil {
			return err
		}
	}
}

// all calls f for the records, several at a time, and returns the first error.
func (p *pass) all(ctx context.Context, recs []store.Record, f func(context.Context, store.Record) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, p.parallel)
	var running sync.WaitGroup
	for _, rec := range recs {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		running.Go(func() {
			defer func() { <-slots }()
			ctx, done := context.WithTimeout(ctx, callTime)
			defer done()
			if err := f(ctx, rec); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

func (p *pass) counted(n *int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*n++
}

// checkOne checks a session that an earlier pass has copied. If the old store
// no longer has it, it has ended there, and its tombstone may be gone.
func (p *pass) checkOne(ctx context.Context, there store.Record) error {
	now := time.Now()
	if there.IsEnd() || there.Expired(now) {
		return nil
	}
	_, err := p.from.Load(ctx, there.ID)
	if errors.Is(err, store.ErrNotFound) {
		return p.end(ctx, there.ID, now)
	}
	return err // copying handles the current record
}

// copyOne copies one record of the old store to the new one.
func (p *pass) copyOne(ctx context.Context, rec store.Record) error {
	p.counted(&p.count.Read)
	// A few conflicts are possible, but not many: the new store's record only
	// changes with its visitor's requests.
	const tries = 10
	var err error
	for range tries {
		if err = p.try(ctx, rec); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return err
}

func (p *pass) try(ctx context.Context, rec store.Record) error {
	now := time.Now()
	there, err := p.to.Load(ctx, rec.ID)
	missing := errors.Is(err, store.ErrNotFound)
	if err != nil && !missing {
		return err
	}
	switched := p.move.Current.Switched
	switch {
	case rec.IsEnd():
		if (missing || there.IsEnd() || there.Expired(now)) && !rec.Deadline.After(now) {
			p.counted(&p.count.Over)
			return nil
		}
		if !missing && there.IsEnd() && !rec.Deadline.After(there.Deadline) {
			p.counted(&p.count.Unchanged)
			return nil
		}
		if missing {
			return p.insertEnd(ctx, rec)
		}
		return p.end(ctx, rec.ID, rec.Deadline)
	case rec.Expired(now) && (missing || there.Expired(now)):
		p.counted(&p.count.Over)
		return nil
	case missing || there.Expired(now):
		if switched && rec.Created.Before(p.move.Started) {
			// An earlier pass has copied it, and it has ended since.
			p.counted(&p.count.Kept)
			return nil
		}
		return p.write(ctx, &p.count.Inserted, rec, store.Base{})
	case there.IsEnd():
		p.counted(&p.count.Kept)
		return nil
	case there.Base() == rec.Base():
		return p.extend(ctx, rec, there)
	case p.isOlder(there, rec):
		rec.Shorten = true // a visitor's new expiry may be earlier
		return p.write(ctx, &p.count.Replaced, rec, there.Base())
	case switched:
		p.counted(&p.count.Kept)
		return nil
	default:
		return errInUse
	}
}

// isOlder reports whether rec was made from the new store's record.
func (p *pass) isOlder(there, rec store.Record) bool {
	if rec.HasSaveID(there.Base().SaveID) {
		return true
	}
	// After many changes the save ID is no longer in the list. Only before the
	// switch does this prove that no other program has changed it.
	return !p.move.Current.Switched && rec.Version >= there.Version+store.RecentSaveIDs
}

// write saves rec over the state named by base.
func (p *pass) write(ctx context.Context, n *int, rec store.Record, base store.Base) error {
	if !p.dry {
		err := p.to.Save(ctx, rec, base)
		if errors.Is(err, store.ErrTooLarge) {
			p.say(fmt.Sprintf("session %s is too large for the new store: %d bytes", rec.ID, len(rec.Data)))
			p.counted(&p.count.TooLarge)
			return nil
		}
		if err != nil {
			return err
		}
	}
	p.counted(n)
	return nil
}

// extend copies activity that changed nothing else.
func (p *pass) extend(ctx context.Context, rec, there store.Record) error {
	if !rec.Seen.After(there.Seen) && !rec.Deadline.After(there.Deadline) {
		p.counted(&p.count.Unchanged)
		return nil
	}
	toucher, ok := p.to.(store.Toucher)
	if !ok {
		return p.write(ctx, &p.count.Extended, rec, there.Base())
	}
	if !p.dry {
		if err := toucher.Touch(ctx, rec.ID, rec.Seen, rec.Deadline); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	p.counted(&p.count.Extended)
	return nil
}

// insertEnd copies a complete tombstone: that of a link's note has a user,
// which Delete would drop.
func (p *pass) insertEnd(ctx context.Context, rec store.Record) error {
	rec.Deadline = endUntil(rec.Deadline)
	if rec.Expires.Before(rec.Deadline) {
		rec.Expires = rec.Deadline
	}
	return p.write(ctx, &p.count.Ended, rec, store.Base{})
}

// endUntil is until when to keep a copied tombstone, given the old store's deadline.
func endUntil(until time.Time) time.Time {
	if least := time.Now().Add(store.MinTombstone); until.Before(least) {
		return least
	}
	return until
}

// end ends a session in the new store.
func (p *pass) end(ctx context.Context, id store.ID, until time.Time) error {
	until = endUntil(until)
	if !p.dry {
		if err := p.to.Delete(ctx, id, until); err != nil {
			return err
		}
	}
	p.counted(&p.count.Ended)
	return nil
}

// progress prints the pass's progress: by rewriting one line on a terminal, and
// occasionally as a new line for a log.
func (p *pass) progress() {
	every := 10 * time.Second
	if p.term.watching {
		every = time.Second / 5
	}
	now := time.Now()
	if now.Sub(p.shown) < every {
		return
	}
	p.shown = now
	line := fmt.Sprintf("%s: %d read, %d inserted, %d replaced, %d ended", p.step, p.count.Read, p.count.Inserted, p.count.Replaced, p.count.Ended)
	if p.term.watching {
		fmt.Fprintf(p.term.messages, "\r\x1b[K%s", line)
	} else {
		fmt.Fprintln(p.term.messages, line)
	}
}

// say prints a message that progress does not overwrite.
func (p *pass) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done()
	fmt.Fprintln(p.term.messages, text)
}

// done clears the progress line.
func (p *pass) done() {
	if p.term.watching {
		fmt.Fprint(p.term.messages, "\r\x1b[K")
	}
}
