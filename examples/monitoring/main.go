// Command monitoring serves a page with a session, and its Prometheus metrics
// at /metrics.
//
//	go run ./examples/monitoring
//
// The README shows how to set up the Grafana dashboard.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"html"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
	sojournotel "github.com/sojourn-go/sojourn/otel"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

func main() {
	listen := flag.String("listen", "localhost:8080", "`address` to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *listen); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, address string) (err error) {
	handler, closeAll, err := newApp()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Shutdown(context.Background()) })
	log.Printf("http://%s and http://%s/metrics", listener.Addr(), listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// newApp sets up the application. The order of the wrapped stores matters:
// around the caches, the measurement shows what the manager waits for; behind
// them, the calls that pass the caches.
func newApp() (handler http.Handler, closeAll func() error, err error) {
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		return nil, nil, err
	}
	provider := metric.NewMeterProvider(metric.WithReader(exporter))
	telemetry, err := sojournotel.New(sojournotel.Config{MeterProvider: provider})
	if err != nil {
		return nil, nil, err
	}

	db := memory.New() // a service would open a durable store here
	front, err := tiered.New(telemetry.Store("memory", db), tiered.Layer{Cache: tiered.NewMemory(16 << 20)})
	if err != nil {
		return nil, nil, err
	}
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		return nil, nil, err
	}
	audit := sojourn.AuditLog(nil)
	sessions, err := sojourn.New(sojourn.Config{
		Keys:  keys,
		Store: telemetry.Store("tiers", front),
		Events: func(ctx context.Context, e sojourn.Event) {
			telemetry.Event(ctx, e)
			audit(ctx, e)
		},
	})
	if err != nil {
		return nil, nil, err
	}
	if _, err := telemetry.Observe(sessions); err != nil {
		return nil, nil, err
	}
	if _, err := telemetry.ObserveCounts("memory", db); err != nil {
		return nil, nil, err
	}

	pages := http.NewServeMux()
	pages.Handle("GET /{$}", sessions.Handler(home))
	pages.Handle("POST /login", sessions.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		s.Login("ada")
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}))
	pages.Handle("POST /logout", sessions.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
		s.Logout()
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}))
	protected := http.NewCrossOriginProtection().Handler(sessions.Wrap(pages))

	mux := http.NewServeMux()
	mux.Handle("/", protected)
	// A service serves this on an internal address.
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux, func() error {
		return errors.Join(sessions.Close(), provider.Shutdown(context.Background()))
	}, nil
}

var visits = sojourn.NewKey[int]("visits", sojourn.ServerSide)

func home(w http.ResponseWriter, _ *http.Request, s *sojourn.Session) {
	n := visits.Update(s, func(n int) int { return n + 1 })
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, `<!doctype html><title>monitoring</title>
<p>Visit %d of %s.
<form method="post" action="/login"><button>Sign in</button></form>
<form method="post" action="/logout"><button>Sign out</button></form>
<p><a href="/metrics">What Prometheus sees</a>
`, n, html.EscapeString(cmp.Or(s.User(), "a stranger")))
}
