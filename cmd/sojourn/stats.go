package main

import (
	"context"
	"errors"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

type stats struct {
	storeFlag
	JSON bool `name:"json" help:"Print JSON."`
}

func (stats) Help() string {
	return `Counts a store's sessions: live ones, how many of them are logged in, expired ones that were not swept yet, and the tombstones of ended ones; and the bytes that they take.

Examples:

    sojourn stats --store sqlite:data/sessions.db
    sojourn stats --json | jq .live
`
}

func (c *stats) Run(ctx context.Context, term terminal) (err error) {
	s, closeStore, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	counts, err := count(ctx, s, term)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(term.out, counts)
	}
	list := newList(term.out)
	list.line("live", counts.Live)
	list.line("  of them logged in", counts.LoggedIn)
	list.line("expired", counts.Expired)
	list.line("tombstones", counts.Ended)
	list.line("bytes of session data", counts.Bytes)
	return list.Flush()
}

// count uses the store's Count, or counts by a scan.
func count(ctx context.Context, s store.Store, term terminal) (store.Counts, error) {
	if counter, ok := s.(store.Counter); ok {
		return counter.Count(ctx)
	}
	recs, err := scan(ctx, s)
	if err != nil {
		return store.Counts{}, err
	}
	p := newProgress(term, "record", "counted")
	defer p.done()
	var c store.Counts
	now := time.Now()
	for rec, err := range recs {
		if err != nil {
			return c, err
		}
		c.Bytes += int64(len(rec.Data))
		switch r := rowOf(rec, now); r.State {
		case "ended":
			c.Ended++
		case "expired":
			c.Expired++
		default:
			c.Live++
			if r.LoggedIn {
				c.LoggedIn++
			}
		}
		p.add(1)
	}
	return c, nil
}
