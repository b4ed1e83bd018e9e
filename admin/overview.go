package admin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// probeTimeout bounds each call that the overview makes to the store.
const probeTimeout = 2 * time.Second

// overviewPage is the data of the overview.
type overviewPage struct {
	Manager  string // Config.Name
	Time     time.Time
	Problems []problem // empty = none

	Stored  bool // the manager has a store
	Counted counted

	Recording bool
	Span      string
	Spans     []span
	Charts    charts

	Tiers []tier
	Sweep sweepStatus
	Stats []statGroup
}

// tier is one place where sessions or copies of them are kept.
type tier struct {
	Name, Role string
	Good       bool
	State      string
	Problem    problem
	Latency    string // of one call; "" = none was made
}

type sweepStatus struct {
	Possible bool      // the store needs sweeping
	Due      time.Time // by this process
	Removed  uint64    // by this process
}

func (d *dashboard) overview(w http.ResponseWriter, r *http.Request) {
	now := d.now()
	watched := ops.For(d.m)
	stats := watched.Stats()
	p := overviewPage{
		Manager: watched.Name(),
		Time:    now,
		Sweep:   sweepStatus{!watched.SweepDue().IsZero(), watched.SweepDue(), stats.Swept},
		Stats:   statGroups(stats),
	}
	if db := watched.Store(); db != nil {
		p.Stored = true
		p.Tiers = d.look(r.Context(), db)
		p.Counted = d.count(r.Context(), db)
	}
	if rec := d.o.Recorder; rec != nil {
		p.Recording, p.Spans = true, spans()
		chosen := p.Spans[0]
		if i := slices.IndexFunc(p.Spans, func(s span) bool { return s.Name == r.URL.Query().Get("span") }); i >= 0 {
			chosen = p.Spans[i]
		}
		p.Span = chosen.Name
		p.Charts = draw(rec, now, chosen)
	}
	p.Problems = problems(p)
	d.show(w, r, http.StatusOK, "overview", "Overview", p)
}

// counted is the result of counting the store's records.
type counted struct {
	At      time.Time
	Counts  store.Counts
	Problem string // why there are no Counts; "" = none
	Failed  bool   // because the store did not answer
}

// Anonymous is the number of live sessions without a user.
func (c counted) Anonymous() int64 { return c.Counts.Live - c.Counts.LoggedIn }

// count counts the store's records, or returns a recent count.
func (d *dashboard) count(ctx context.Context, db store.Store) counted {
	counter, ok := db.(store.Counter)
	switch {
	case !ok:
		return counted{Problem: "This store cannot count its records."}
	case d.o.CountEvery < 0:
		return counted{Problem: "Counting is switched off."}
	}
	d.counting.Lock()
	defer d.counting.Unlock()
	if now := d.now(); d.counted.At.IsZero() || now.Sub(d.counted.At) >= d.o.CountEvery {
		// Other requests wait for the result, so the count continues when this request ends.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
		defer cancel()
		c, err := counter.Count(ctx)
		d.counted = counted{At: now, Counts: c}
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			d.counted.Problem = "This store cannot count its records."
		case err != nil:
			d.counted.Problem, d.counted.Failed = "The store did not answer in time.", true
			d.logger.WarnContext(ctx, "operators' dashboard: counting", slog.Any("error", err))
		}
	}
	return d.counted
}

// countAgain makes the next page count again, because something was ended.
func (d *dashboard) countAgain() {
	d.counting.Lock()
	defer d.counting.Unlock()
	d.counted = counted{}
}

// look returns the state of the store and the caches in front of it. It makes
// one call to the store, and pings it if it can.
func (d *dashboard) look(ctx context.Context, db store.Store) []tier {
	var tiers []tier
	role := "store"
	if layered, ok := db.(interface{ Health() []tiered.Health }); ok {
		role = "store, behind the caches"
		for _, h := range layered.Health() {
			age := h.MaxStale
			if h.Unheard > 0 && !h.Heard {
				age = h.Unheard
			}
			t := tier{Name: h.Name, Role: fmt.Sprintf("cache, copies up to %v old", age), Good: h.Reachable, State: "reachable"}
			if h.Unheard > 0 && !h.Heard {
				t.Problem = problem{"The cache “" + h.Name + "” does not learn of sessions that end elsewhere.", "Until it does, it keeps copies for " + age.String() + " only, and the store gets more reads.", "Check that the store's feed of ends works: the log has its errors."}
			}
			if age < h.MaxStale {
				t.Role += ", because it does not learn of ends elsewhere"
			}
			if !h.Reachable {
				t.State = "passed over since a failure"
				t.Problem = problem{"The cache “" + h.Name + "” cannot be reached.", "Sessions are read from the store instead, which gets more reads.", "Check that the cache runs and that this process can connect to it."}
			}
			if h.Errors > 0 {
				t.State += ", " + plural(int(h.Errors), "failed call")
			}
			tiers = append(tiers, t)
		}
	}
	t := tier{Name: d.o.StoreName, Role: role}
	if t.Name == "" {
		t.Name = kindOf(db)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var id store.ID
	_, _ = rand.Read(id[:]) // never fails
	began := time.Now()
	_, err := db.Load(ctx, id) // of a record that does not exist
	took := time.Since(began)
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	if pinger, ok := db.(interface{ Ping(context.Context) error }); ok && err == nil {
		err = pinger.Ping(ctx)
	}
	if err != nil {
		d.logger.WarnContext(ctx, "operators' dashboard: the store fails", slog.Any("error", err))
	}
	switch {
	case err == nil:
		t.Good, t.State = true, "answers"
		t.Latency = latency(took)
	case errors.Is(err, context.DeadlineExceeded):
		t.State = "did not answer within " + probeTimeout.String()
	default:
		t.State = "fails; the log says why"
	}
	if !t.Good {
		t.Problem = problem{"The store “" + t.Name + "” " + t.State + ".", "Visitors with a session get errors.", "Check that the store runs and that this process can connect to it. The error is in the log, as “the store fails”."}
	}
	return append(tiers, t)
}

// kindOf is the package that a store's type is from, such as "sqlite".
func kindOf(db store.Store) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(reflect.TypeOf(db).String(), "*"), ".")
	return name
}

func latency(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

func isHandle(s string) bool {
	_, err := store.ParseID(s)
	return err == nil
}

// value is one value of a session, for display.
type value struct{ Name, Text string }

// maxValue bounds how much of a value is shown, in bytes.
const maxValue = 2000

// readable writes values as JSON where that is possible.
func readable(values map[string]any) []value {
	var out []value
	for name, v := range values {
		var text string
		if b, ok := v.([]byte); ok {
			text = "hex " + hex.EncodeToString(b)
		} else if j, err := json.MarshalIndent(v, "", "  "); err == nil {
			text = string(j)
		} else {
			text = fmt.Sprintf("%v", v)
		}
		if len(text) > maxValue {
			text = strings.ToValidUTF8(text[:maxValue], "") + " …"
		}
		out = append(out, value{name, text})
	}
	slices.SortFunc(out, func(a, b value) int { return strings.Compare(a.Name, b.Name) })
	return out
}
