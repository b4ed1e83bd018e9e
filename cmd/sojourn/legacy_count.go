package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sojourn-go/sojourn/legacy/reason"
)

type legacyCount struct {
	legacyFlags
	JSON bool `name:"json" help:"Print JSON."`
}

func (legacyCount) Help() string {
	return `Walks the store of another library, decodes every session in it, and counts those that are live, those that have expired but are still there, and those that the old library, or Sojourn, would not accept, by reason. Nothing is changed.

Sessions that live in cookies, and those in memcached, which cannot list what it holds, cannot be counted: the counters of the new service (AdoptStats) tell how many still arrive.

Examples:

    sojourn legacy count --system beaker-session --config beaker.json --from file:/var/lib/shop/sessions
    sojourn legacy count --system webapp2-ndb --config webapp2.json --from datastore://my-project --json
    sojourn legacy count --system scs --config scs.json --from postgres://shop@db/shop
`
}

// legacyTally is the result of legacy count. Its JSON form is part of the
// command's interface: see README.md.
type legacyTally struct {
	Live       int                   `json:"live"`
	Expired    int                   `json:"expired"`
	Unreadable int                   `json:"unreadable"`
	Reasons    map[reason.Reason]int `json:"reasons"` // of the unreadable ones
}

func (n *legacyTally) add(system string, err error) {
	switch why := reason.Of(err); {
	case err == nil:
		n.Live++
	case why == reason.Expired, why == reason.NotFound && system == systemSCS: // scs's stores hide expired sessions
		n.Expired++
	default:
		n.Unreadable++
		n.Reasons[why]++
	}
}

func (c *legacyCount) Run(ctx context.Context, term terminal) (err error) {
	from, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.close()) }()
	n := legacyTally{Reasons: map[reason.Reason]int{}}
	shown := newProgressLine(term)
	for it, err := range from.list {
		if err != nil {
			return err
		}
		_, _, err = from.read(ctx, it, time.Now())
		if err != nil && reason.Of(err) == "" {
			return err
		}
		n.add(c.System, err)
		shown.show(func() string { return fmt.Sprintf("counting: %d live, %d expired", n.Live, n.Expired) })
	}
	shown.done()
	if ctx.Err() != nil {
		return fmt.Errorf("after %s: %w", counted(n.Live+n.Expired+n.Unreadable, "session"), ctx.Err())
	}
	if c.JSON {
		return printJSON(term.out, n)
	}
	list := newList(term.out)
	list.line("live", n.Live)
	list.line("expired, and still stored", n.Expired)
	list.line("unreadable", n.Unreadable)
	for _, why := range slices.Sorted(maps.Keys(n.Reasons)) {
		list.line("  "+string(why), n.Reasons[why])
	}
	return list.Flush()
}

// progressLine prints progress: by rewriting one line on a terminal, and
// occasionally as a new line for a log.
type progressLine struct {
	term  terminal
	shown time.Time
}

func newProgressLine(term terminal) *progressLine { return &progressLine{term, time.Now()} }

func (p *progressLine) show(line func() string) {
	every := 10 * time.Second
	if p.term.watching {
		every = time.Second / 5
	}
	now := time.Now()
	if now.Sub(p.shown) < every {
		return
	}
	p.shown = now
	if p.term.watching {
		fmt.Fprintf(p.term.messages, "\r\x1b[K%s", line())
	} else {
		fmt.Fprintln(p.term.messages, line())
	}
}

// done clears the progress line.
func (p *progressLine) done() {
	if p.term.watching {
		fmt.Fprint(p.term.messages, "\r\x1b[K")
	}
}
