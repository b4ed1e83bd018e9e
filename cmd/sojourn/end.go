package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
)

type end struct {
	managed
	Handle string `arg:"" help:"The session's handle, from sojourn ls, sojourn user list or a log."`
	DryRun bool   `help:"Say whether the session would end, and do nothing."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (end) Help() string {
	return `Ends one live session on every replica, whether or not somebody is logged in. The exit status is 1, with the reason, if it has not ended: there is no live session with that handle, or the keys do not open it. The keys tell what else has to end with the session, such as the older cookie that it was adopted from.

Examples:

    sojourn end hviqnsuzpvktywiydtsrqst62q --store sqlite:data/sessions.db --keys data/session.keys
    sojourn end hviqnsuzpvktywiydtsrqst62q --json
`
}

func (c *end) Run(ctx context.Context, term terminal) error {
	if _, err := parseHandle(c.Handle); err != nil {
		return err
	}
	return c.with(ctx, term, func(ctx context.Context, s *site) error {
		rec, err := load(ctx, s.store, c.Handle)
		switch {
		case err != nil:
			return err
		case rec.IsEnd():
			return fmt.Errorf("the session has ended already, at %v", timestamp(rec.Ended))
		case rec.Expired(s.now.Add(-store.ClockSkew)): // it may be live by a replica's clock
			return fmt.Errorf("the session has expired already, at %v", timestamp(rec.Deadline))
		}
		if _, _, err := s.open(&rec); err != nil {
			if wrong := checkFit(ctx, s.store, s.unsealer); wrong != nil {
				return wrong
			}
			return fmt.Errorf("the session was not ended: %w", explain(err, s.name, keyID(rec.Data)))
		}
		if !c.DryRun {
			err := ops.For(s.Manager).End(ctx, c.Handle)
			if errors.Is(err, sojourn.ErrNotFound) {
				return errors.New("the session has ended meanwhile")
			}
			if err != nil {
				return err
			}
		}
		return ending{term, c.JSON, c.DryRun}.print(1)
	})
}
