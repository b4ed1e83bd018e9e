package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

type sweep struct {
	storeFlag
	Age  time.Duration `default:"1h" help:"Only what has been over for at least this long."`
	JSON bool          `name:"json" help:"Print JSON."`
}

func (sweep) Help() string {
	return `Removes sessions and tombstones that have been over for a while, in small batches, so that a service on the same store is not held up. A service sweeps by itself; this is for cron where nothing is saved for a long time. Interrupted, it keeps what it has done. The exit status is 0 if there is nothing (more) to remove.

Examples:

    sojourn sweep --store sqlite:data/sessions.db
    sojourn sweep --age 24h --json
`
}

// sweepBatch is how many records are removed at once.
const sweepBatch = 500

func (c *sweep) Run(ctx context.Context, term terminal) (err error) {
	if c.Age < 0 {
		return usagef("--age %v is negative: a session that is not over cannot be swept", c.Age)
	}
	s, closeStore, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	sweeper, ok := s.(store.Sweeper)
	removed := 0
	if !ok {
		fmt.Fprintln(term.messages, "this kind of store removes old sessions by itself")
	} else if removed, err = c.all(ctx, sweeper, term); err != nil {
		return fmt.Errorf("after %s: %w", counted(removed, "record"), err)
	}
	if c.JSON {
		return printJSON(term.out, map[string]int{"removed": removed})
	}
	_, err = fmt.Fprintln(term.out, "removed", counted(removed, "record"))
	return err
}

func (c *sweep) all(ctx context.Context, sweeper store.Sweeper, term terminal) (removed int, err error) {
	p := newProgress(term, "record", "removed")
	defer p.done()
	for {
		n, err := sweeper.Sweep(ctx, c.Age, sweepBatch)
		removed += n
		p.add(n)
		if err != nil || n < sweepBatch {
			return removed, err
		}
	}
}

// progress prints a count, on a terminal only.
type progress struct {
	term  terminal
	thing string // the singular of what is counted
	verb  string // the action, such as "removed"
	count int
	shown time.Time
}

func newProgress(term terminal, thing, verb string) *progress {
	return &progress{term: term, thing: thing, verb: verb, shown: time.Now()}
}

func (p *progress) add(n int) {
	p.count += n
	if now := time.Now(); p.term.watching && now.Sub(p.shown) > time.Second/5 {
		p.shown = now
		fmt.Fprintf(p.term.messages, "\r%s %s ", counted(p.count, p.thing), p.verb)
	}
}

// done clears the line.
func (p *progress) done() {
	if p.term.watching {
		fmt.Fprint(p.term.messages, "\r\x1b[K")
	}
}
