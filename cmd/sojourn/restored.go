package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

type restored struct {
	storeFlag
	Before time.Time `placeholder:"TIME" help:"Only sessions that began before this time, such as 2026-11-20T15:00:00Z: the time of the restore, if the service has been running since."`
	DryRun bool      `help:"Say how many sessions would end, and do nothing."`
	JSON   bool      `name:"json" help:"Print JSON."`
}

func (restored) Help() string {
	return `Ends all logged-in sessions of a store. Run it after you have restored the store from a backup. A backup does not have the logouts and revocations that came after it, so those sessions are live again, also for a thief of a cookie. With this command, every user logs in again. Anonymous visitors keep their sessions.

Run it before the service is started on the restored store, or, if it runs already, with the time of the restore as --before. It can be run again; interrupted, it keeps what it has done. The exit status is 1 if there was no session to end.

Examples:

    sojourn restored --store sqlite:data/sessions.db
    sojourn restored --store postgres://app@db/app --before 2026-11-20T15:00:00Z --dry-run
`
}

// endAtOnce is how many sessions are ended at the same time.
const endAtOnce = 16

func (c *restored) Run(ctx context.Context, term terminal) (err error) {
	db, closeStore, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	recs, err := scan(ctx, db)
	if err != nil {
		return err
	}

	now := time.Now()
	verb := "ended"
	if c.DryRun {
		verb = "to end"
	}
	p := newProgress(term, "session", verb)
	var mu sync.Mutex
	var busy sync.WaitGroup
	var failed error
	count := 0
	slots := make(chan struct{}, endAtOnce)
	broken := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return failed != nil
	}
	for rec, scanErr := range recs {
		if scanErr != nil {
			err = scanErr
			break
		}
		if broken() {
			break
		}
		// An expired session may be live by a replica's clock.
		if rec.User == (store.UserHash{}) || rec.IsEnd() || !c.Before.IsZero() && !rec.Created.Before(c.Before) {
			continue
		}
		slots <- struct{}{}
		busy.Go(func() {
			defer func() { <-slots }()
			var one error
			if !c.DryRun {
				// A cookie with the inline session may exist for the session's maximum lifetime.
				until := now.Add(store.MinTombstone)
				if rec.Expires.After(until) {
					until = rec.Expires
				}
				one = db.Delete(ctx, rec.ID, until)
			}
			mu.Lock()
			defer mu.Unlock()
			if one != nil {
				failed = one
				return
			}
			count++
			p.add(1)
		})
	}
	busy.Wait()
	p.done()
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("after %s: %w (run the same command again to go on)", counted(count, "session"), err)
	}
	if count == 0 {
		if !c.Before.IsZero() {
			return errors.New("no session to end: nobody who is logged in has a session that began before that time")
		}
		return errors.New("no session to end: nobody is logged in in this store")
	}
	return ending{term, c.JSON, c.DryRun}.print(count)
}
