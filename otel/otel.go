// Package sojournotel reports to OpenTelemetry: traces of the store's calls,
// metrics of a manager and its store, and a count of events.
//
//	telemetry, err := sojournotel.New(sojournotel.Config{})
//	db := telemetry.Store("sqlite", db)
//	sessions, err := sojourn.New(sojourn.Config{Keys: keys, Store: db, Events: telemetry.Event})
//	stop, err := telemetry.Observe(sessions)
//
// Each of the three works without the others. It uses OpenTelemetry's API only:
// where spans and measurements go, and which are kept, is up to the providers
// that the program sets up. The README lists every name.
//
// Telemetry contains no identifiers, values, keys, or user names. Spans carry
// the session's handle, which is public. Metrics do not, because each session
// would add a time series.
package sojournotel

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
)

// scope is the name of the instrumentation.
const scope = "github.com/sojourn-go/sojourn/otel"

// Attributes of spans and measurements.
const (
	managerKey   = attribute.Key("sojourn.manager")         // Config.Name
	storeKey     = attribute.Key("sojourn.store.name")      // as given to Store
	operationKey = attribute.Key("sojourn.store.operation") // load, save …
	outcomeKey   = attribute.Key("sojourn.store.outcome")   // ok, conflict …
	stateKey     = attribute.Key("sojourn.store.state")     // live, expired, ended
	eventKey     = attribute.Key("sojourn.event")           // sojourn.EventKind
	reasonKey    = attribute.Key("sojourn.event.reason")    // sojourn.Event.Reason
	sessionKey   = attribute.Key("sojourn.session.handle")  // of spans only
)

// Config has the OpenTelemetry providers. The zero value means the global providers.
type Config struct {
	TracerProvider trace.TracerProvider // nil = otel.GetTracerProvider()
	MeterProvider  metric.MeterProvider // nil = otel.GetMeterProvider()
}

// Telemetry makes spans and measurements. It is safe for concurrent use; one is
// enough for several managers and stores.
type Telemetry struct {
	tracer   trace.Tracer
	meter    metric.Meter
	duration metric.Float64Histogram
	events   metric.Int64Counter
	counters []metric.Int64ObservableCounter // one for each of counters
	streams  metric.Int64ObservableUpDownCounter
	records  metric.Int64ObservableUpDownCounter
	loggedIn metric.Int64ObservableUpDownCounter
	size     metric.Int64ObservableUpDownCounter
}

// durations are the bounds of the histogram, in seconds: from a map in memory
// to a call that is about to time out.
var durations = []float64{
	0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
}

// New returns a Telemetry. An error means that the meter provider refused an
// instrument.
func New(cfg Config) (*Telemetry, error) {
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = otel.GetTracerProvider()
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = otel.GetMeterProvider()
	}
	t := &Telemetry{tracer: cfg.TracerProvider.Tracer(scope), meter: cfg.MeterProvider.Meter(scope)}
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	t.duration, err = t.meter.Float64Histogram("sojourn.store.operation.duration", metric.WithUnit("s"),
		metric.WithDescription("How long the store took for one call."),
		metric.WithExplicitBucketBoundaries(durations...))
	add(err)
	t.events, err = t.meter.Int64Counter("sojourn.session.events", metric.WithUnit("{event}"),
		metric.WithDescription("What happened to sessions."))
	add(err)
	for _, c := range counters {
		counter, err := t.meter.Int64ObservableCounter(c.name, metric.WithUnit(c.unit), metric.WithDescription(c.description))
		add(err)
		t.counters = append(t.counters, counter)
	}
	gauge := func(into *metric.Int64ObservableUpDownCounter, name, unit, description string) {
		*into, err = t.meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
		add(err)
	}
	gauge(&t.streams, "sojourn.session.streams", "{stream}", "Requests that wait for the end of their session.")
	gauge(&t.records, "sojourn.store.records", "{record}", "Records in the store.")
	gauge(&t.loggedIn, "sojourn.store.logged_in", "{record}", "Live records that belong to a user.")
	gauge(&t.size, "sojourn.store.size", "By", "Sealed data in the store, without the engine's own overhead.")
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("sojournotel: making instruments: %w", err)
	}
	return t, nil
}

