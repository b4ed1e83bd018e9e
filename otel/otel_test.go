package sojournotel_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/ops"
	sojournotel "github.com/sojourn-go/sojourn/otel"
	"github.com/sojourn-go/sojourn/sojourntest"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/storetest"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// A station receives a Telemetry's data.
type station struct {
	*testing.T
	*sojournotel.Telemetry
	reader  *metric.ManualReader
	spans   *tracetest.InMemoryExporter
	tracers *trace.TracerProvider
}

func newStation(t *testing.T) *station {
	t.Helper()
	st := &station{T: t, reader: metric.NewManualReader(), spans: tracetest.NewInMemoryExporter()}
	st.tracers = trace.NewTracerProvider(trace.WithSyncer(st.spans))
	var err error
	st.Telemetry, err = sojournotel.New(sojournotel.Config{
		TracerProvider: st.tracers,
		MeterProvider:  metric.NewMeterProvider(metric.WithReader(st.reader)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// within runs f in a span.
func (st *station) within(f func(ctx context.Context)) {
	ctx, span := st.tracers.Tracer("test").Start(st.Context(), "request")
	f(ctx)
	span.End()
}

func (st *station) collect() map[string]metricdata.Metrics {
	st.Helper()
	var all metricdata.ResourceMetrics
	if err := st.reader.Collect(st.Context(), &all); err != nil {
		st.Fatal(err)
	}
	byName := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			byName[m.Name] = m
		}
	}
	return byName
}

// points are a metric's values by attributes, as "key=value,key=value".
func (st *station) points(name string) map[string]int64 {
	st.Helper()
	points := map[string]int64{}
	switch data := st.collect()[name].Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			points[text(p.Attributes)] = p.Value
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			points[text(p.Attributes)] = int64(p.Count)
		}
	}
	return points
}

func text(set attribute.Set) string { return set.Encoded(attribute.DefaultEncoder()) }

var id = store.HashIdentifier([]byte("a session"))

func rec() store.Record {
	now := time.Now()
	return store.Record{
		ID: id, Version: 1, SaveIDs: []store.SaveID{7}, Created: now, Seen: now,
		Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour), Data: []byte("sealed secret"),
	}
}

func TestAMeasuredStoreKeepsTheContract(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) store.Store{
		"a store": func(*testing.T) store.Store { return memory.New() },
		"a store behind a cache": func(t *testing.T) store.Store {
			return tiers(t, memory.New())
		},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) store.Store {
				return newStation(t).Store("memory", open(t))
			}, storetest.Records(2_000))
		})
	}
}

