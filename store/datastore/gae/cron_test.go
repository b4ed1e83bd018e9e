package gae_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store/datastore/gae"
)

// sweeps is a store with something to sweep.
type sweeps func(ctx context.Context, limit int) (int, error)

func (f sweeps) Sweep(ctx context.Context, age time.Duration, limit int) (int, error) {
	if age != time.Hour {
		return 0, fmt.Errorf("age %v", age)
	}
	return f(ctx, limit)
}

func TestCron(t *testing.T) {
	left := func(n int) sweeps {
		return func(_ context.Context, limit int) (int, error) {
			batch := min(n, limit)
			n -= batch
			return batch, nil
		}
	}
	for _, c := range []struct {
		name   string
		header string
		sweeps sweeps
		budget time.Duration
		status int
		body   string
	}{
		{"works in batches until none are left", "true", left(1234), 0, 200, "removed 1234; none are left"},
		{"is done when there is nothing", "true", left(0), 0, 200, "removed 0; none are left"},
		{"asks once more after a full batch", "true", left(500), 0, 200, "removed 500; none are left"},
		{"stops when its budget is spent", "true", func(ctx context.Context, limit int) (int, error) {
			<-ctx.Done()
			return limit / 2, ctx.Err()
		}, time.Millisecond, 200, "removed 250; the time is up, more may be left"},
		{"stops between batches when its budget is spent", "true", func(ctx context.Context, limit int) (int, error) {
			<-ctx.Done()
			return limit, nil
		}, time.Millisecond, 200, "removed 500; the time is up, more may be left"},
		{"says what failed, and what was removed before", "true", func(context.Context, int) (int, error) {
			return 7, errors.New("no luck")
		}, 0, 500, "removed 7, then: no luck"},
		{"accepts stores that need no sweep", "true", func(context.Context, int) (int, error) {
			return 0, fmt.Errorf("sweep: %w", errors.ErrUnsupported)
		}, 0, 200, "removed 0; the store removes old sessions by itself"},
		{"notices that it is outside of the middleware", "true", func(context.Context, int) (int, error) {
			return 0, fmt.Errorf("%w: %w", gae.ErrNoRequest, errors.ErrUnsupported)
		}, 0, 500, "removed 0, then: " + gae.ErrNoRequest.Error()},
		{"refuses everybody else", "", left(1), 0, 403, "this is for App Engine's cron service"},
		{"refuses another value", "false", left(1), 0, 403, "this is for App Engine's cron service"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/tasks/sweep", nil)
			if c.header != "" {
				r.Header.Set("X-AppEngine-Cron", c.header)
			}
			w := httptest.NewRecorder()
			gae.Cron(c.sweeps, c.budget).ServeHTTP(w, r)
			if body := strings.TrimSpace(w.Body.String()); w.Code != c.status || !strings.HasPrefix(body, c.body) {
				t.Errorf("the answer is %d %q, want %d %q", w.Code, body, c.status, c.body)
			}
		})
	}
}