// counters are the metrics that are read from a manager's Stats.
var counters = []struct {
	name, unit, description string
	value                   func(s *ops.Stats) uint64
}{
	{"sojourn.store.loads", "{record}", "Answers of the store to a load.", func(s *ops.Stats) uint64 { return s.Loads }},
	{"sojourn.store.saves", "{record}", "Records written, tombstones included.", func(s *ops.Stats) uint64 { return s.Saves }},
	{"sojourn.store.conflicts", "{save}", "Saves refused because another process was faster; each was tried again.", func(s *ops.Stats) uint64 { return s.Conflicts }},
	{"sojourn.store.retries", "{save}", "Saves sent again because their outcome was unknown.", func(s *ops.Stats) uint64 { return s.Retries }},
	{"sojourn.store.touches", "{touch}", "Idle deadlines extended without rewriting the record.", func(s *ops.Stats) uint64 { return s.Touches }},
	{"sojourn.store.errors", "{error}", "Calls that the store failed to answer.", func(s *ops.Stats) uint64 { return s.StoreErrors }},
	{"sojourn.store.damaged_records", "{record}", "Records that did not open although their key is known.", func(s *ops.Stats) uint64 { return s.DamagedRecords }},
	{"sojourn.store.lost_versions", "{load}", "Loads below the version that the browser had seen: the store lost writes.", func(s *ops.Stats) uint64 { return s.LostVersions }},
	{"sojourn.store.swept", "{record}", "Old records removed.", func(s *ops.Stats) uint64 { return s.Swept }},
	{"sojourn.cache.hits", "{load}", "Loads answered by a cache in front of the store.", func(s *ops.Stats) uint64 { return s.CacheHits }},
	{"sojourn.cache.misses", "{load}", "Loads that the caches could not answer.", func(s *ops.Stats) uint64 { return s.CacheMisses }},
	{"sojourn.cache.volatile_saves", "{save}", "Changes of volatile values kept in a cache.", func(s *ops.Stats) uint64 { return s.VolatileSaves }},
	{"sojourn.session.created", "{session}", "Sessions that got their first value.", func(s *ops.Stats) uint64 { return s.Created }},
	{"sojourn.session.promoted", "{session}", "Sessions that moved from the cookie to the store.", func(s *ops.Stats) uint64 { return s.Promoted }},
	{"sojourn.session.logins", "{login}", "Logins kept.", func(s *ops.Stats) uint64 { return s.Logins }},
	{"sojourn.session.logouts", "{logout}", "Logouts kept.", func(s *ops.Stats) uint64 { return s.Logouts }},
	{"sojourn.session.rotations", "{rotation}", "Credentials replaced by a rotation.", func(s *ops.Stats) uint64 { return s.Rotations }},
	{"sojourn.session.revoked", "{session}", "Sessions ended from elsewhere.", func(s *ops.Stats) uint64 { return s.Revoked }},
	{"sojourn.session.thefts_suspected", "{session}", "Sessions of which an outdated credential turned up.", func(s *ops.Stats) uint64 { return s.TheftsSuspected }},
	{"sojourn.cookie.rejected", "{cookie}", "Session cookies that were damaged, foreign or expired.", func(s *ops.Stats) uint64 { return s.RejectedCookies }},
	{"sojourn.cookie.unknown_key", "{cookie}", "Of the rejected cookies: sealed with a key that is not in the key ring.", func(s *ops.Stats) uint64 { return s.UnknownKeys }},
	{"sojourn.cookie.stale", "{cookie}", "References to sessions that are over, or of an old generation.", func(s *ops.Stats) uint64 { return s.StaleReferences }},
	{"sojourn.value.unreadable", "{value}", "Values that did not decode into their key's type.", func(s *ops.Stats) uint64 { return s.UnreadableValue }},
	{"sojourn.commit.failed", "{commit}", "Commits that were answered with an error.", func(s *ops.Stats) uint64 { return s.FailedCommits }},
	{"sojourn.commit.late_changes", "{change}", "Changes lost because the response had already started.", func(s *ops.Stats) uint64 { return s.LateChanges }},
}

// Observe reports a manager's counters, and how many streams wait for the end
// of their session, whenever metrics are collected. The attribute
// sojourn.manager is its Config.Name. stop ends the reporting.
func (t *Telemetry) Observe(m *sojourn.Manager) (stop func() error, err error) {
	watched := ops.For(m)
	set := metric.WithAttributeSet(attribute.NewSet(managerKey.String(watched.Name())))
	instruments := []metric.Observable{t.streams}
	for _, c := range t.counters {
		instruments = append(instruments, c)
	}
	r, err := t.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		stats := watched.Stats()
		for i, c := range t.counters {
			o.ObserveInt64(c, int64(counters[i].value(&stats)), set)
		}
		o.ObserveInt64(t.streams, int64(watched.Streams()), set)
		return nil
	}, instruments...)
	if err != nil {
		return nil, fmt.Errorf("sojournotel: observing a manager: %w", err)
	}
	return r.Unregister, nil
}

// ObserveCounts reports how many records a store holds, and how much room they
// take, whenever metrics are collected. Some stores read every record to count
// them; there, let one process of many report. name distinguishes stores. stop
// ends the reporting.
func (t *Telemetry) ObserveCounts(name string, c store.Counter) (stop func() error, err error) {
	with := func(state string) metric.ObserveOption {
		return metric.WithAttributes(storeKey.String(name), stateKey.String(state))
	}
	live, expired, ended := with("live"), with("expired"), with("ended")
	whole := metric.WithAttributes(storeKey.String(name))
	r, err := t.meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		n, err := c.Count(ctx)
		if err != nil {
			return fmt.Errorf("sojournotel: counting sessions: %w", err)
		}
		o.ObserveInt64(t.records, n.Live, live)
		o.ObserveInt64(t.records, n.Expired, expired)
		o.ObserveInt64(t.records, n.Ended, ended)
		o.ObserveInt64(t.loggedIn, n.LoggedIn, whole)
		o.ObserveInt64(t.size, n.Bytes, whole)
		return nil
	}, t.records, t.loggedIn, t.size)
	if err != nil {
		return nil, fmt.Errorf("sojournotel: observing a store: %w", err)
	}
	return r.Unregister, nil
}

// Event is for Config.Events. It counts an event by kind and reason, and adds
// it to the request's span with the session's handle.
func (t *Telemetry) Event(ctx context.Context, e sojourn.Event) {
	attributes := []attribute.KeyValue{managerKey.String(e.Manager), eventKey.String(e.Kind.String())}
	if e.Reason != "" {
		attributes = append(attributes, reasonKey.String(e.Reason))
	}
	t.events.Add(ctx, 1, metric.WithAttributes(attributes...))
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	if e.Session != "" {
		attributes = append(attributes, sessionKey.String(e.Session))
	}
	span.AddEvent("sojourn.session."+e.Kind.String(), trace.WithAttributes(attributes...))
}
