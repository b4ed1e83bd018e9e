// Command migrate moves a shop from Python to Go while visitors use it: the old
// shop with its sessions, the new one, and a front that sends each page to one
// of them. README.md describes the steps.
//
//	go run ./examples/migrate          # the shop, to click through
//	go run ./examples/migrate -tour    # the whole move, explained and checked
//
// A good order to read it in:
//
//	old.go      the old shop: what runs it, and how its sessions are described
//	newapp.go   the new shop, first on the old sessions, then on its own
//	front.go    the front and its switchboard
//	tour.go     a browser that goes through the whole move
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
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

// run serves until ctx ends, or runs the tour. It returns the exit status: 0 if
// all went well, 1 when something failed, 2 for a mistake on the command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("migrate", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "localhost:8080", "`address` of the shop")
	admin := flags.String("admin", "localhost:8081", "`address` of the switchboard")
	data := flags.String("data", "data/migrate", "`folder` for the sessions of both shops; made when missing")
	kind := flags.String("old", "", "the old shop: beaker, webapp2, or recorded for none but its recorded sessions (default: the first that this machine can run)")
	tour := flags.Bool("tour", false, "make the whole move in a folder of its own, tell it, check it, and stop")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "migrate: unexpected argument %q; see migrate -h\n", flags.Arg(0))
		return 2
	}
	var err error
	if *tour {
		err = tourInTemporaryFolder(*kind, stdout)
	} else {
		err = serve(ctx, *kind, *data, *listen, *admin, stdout)
	}
	if err != nil {
		fmt.Fprintln(stderr, "migrate:", err)
		return 1
	}
	return 0
}

// shop is all parts of the example.
type shop struct {
	old   *oldApp
	front *front
	site  http.Handler
	close func() error
}

// openShop starts the old shop and opens the new one. The caller closes it.
func openShop(kind, data string) (*shop, error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	keys, err := sojourn.LoadKeyFile(filepath.Join(data, "session.keys"))
	if err != nil {
		return nil, err
	}
	sessions, err := sqlite.Open(filepath.Join(data, "sessions.db"))
	if err != nil {
		return nil, err
	}
	old, err := startOld(kind, data)
	if err != nil {
		return nil, errors.Join(err, sessions.Close())
	}
	app, err := newShop(old.format, keys, sessions)
	if err != nil {
		return nil, errors.Join(err, old.close(), sessions.Close())
	}
	s := &shop{old: old, front: newFront(old, app)}
	// Forms from other sites are refused, for both applications.
	s.site = http.NewCrossOriginProtection().Handler(s.front)
	s.close = func() error {
		return errors.Join(app.close(), old.close(), old.release(), sessions.Close())
	}
	return s, nil
}

func serve(ctx context.Context, kind, data, listen, admin string, stdout io.Writer) (err error) {
	s, err := openShop(kind, data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	site, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	defer site.Close()
	board, err := net.Listen("tcp", admin)
	if err != nil {
		return err
	}
	defer board.Close()

	fmt.Fprintf(stdout, `The old shop is %s. %s
The shop:        http://%s/      (Ctrl+C closes it)
The switchboard: http://%s/

Look into the shop, put something into the cart, log in; then move it, page by page:
  curl -X POST 'http://%[4]s/route?path=/cart&to=new'      also /login, /logout and /; to=old moves back
  curl http://%[4]s/                                       how far the move is
  curl -X POST 'http://%[4]s/phase?to=adopt'               from here on the new shop has sessions of its own
  curl -X POST 'http://%[4]s/phase?to=alone'               the old shop is switched off
`, s.old.describe(), s.old.warning(), listen, admin)
	servers := []*http.Server{
		{Handler: s.site, ReadHeaderTimeout: 5 * time.Second},
		{Handler: s.front.admin(), ReadHeaderTimeout: 5 * time.Second},
	}
	served := make(chan error, 2)
	for i, l := range []net.Listener{site, board} {
		go func() { served <- servers[i].Serve(l) }()
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(servers[0].Shutdown(grace), servers[1].Shutdown(grace))
}

// describe names the old shop.
func (o *oldApp) describe() string {
	switch o.kind {
	case oldBeaker:
		return "Python with Beaker, sessions in files"
	case oldWebapp2:
		return "Python with webapp2, sessions in signed cookies"
	}
	return "not here"
}

// warning describes what is missing.
func (o *oldApp) warning() string {
	if o.kind != oldRecorded {
		return ""
	}
	return "\n*** No Python with Beaker or webapp2 was found: the old shop's pages are NOT ANSWERED.\n*** Its visitors are recordings: their cookies are in examples/migrate/recorded/beaker.json.\n*** On Debian: apt-get install python3-beaker\n"
}