func tiers(t *testing.T, origin store.Store) *tiered.Store {
	t.Helper()
	s, err := tiered.New(origin, tiered.Layer{Cache: tiered.NewMemory(1 << 20)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAMeasuredStoreCanDoWhatTheInnerOneCan(t *testing.T) {
	st := newStation(t)
	plain := st.Store("memory", struct{ store.Store }{memory.New()})
	for name, call := range map[string]func(ctx context.Context) error{
		"Touch": func(ctx context.Context) error { return plain.(store.Toucher).Touch(ctx, id, time.Now(), time.Now()) },
		"Sweep": func(ctx context.Context) error { _, err := plain.(store.Sweeper).Sweep(ctx, 0, 1); return err },
		"ByUser": func(ctx context.Context) error {
			_, err := plain.(store.UserIndex).ByUser(ctx, store.UserHash{1})
			return err
		},
		"SaveLimited": func(ctx context.Context) error {
			_, err := plain.(store.UserLimiter).SaveLimited(ctx, rec(), store.UserLimit{Max: 1})
			return err
		},
		"Ends":  func(ctx context.Context) error { _, err := plain.(store.EndFeed).Ends(ctx, "", 1); return err },
		"Scan":  func(ctx context.Context) error { _, _, err := plain.(store.Scanner).Scan(ctx, "", 1); return err },
		"Count": func(ctx context.Context) error { _, err := plain.(store.Counter).Count(ctx); return err },
	} {
		st.within(func(ctx context.Context) {
			if err := call(ctx); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s of a store that cannot: %v", name, err)
			}
		})
	}
	if n := st.points("sojourn.store.operation.duration"); len(n) != 0 {
		t.Errorf("what was not asked of the store is measured: %v", n)
	}
	if _, ok := plain.(store.FloorLoader); ok {
		t.Error("a store without copies looks as if it had some")
	}
	if _, ok := plain.(store.VolatileKeeper); ok {
		t.Error("a store without a cache looks as if it kept volatile values")
	}
}

func TestWhatTheInnerStoreCannotDoIsNotMeasured(t *testing.T) {
	st := newStation(t)
	s := st.Store("tiers", tiers(t, struct{ store.Store }{memory.New()})) // which says so itself
	if err := s.(store.Toucher).Touch(t.Context(), id, time.Now(), time.Now()); !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
	if n := st.points("sojourn.store.operation.duration"); len(n) != 0 {
		t.Errorf("it was measured as %v", n)
	}
}

func TestAMeasuredStoreHasTheCachesOfTheInnerOne(t *testing.T) {
	inner := tiers(t, memory.New())
	s := newStation(t).Store("tiers", inner)
	if err := s.Save(t.Context(), rec(), store.Base{}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.(store.FloorLoader).LoadFrom(t.Context(), id, 1); err != nil {
			t.Fatal(err)
		}
	}
	hits, misses := s.(store.CacheCounter).CacheStats()
	if want, _ := inner.CacheStats(); hits == 0 || hits != want || hits+misses != 3 {
		t.Errorf("%d hits and %d misses, the inner store says %d hits", hits, misses, want)
	}
	if h := s.(interface{ Health() []tiered.Health }).Health(); !reflect.DeepEqual(h, inner.Health()) {
		t.Errorf("its health is %v", h)
	}
	// tiered keeps volatile values in shared caches only, and says so.
	_, err := s.(store.VolatileKeeper).LoadVolatile(t.Context(), id, store.Base{Version: 1, SaveID: 7})
	_, want := inner.LoadVolatile(t.Context(), id, store.Base{Version: 1, SaveID: 7})
	if err == nil || !errors.Is(err, want) && err.Error() != want.Error() {
		t.Errorf("LoadVolatile: %v, the inner store: %v", err, want)
	}
}

// keeper is a store whose cache holds one volatile value.
type keeper struct {
	store.Store
	kept store.Volatile
}

func (k *keeper) LoadVolatile(context.Context, store.ID, store.Base) (store.Volatile, error) {
	return k.kept, nil
}

func (k *keeper) SaveVolatile(_ context.Context, _ store.ID, _ store.Base, _ store.SaveID, next store.Volatile, _ time.Time) error {
	k.kept = next
	return nil
}

func TestVolatileValuesReachTheInnerStore(t *testing.T) {
	st := newStation(t)
	s := st.Store("cache", &keeper{Store: memory.New()}).(store.VolatileKeeper)
	want := store.Volatile{SaveID: 3, Data: []byte("page 7")}
	if err := s.SaveVolatile(t.Context(), id, store.Base{Version: 1}, 0, want, time.Now()); err != nil {
		t.Fatal(err)
	}
	got, err := s.LoadVolatile(t.Context(), id, store.Base{Version: 1})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v (%v), want %v", got, err, want)
	}
	if n := len(st.points("sojourn.store.operation.duration")); n != 2 {
		t.Errorf("%d operations were measured, want 2", n)
	}
}

var errDown = errors.New("the store is down")

// answering is a store that answers every Load with one error.
type answering struct {
	store.Store
	err error
}

func (a answering) Load(context.Context, store.ID) (store.Record, error) {
	return store.Record{}, a.err
}

func TestCallsAreMeasuredByOperationAndOutcome(t *testing.T) {
	for want, err := range map[string]error{
		"ok": nil, "not_found": store.ErrNotFound, "conflict": store.ErrConflict, "limit": store.ErrLimit,
		"too_large": store.ErrTooLarge, "canceled": context.Canceled, "timeout": context.DeadlineExceeded, "error": errDown,
	} {
		st := newStation(t)
		s := st.Store("sqlite", answering{memory.New(), err})
		st.within(func(ctx context.Context) {
			if _, got := s.Load(ctx, id); !errors.Is(got, err) {
				t.Errorf("%s: the error became %v", want, got)
			}
		})
		got := st.points("sojourn.store.operation.duration")
		key := "sojourn.store.name=sqlite,sojourn.store.operation=load,sojourn.store.outcome=" + want
		if got[key] != 1 || len(got) != 1 {
			t.Errorf("%s: measured as %v", want, got)
		}
		span := st.spans.GetSpans()[0]
		failed := want == "error" || want == "timeout"
		if span.Name != "sojourn.store.load" || (span.Status.Code == codes.Error) != failed {
			t.Errorf("%s: span %q with status %v", want, span.Name, span.Status)
		}
	}
}

func TestASpanNamesTheSessionByItsHandleAndNothingElse(t *testing.T) {
	st := newStation(t)
	s := st.Store("memory", memory.New())
	st.within(func(ctx context.Context) {
		r := rec()
		r.User = store.UserHash{1, 2, 3}
		if err := s.Save(ctx, r, store.Base{}); err != nil {
			t.Fatal(err)
		}
	})
	got := text(attribute.NewSet(st.spans.GetSpans()[0].Attributes...))
	want := "sojourn.session.handle=" + id.String() +
		",sojourn.store.name=memory,sojourn.store.operation=save,sojourn.store.outcome=ok"
	if got != want {
		t.Errorf("the span says %s, want %s", got, want)
	}
}

func TestWhatTheManagerDoesByItselfStartsNoTrace(t *testing.T) {
	st := newStation(t)
	s := st.Store("memory", memory.New())
	if _, err := s.(store.EndFeed).Ends(t.Context(), store.FeedFromNow, 10); err != nil {
		t.Fatal(err)
	}
	if spans := st.spans.GetSpans(); len(spans) != 0 {
		t.Errorf("%d spans without a request", len(spans))
	}
	if n := st.points("sojourn.store.operation.duration"); len(n) != 1 {
		t.Errorf("it was measured as %v", n)
	}
}

// TestEveryCounterOfTheManagerIsExported fails when Stats gets a field that is
// not exported, or exports one twice.
func TestEveryCounterOfTheManagerIsExported(t *testing.T) {
	fields := reflect.TypeFor[ops.Stats]()
	seen := map[string]string{}
	for i := range fields.NumField() {
		var stats ops.Stats
		reflect.ValueOf(&stats).Elem().Field(i).SetUint(1)
		var names []string
		for name, value := range sojournotel.Counters(&stats) {
			if value == 1 {
				names = append(names, name)
			}
		}
		if len(names) != 1 {
			t.Errorf("Stats.%s is exported as %q", fields.Field(i).Name, names)
			continue
		}
		if other, ok := seen[names[0]]; ok {
			t.Errorf("%s and %s are both exported as %s", other, fields.Field(i).Name, names[0])
		}
		seen[names[0]] = fields.Field(i).Name
	}
}

func TestAManagersCountersAndStreamsAreObserved(t *testing.T) {
	st := newStation(t)
	m := sojourntest.NewManager(t, sojourn.Config{Store: st.Store("memory", memory.New()), Events: st.Event, Name: "shop"})
	stop, err := st.Observe(m)
	if err != nil {
		t.Fatal(err)
	}
	b := sojourntest.NewBrowser(t, m.Handler(func(_ http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		if r.URL.Path == "/login" {
			s.Login("ada")
			return
		}
		s.Done()
		if got := st.points("sojourn.session.streams")["sojourn.manager=shop"]; got != 1 {
			t.Errorf("%d open streams, want 1", got)
		}
	}))
	b.Get("/login")
	b.Get("/stream")
	for name, want := range map[string]int64{
		"sojourn.session.logins": 1, "sojourn.session.created": 1, "sojourn.session.logouts": 0, "sojourn.session.streams": 0,
	} {
		got, ok := st.points(name)["sojourn.manager=shop"]
		if !ok || got != want {
			t.Errorf("%s is %d (%t), want %d", name, got, ok, want)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := st.points("sojourn.session.logins"); len(got) != 0 {
		t.Errorf("after stop: %v", got)
	}
}

func TestEventsAreCountedAndNotedInTheSpan(t *testing.T) {
	st := newStation(t)
	events := st.Event
	st.within(func(ctx context.Context) {
		events(ctx, sojourn.Event{Kind: sojourn.EventRevoked, Manager: "shop", Reason: sojourn.ReasonLimit, Session: "handle", User: "ada"})
	})
	events(t.Context(), sojourn.Event{Kind: sojourn.EventLogin, Manager: "shop", User: "ada", IP: "192.0.2.1", UserAgent: "curl"})
	want := map[string]int64{
		"sojourn.event=revoked,sojourn.event.reason=limit,sojourn.manager=shop": 1,
		"sojourn.event=login,sojourn.manager=shop":                              1,
	}
	if got := st.points("sojourn.session.events"); !reflect.DeepEqual(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
	noted := st.spans.GetSpans()[0].Events
	if len(noted) != 1 || noted[0].Name != "sojourn.session.revoked" {
		t.Fatalf("the span has the events %v", noted)
	}
	got := text(attribute.NewSet(noted[0].Attributes...))
	if got != "sojourn.event=revoked,sojourn.event.reason=limit,sojourn.manager=shop,sojourn.session.handle=handle" {
		t.Errorf("the event says %s", got)
	}
}

func TestRecordsAreCountedWhenMetricsAreCollected(t *testing.T) {
	st := newStation(t)
	db := memory.New()
	if err := db.Save(t.Context(), rec(), store.Base{}); err != nil {
		t.Fatal(err)
	}
	if err := db.Delete(t.Context(), store.HashIdentifier([]byte("another")), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	stop, err := st.ObserveCounts("memory", db)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{
		"sojourn.store.name=memory,sojourn.store.state=live":    1,
		"sojourn.store.name=memory,sojourn.store.state=expired": 0,
		"sojourn.store.name=memory,sojourn.store.state=ended":   1,
	}
	if got := st.points("sojourn.store.records"); !reflect.DeepEqual(got, want) {
		t.Errorf("records %v, want %v", got, want)
	}
	if got := st.points("sojourn.store.size")["sojourn.store.name=memory"]; got != int64(len(rec().Data)) {
		t.Errorf("size %d", got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestARequestsTraceShowsItsStoreCalls tests all parts together, in one request.
func TestARequestsTraceShowsItsStoreCalls(t *testing.T) {
	st := newStation(t)
	m := sojourntest.NewManager(t, sojourn.Config{Store: st.Store("memory", memory.New()), Events: st.Event})
	handler := m.Handler(func(_ http.ResponseWriter, _ *http.Request, s *sojourn.Session) { s.Login("ada") })
	st.within(func(ctx context.Context) {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "POST", "https://example.com/", nil))
	})
	var names, events []string
	for _, span := range st.spans.GetSpans() {
		names = append(names, span.Name)
		for _, e := range span.Events {
			events = append(events, e.Name)
		}
	}
	if !slices.Equal(names, []string{"sojourn.store.save", "request"}) || !slices.Contains(events, "sojourn.session.login") {
		t.Errorf("spans %q with events %q", names, events)
	}
}

// TestTheReadmeListsEveryMetric holds the table of names to what is exported.
func TestTheReadmeListsEveryMetric(t *testing.T) {
	st := newStation(t)
	m := sojourntest.NewManager(t, sojourn.Config{Store: st.Store("memory", memory.New()), Events: st.Event})
	if _, err := st.Observe(m); err != nil {
		t.Fatal(err)
	}
	if _, err := st.ObserveCounts("memory", memory.New()); err != nil {
		t.Fatal(err)
	}
	sojourntest.Request(t, m, "GET", "/", nil, func(s *sojourn.Session) { s.Login("ada") })
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(sojourn\\.[a-z_.]+)` \\|[^|]*\\| `([^`]+)` \\|").FindAllStringSubmatch(string(readme), -1) {
		listed[row[1]] = row[2]
	}
	exported := st.collect()
	for name, m := range exported {
		if listed[name] != m.Unit {
			t.Errorf("%s in %s is listed in %q", name, m.Unit, listed[name])
		}
		if m.Description == "" || strings.ToLower(name) != name {
			t.Errorf("%s has the description %q", name, m.Description)
		}
	}
	for name := range listed {
		if _, ok := exported[name]; !ok {
			t.Errorf("%s is listed and not exported", name)
		}
	}
}

func TestTheReadmeListsEveryEvent(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `sojourn\\.event` \\|.*$").FindString(string(readme))
	n := 0
	for kind := sojourn.EventKind(1); kind.String() != "unknown"; kind++ {
		if n++; !strings.Contains(row, "`"+kind.String()+"`") {
			t.Errorf("the event %v is not listed", kind)
		}
	}
	if listed := strings.Count(row, "`")/2 - 1; listed != n {
		t.Errorf("%d events are listed, there are %d", listed, n)
	}
}
