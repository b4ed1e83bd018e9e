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
	cronBudget = time.Minute // the default of Cron
	cronAge    = time.Hour   // how long after its deadline a record is removed
	cronBatch  = 500
)

// Cron returns a handler, for an entry in cron.yaml, that removes sessions and
// tombstones which expired more than an hour ago. Mount it inside
// appengine.Middleware. sweeper is a [Store], or a tiered store in front of it.
//
// It removes batches of 500 until none are left or the budget is spent (0 = one
// minute; App Engine gives a request up to ten), and answers with how many it
// removed. The next call removes the rest. A failure is a 500 that gives the
// number removed before it.
//
// Only App Engine's cron service may call it: a request without the header
// X-Appengine-Cron gets a 403. App Engine removes that header from external
// requests.
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
