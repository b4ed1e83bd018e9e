// Command shop is a small web shop on Sojourn: server-rendered pages, an
// embedded session store, no JavaScript. A strip at the bottom of every page
// shows where the visitor's session lives and what the request cost.
//
//	go run ./examples/shop
//
// You can copy from it. A good order to read it in:
//
//	main.go         how the parts are put together, started and stopped
//	shop.go         routes and middleware
//	preferences.go  values that may live in the visitor's cookie
//	cart.go         values that must not be lost when two tabs write at once
//	wishes.go       a value that may, and so needs no row in the store
//	account.go      what a session does at sign-up, login and logout
//	security.go     a password entered once more, devices, the operators' pages
//	support.go      an operator views a customer's pages, but stays an operator
//	checkout.go     a form that takes effect once
//	pages.go        rendering, flash messages
//	strip.go        how the numbers in the strip are measured
//
// A shop that sells something also needs, outside of its sessions: confirmed
// addresses, a limit on login attempts, and payments.
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
	"path/filepath"
	"syscall"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/store/sqlite"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl+C ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run serves until ctx ends. It returns the exit status: 0 after an orderly
// stop, 1 when something failed, 2 for a mistake on the command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("shop", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "localhost:8080", "`address` to listen on")
	data := flags.String("data", "data/shop", "`folder` for sessions, customers and orders; made when missing")
	insecure := flags.Bool("insecure", false, "cookies without the Secure attribute, to try the shop over plain HTTP in Safari or from another computer")
	operator := flags.String("operator", "", "`e-mail address` of the customer who may use the operators' pages at /ops/; nobody may without it")
	flags.Usage = func() {
		fmt.Fprint(stderr, "shop serves a small demonstration web shop whose visitors' sessions are kept by Sojourn.\n\nUsage: shop [flags]\n\n")
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "shop: unexpected argument %q; see shop -h\n", flags.Arg(0))
		return 2
	}
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	if err := serve(ctx, *listen, *data, *insecure, *operator, stdout, logger); err != nil {
		fmt.Fprintln(stderr, "shop:", err)
		return 1
	}
	return 0
}

// serve opens everything in the data folder, listens, and closes everything
// again when ctx ends.
func serve(ctx context.Context, listen, data string, insecure bool, operator string, stdout io.Writer, logger *slog.Logger) (err error) {
	listener, err := net.Listen("tcp", listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use by another program; stop that one, or choose another port: -listen localhost:8081", listen)
	}
	if err != nil {
		return err
	}
	defer listener.Close()

	keys, err := sojourn.LoadKeyFile(filepath.Join(data, "session.keys"))
	if err != nil {
		return err
	}
	sessionDB, err := sqlite.Open(filepath.Join(data, "sessions.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sessionDB.Close()) }()
	ledger, err := openLedger(filepath.Join(data, "shop.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.close()) }()

	shop, err := newShop(parts{keys: keys, store: sessionDB, ledger: ledger, logger: logger, insecure: insecure, operator: operator})
	if err != nil {
		return err
	}
	// Close the manager first: it waits for the saves that are under way.
	defer func() { err = errors.Join(err, shop.close()) }()

	server := &http.Server{
		Handler:           shop.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	welcome(stdout, listener.Addr().(*net.TCPAddr), data, insecure)

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	fmt.Fprintln(stdout, "Closing. Carts and sign-ins are kept.")
	if err := server.Shutdown(grace); err != nil {
		return fmt.Errorf("waiting for the last requests: %w", err)
	}
	return nil
}

// welcome prints the shop's address and what to try.
func welcome(w io.Writer, addr *net.TCPAddr, data string, insecure bool) {
	host := addr.IP.String()
	if addr.IP.IsLoopback() || addr.IP.IsUnspecified() {
		// Without HTTPS, browsers keep Secure cookies only for localhost.
		host = "localhost"
	}
	fmt.Fprintf(w, `The shop is open: http://%s   (Ctrl+C closes it)

Keep an eye on the strip at the bottom of the page, and try this:
  1. Choose the dark theme.          A small anonymous session: it lives in your cookie, nothing is stored.
  2. Put a mug into the cart.        Now it moves to the store. Two tabs may add at once: both arrive.
  3. Stop the shop, start it again.  The cart is still there.
  4. Sign up.                        The session gets a new identifier; the cart comes along.
  5. Sign out in a second tab.       It is final in the first one too.

Everything is kept in %s
`, net.JoinHostPort(host, fmt.Sprint(addr.Port)), data)
	if !insecure {
		fmt.Fprintln(w, "Over plain HTTP, browsers keep its Secure cookies for localhost only, and Safari not even there: -insecure helps for a try.")
	}
}
