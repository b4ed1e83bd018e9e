package main

import (
	"context"
	"errors"
	"time"
)

type show struct {
	storeFlag
	JSON   bool   `name:"json" help:"Print JSON."`
	Handle string `arg:"" help:"The session's handle, from sojourn ls or a log."`
}

func (show) Help() string {
	return `Prints what can be known about a stored session without the keys. With the keys, sojourn inspect HANDLE opens it.

Examples:

    sojourn show hviqnsuzpvktywiydtsrqst62q --store sqlite:data/sessions.db
    sojourn show hviqnsuzpvktywiydtsrqst62q --json
`
}

func (c *show) Run(ctx context.Context, term terminal) (err error) {
	s, closeStore, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	rec, err := load(ctx, s, c.Handle)
	if err != nil {
		return err
	}
	now := time.Now()
	r := rowOf(rec, now)
	if c.JSON {
		return printJSON(term.out, r)
	}
	r.print(term.out, now)
	return nil
}
