package gae

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

const (
	cronBudget = time.Minute // Cron's, where none is given
	cronAge    = time.Hour   // what is over for that long is removed
	cronBatch  = 500
)

// Cron returns a handler that removes sessions and tombstones which were over
// for more than an hour, for an entry in cron.yaml. It belongs inside of
// appengine.Middleware. sweeper is a [Store], or a tiered store in front of it.
//
// It removes batches of 500 until none are left or the budget is spent (0 = one
// minute; App Engine gives a request up to ten), and answers with how many it
// removed. What it did not get to is for the next call. A failure is a 500,
// which says how many were removed before it.
//
// Only App Engine's cron service may call it: a request without its header
// X-Appengine-Cron gets a 403. App Engine removes that header from requests
// that come from outside.
func Cron(sweeper store.Sweeper, budget time.Duration) http.Handler {
	if budget == 0 {
		budget = cronBudget
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if r.Header.Get("X-Appengine-Cron") != "true" {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintln(w, "this is for App Engine's cron service")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), budget)
		defer cancel()
		removed := 0
		for {
			n, err := sweeper.Sweep(ctx, cronAge, cronBatch)
			removed += n
			switch {
			case err == nil && n == cronBatch && ctx.Err() == nil:
				continue
			case err == nil && n < cronBatch:
				fmt.Fprintf(w, "removed %d; none are left\n", removed)
			case ctx.Err() != nil && r.Context().Err() == nil:
				fmt.Fprintf(w, "removed %d; the time is up, more may be left\n", removed)
			case errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, ErrNoRequest):
				fmt.Fprintln(w, "removed 0; the store removes old sessions by itself")
			default:
				w.WriteHeader(http.StatusInternalServerError)
				fmt.Fprintf(w, "removed %d, then: %v\n", removed, err)
			}
			return
		}
	})
}
