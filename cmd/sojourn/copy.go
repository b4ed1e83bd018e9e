package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/open"
)

// toVariable is the environment variable with the URL of the store to copy to.
const toVariable = "SOJOURN_TO"

type copyStores struct {
	storeFlag
	To       string `required:"" placeholder:"URL" env:"SOJOURN_TO" help:"The store that the sessions are to move to; made if it does not exist. Without it the environment variable SOJOURN_TO names that store."`
	State    string `placeholder:"FILE" help:"Where the progress is kept. Required, but for a dry run: one file for the whole move, from the first pass to the last."`
	Switched bool   `help:"The service uses the new store already: bring over what is left, and change nothing that the service has changed there."`
	DryRun   bool   `help:"Print what a pass would do, and do nothing."`
	Parallel int    `default:"16" help:"How many sessions are copied at the same time."`
	JSON     bool   `name:"json" help:"Print JSON."`
}

func (copyStores) Help() string {
	return `Copies live sessions from one store to another, while a service uses the first one. Visitors stay logged in: cookies, keys and session data are the same with every store.

Each run makes one pass over all sessions: it copies those that are new, replaces those that have changed, and ends those that have ended. So every pass leaves less for the next one. The order of a move:

1. Copy, as often as you like, while the service uses the old store.
2. Stop the service, and copy once more.
3. Start the service on the new store.

To move without a stop, leave out step 2, switch the replicas one by one, and copy with --switched once the last one has changed over. What is lost then are changes that a visitor made in the old store after the last pass, if he came to the new one before the --switched pass did.

Interrupted, run the same command again: it goes on where it was. The exit status is 1 if the store to copy from holds nothing at all at the first pass, or if a session was too large. Details are in docs/run/operations.md.

Examples:

    sojourn copy --store sqlite:data/sessions.db --to postgres://app@db/app --state move.json
    sojourn copy --store sqlite:data/sessions.db --to redis://cache:6379 --dry-run
`
}

func (c *copyStores) Run(ctx context.Context, term terminal) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	var move *moveState
	if c.State == "" {
		move = &moveState{}
	} else if move, err = loadMove(c.State, storeName(c.Store), storeName(c.To)); err != nil {
		return err
	}
	if err := move.mayPass(c.Switched); err != nil {
		return err
	}

	opening, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	from, closer, err := open.Existing(opening, c.Store)
	if err != nil {
		return storeError("--store", err)
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	to, closeTo, err := c.openTo(opening)
	if err != nil {
		return storeError("--to", err)
	}
	defer func() { err = errors.Join(err, closeTo()) }()

	p := &pass{from: from, to: to, move: move, dry: c.DryRun, parallel: c.Parallel, term: term}
	if c.DryRun {
		move.Current = nil // a whole pass, without saved progress
		p.keep = func() error { return nil }
	} else {
		p.keep = func() error { return move.save(c.State) }
	}
	if err := p.run(ctx, c.Switched); err != nil {
		if !errors.Is(err, errInUse) && !c.DryRun {
			err = fmt.Errorf("%w (run the same command again to go on)", err)
		}
		return err
	}
	return c.report(term, move)
}

// check finds the mistakes that need no store.
func (c *copyStores) check() error {
	if err := c.named(); err != nil {
		return err
	}
	switch {
	case c.State == "" && !c.DryRun:
		return usagef("where is the progress to be kept? Name a file with --state, such as --state move.json: one for the whole move")
	case storeName(c.Store) == storeName(c.To):
		return usagef("--store and --to are the same store")
	case c.Parallel < 1 || c.Parallel > 1000:
		return usagef("--parallel %d: use 1 to 1000", c.Parallel)
	}
	return nil
}

// openTo opens the new store. A dry run does not create one, because a new
// store is empty.
func (c *copyStores) openTo(ctx context.Context) (store.Store, func() error, error) {
	opening := open.Store
	if c.DryRun {
		opening = open.Existing
	}
	to, closer, err := opening(ctx, c.To)
	if c.DryRun && errors.Is(err, open.ErrMissing) {
		return memory.New(), func() error { return nil }, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return to, closer.Close, nil
}

func (c *copyStores) report(term terminal, move *moveState) error {
	n := move.Last
	if c.JSON {
		if err := printJSON(term.out, struct {
			Pass   int  `json:"pass"`
			DryRun bool `json:"dry_run"`
			tally
		}{move.Passes, c.DryRun, n}); err != nil {
			return err
		}
	} else {
		did := "pass"
		if c.DryRun {
			did = "dry run of pass"
		}
		list := newList(term.out)
		list.line(did, move.Passes)
		list.line("sessions and tombstones read", n.Read)
		list.line("inserted", n.Inserted)
		list.line("replaced by newer versions", n.Replaced)
		list.line("extended", n.Extended)
		list.line("ended", n.Ended)
		list.line("already there", n.Unchanged)
		list.line("left out because they are over", n.Over)
		list.line("left as the new store has them", n.Kept)
		if err := list.Flush(); err != nil {
			return err
		}
	}
	if n.TooLarge > 0 {
		return fmt.Errorf("%s too large for the new store and not copied", counted(n.TooLarge, "session"))
	}
	if n.Read == 0 && move.Passes == 1 {
		return errors.New("there was nothing to copy: the store that --store names is empty")
	}
	return nil
}
