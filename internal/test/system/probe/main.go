// Command probe offers every session operation over plain HTTP, so that tests
// and load generators in any language can use a real server:
//
//	go run ./internal/test/system/probe -listen 127.0.0.1:0 -store sqlite:/tmp/sessions.db
//
// It prints one line, "listening on http://HOST:PORT", when it is ready; its
// log goes to stderr. It is also a small tour of the API:
//
//	main.go      started and stopped in order
//	flags.go     every flag, and the sojourn.Config that comes of them
//	tiers.go     the store, and the caches in front of it
//	probe.go     routes, parameters, answers, errors
//	values.go    values: set, update, pop
//	visitor.go   who the visitor is: login, logout, flash messages
//	devices.go   a user's sessions, wherever they are: list them, end them
//	response.go  responses that are not a plain page: streams, files, panics
//
// It has no protection against abuse; do not expose it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// usageError is a mistake on the command line.
type usageError struct{ error }

// run serves until ctx ends. It returns the exit status: 0 after an orderly
// stop, 1 when something failed, 2 for a mistake on the command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	opts, err := parseFlags(args, stderr)
	if err == nil {
		err = serve(ctx, opts, stdout, slog.New(slog.NewTextHandler(stderr, nil)))
	}
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	text := strings.ReplaceAll(err.Error(), "\n", "; ") // several mistakes, one line
	if errors.As(err, new(usageError)) {
		fmt.Fprintf(stderr, "probe: %s (see probe -h)\n", text)
		return 2
	}
	fmt.Fprintf(stderr, "probe: %s\n", text)
	return 1
}

// serve opens the store, listens until ctx ends, and closes everything again.
func serve(ctx context.Context, opts options, stdout io.Writer, logger *slog.Logger) (err error) {
	cfg, err := opts.config(ctx, logger)
	if err != nil {
		return err
	}
	if opts.store != noStore {
		sessions, openErr := openTiers(ctx, opts, logger)
		if openErr != nil {
			return openErr
		}
		defer func() { err = errors.Join(err, sessions.Close()) }()
		cfg.Store = sessions.Store
	}
	p, err := newProbe(cfg)
	if err != nil {
		return usageError{err} // New only refuses values of flags
	}
	// The manager is closed before its store: it waits for saves under way.
	defer func() { err = errors.Join(err, p.sessions.Close()) }()

	listener, err := net.Listen("tcp", opts.listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           p.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelError),
		Protocols:         new(http.Protocols),
	}
	// HTTP/2 without TLS, for clients with prior knowledge.
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	// Streams would block Shutdown; nothing else must be interrupted.
	server.RegisterOnShutdown(p.stopStreams)

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Fprintf(stdout, "listening on http://%s\n", listener.Addr())

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return fmt.Errorf("waiting for the last requests: %w", err)
	}
	return nil
}
