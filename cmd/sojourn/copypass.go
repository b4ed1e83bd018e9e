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

// A pass makes the new store hold what the old one holds. While the service
// uses the old store, everything in the new one came from earlier passes, so it
// can be replaced, and what is not in the old store any more has ended. Once the
// service uses the new store that is not so: a pass after the switch only adds
// what no earlier pass can have seen, and only replaces what the old store's
// record was provably made from.
type pass struct {
	from, to store.Store
	move     *moveState
	keep     func() error // keeps move
	dry      bool
	parallel int
	term     terminal

	mu    sync.Mutex // guards counts
	count tally
	shown time.Time
	step  string
}

// tally is what a pass has done so far, in its JSON form.
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

// errInUse says that the new store was changed by somebody else.
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
		// Before anything is changed, and at every start.
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

// notUsed refuses a new store that holds sessions: before the first pass nothing
// in it can have come from here.
func (p *pass) notUsed(store.Record) error { return errInUse }

// cameFromHere refuses a session that somebody has used in the new store:
// nothing that a pass has copied was seen after that pass.
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

// callTime bounds what is done for one session, or for one page of them: not
// every store gives up by itself.
const callTime = time.Minute

func scanPage(ctx context.Context, s store.Scanner, cursor string) ([]store.Record, string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return s.Scan(ctx, cursor, pageSize)
}

// restarts is how often a walk may begin again because the servers have
// changed.
const restarts = 5

// walk calls f for all records of a store, many at a time, from where the pass
// was interrupted.
func (p *pass) walk(ctx context.Context, s store.Scanner, f func(context.Context, store.Record) error) error {
	current := p.move.Current
	for again := 0; ; {
		recs, next, err := scanPage(ctx, s, current.Cursor)
		if errors.Is(err, redis.ErrScanCursor) && current.Cursor != "" && again < restarts {
			// Looking at a record again does no harm.
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

// checkOne looks for what became of a session that an earlier pass has copied.
// One that the old store does not have any more has ended there, and its end
// mark may be gone.
func (p *pass) checkOne(ctx context.Context, there store.Record) error {
	now := time.Now()
	if there.IsEnd() || there.Expired(now) {
		return nil
	}
	_, err := p.from.Load(ctx, there.ID)
	if errors.Is(err, store.ErrNotFound) {
		return p.end(ctx, there.ID, now)
	}
	return err // whatever it is now, copying comes next
}

// copyOne brings one record of the old store to the new one.
func (p *pass) copyOne(ctx context.Context, rec store.Record) error {
	p.counted(&p.count.Read)
	// Another writer may be faster a few times, never many: the new store's
	// record only changes with its visitor's requests.
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
	case rec.Expired(now):
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
		rec.Shorten = true // a visitor's new expiry may be sooner
		return p.write(ctx, &p.count.Replaced, rec, there.Base())
	case switched:
		p.counted(&p.count.Kept)
		return nil
	default:
		return errInUse
	}
}

// isOlder reports whether rec was made from what the new store has.
func (p *pass) isOlder(there, rec store.Record) bool {
	if rec.HasSaveID(there.Base().SaveID) {
		return true
	}
	// Changed so often that the save ID has fallen out. Only before the switch does
	// that mean that nobody else has changed it.
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

// extend brings over activity that changed nothing else.
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

// insertEnd copies a tombstone whole: that of a link's note names a user, which
// Delete would leave out.
func (p *pass) insertEnd(ctx context.Context, rec store.Record) error {
	rec.Deadline = endUntil(rec.Deadline)
	if rec.Expires.Before(rec.Deadline) {
		rec.Expires = rec.Deadline
	}
	return p.write(ctx, &p.count.Ended, rec, store.Base{})
}

// endUntil is until when a tombstone is kept that the old store keeps until then.
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

// progress says how far the pass is: on one line for somebody who watches, and
// now and then on a line of its own for a log.
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

// say prints a message that stays.
func (p *pass) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done()
	fmt.Fprintln(p.term.messages, text)
}

// done clears the line of progress.
func (p *pass) done() {
	if p.term.watching {
		fmt.Fprint(p.term.messages, "\r\x1b[K")
	}
}
