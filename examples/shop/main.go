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
//	openid.go       customers who sign in with OpenID Connect
//	security.go     a password entered once more, the operators' pages
//	devices.go      where a customer is signed in, in the shop's languages and colors
//	support.go      an operator sees what a customer sees, and stays an operator
//	checkout.go     a form that takes effect once
//	pages.go        rendering, flash messages
//	strip.go        how the numbers in the strip come about
//	provider.go     a provider of OpenID Connect to try all this with
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

// options are what the command line says.
type options struct {
	listen, data, operator string
	insecure               bool
	start                  string // address of a provider to start
	provider               provider
}

// run serves until ctx ends. It returns the exit status: 0 after an orderly
// stop, 1 when something failed, 2 for a mistake on the command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("shop", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.listen, "listen", "localhost:8080", "`address` to listen on")
	flags.StringVar(&o.data, "data", "data/shop", "`folder` for sessions, customers and orders; made when missing")
	flags.BoolVar(&o.insecure, "insecure", false, "cookies without the Secure attribute, to try the shop over plain HTTP in Safari or from another computer")
	flags.StringVar(&o.operator, "operator", "", "`e-mail address` of the customer who may use the operators' pages at /ops/; nobody may without it")
	flags.StringVar(&o.start, "provider", "", "`address` on which to start a provider of OpenID Connect, to try that way to sign in")
	flags.StringVar(&o.provider.issuer, "issuer", "", "`URL` of a provider of OpenID Connect, for customers to sign in with; register the shop's /auth/callback there, and its / for after a logout")
	flags.StringVar(&o.provider.clientID, "client-id", "", "`name` that the provider of -issuer knows the shop by; the secret is in the environment variable SHOP_CLIENT_SECRET")
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
	case (o.provider.issuer == "") != (o.provider.clientID == ""), o.provider.issuer != "" && o.start != "":
		fmt.Fprintln(stderr, "shop: give -issuer and -client-id together, and not with -provider")
		return 2
	}
	o.provider.secret = os.Getenv("SHOP_CLIENT_SECRET")
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	if err := serve(ctx, o, stdout, logger); err != nil {
		fmt.Fprintln(stderr, "shop:", err)
		return 1
	}
	return 0
}

// serve opens everything in the data folder, listens, and closes everything
// again when ctx ends.
func serve(ctx context.Context, o options, stdout io.Writer, logger *slog.Logger) (err error) {
	listener, err := net.Listen("tcp", o.listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use by another program; stop that one, or choose another port: -listen localhost:8090", o.listen)
	}
	if err != nil {
		return err
	}
	defer listener.Close()

	keys, err := sojourn.LoadKeyFile(filepath.Join(o.data, "session.keys"))
	if err != nil {
		return err
	}
	sessionDB, err := sqlite.Open(filepath.Join(o.data, "sessions.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sessionDB.Close()) }()
	ledger, err := openLedger(filepath.Join(o.data, "shop.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.close()) }()

	shopURL := urlOf(listener.Addr())
	if o.start != "" {
		var stop func() error
		if o.provider, stop, err = startProvider(o.start, shopURL, logger); err != nil {
			return fmt.Errorf("starting a provider: %w", err)
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	shop, err := newShop(parts{
		keys: keys, store: sessionDB, ledger: ledger, logger: logger,
		insecure: o.insecure, operator: o.operator, url: shopURL, provider: o.provider,
	})
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
	welcome(stdout, shopURL, o)

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

// urlOf returns the URL of a server on this computer.
func urlOf(addr net.Addr) string {
	host, port, _ := net.SplitHostPort(addr.String())
	if ip := net.ParseIP(host); ip.IsLoopback() || ip.IsUnspecified() {
		// Browsers keep Secure cookies without HTTPS only for localhost.
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// welcome prints where the shop is and what to try.
func welcome(w io.Writer, shopURL string, o options) {
	fmt.Fprintf(w, `The shop is open: %s   (Ctrl+C closes it)

Keep an eye on the strip at the bottom of the page, and try this:
  1. Choose the dark theme.          A small anonymous session: it lives in your cookie, nothing is stored.
  2. Put a mug into the cart.        Now it moves to the store. Two tabs may add at once: both arrive.
  3. Stop the shop, start it again.  The cart is still there.
  4. Sign up.                        The session gets a new identifier; the cart comes along.
  5. Sign out in a second tab.       It is final in the first one too.
`, shopURL)
	if o.start != "" {
		fmt.Fprintf(w, "  6. Sign in with OpenID Connect.    The provider is %s; there you are \"ada\", with the password \"engine\".\n", o.provider.issuer)
	}
	fmt.Fprintf(w, "\nEverything is kept in %s\n", o.data)
	if !o.insecure {
		fmt.Fprintln(w, "Over plain HTTP, browsers keep its Secure cookies for localhost only, and Safari not even there: -insecure helps for a try.")
	}
}
