// Command bench compares Sojourn with alternative libraries, on identical
// handlers, in one run:
//
//	go run .                 what one process can do: about four minutes
//	go run . -quick          less than one
//	go run . engines         on Redis and PostgreSQL, which it starts: two minutes
//	go run . engines -full   twenty
//	go run . sizes           how many bytes a session takes on each engine
//
// It prints Markdown. README.md describes the method and has the last results.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"time"
)

// options say how long to measure.
type options struct {
	rounds     int
	turn       time.Duration // of one library in one round
	loadRounds int
	loadTurn   time.Duration
}

var (
	full  = options{rounds: 25, turn: 50 * time.Millisecond, loadRounds: 7, loadTurn: 1500 * time.Millisecond}
	quick = options{rounds: 9, turn: 20 * time.Millisecond, loadRounds: 3, loadTurn: 600 * time.Millisecond}
)

func main() {
	// A context as in net/http's server, which ends with Ctrl-C.
	ctx := context.WithValue(context.Background(), http.ServerContextKey, &http.Server{})
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	run := benchLibraries
	args := os.Args[1:]
	if len(args) > 0 {
		switch args[0] {
		case "engines":
			run, args = benchEngines, args[1:]
		case "sizes":
			run, args = measureSizes, args[1:]
		case "serve": // what engines starts
			run, args = serveSide, args[1:]
		}
	}
	if err := run(ctx, args); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// benchLibraries measures what one process can do.
func benchLibraries(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	short := flags.Bool("quick", false, "measure for less than a minute, less exactly")
	_ = flags.Parse(args) // ExitOnError
	o := full
	if *short {
		o = quick
	}
	temp, err := os.MkdirTemp("", "sojourn-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if err := printMachine(temp); err != nil {
		return err
	}
	printDirectHeader()
	for _, sc := range directScenarios() {
		results, err := sc.run(ctx, temp, o)
		if err != nil {
			return fmt.Errorf("%s: %w", sc.title, err)
		}
		printDirect(sc.title, results)
	}
	fmt.Println("\ngorilla/sessions has no middleware: a request that does not use it is answered by the bare handler.")

	fmt.Printf("\n%d visitors at once over HTTP on the loopback interface, 80 %% reads, 20 %% writes:\n\n", parallelVisitors)
	results, err := runLoopback(ctx, temp, o)
	if err != nil {
		return fmt.Errorf("over HTTP: %w", err)
	}
	printLoadHeader("", "requests/s")
	printLoads("", results)

	fmt.Print("\nDurable writes on SQLite, in-process, each on the disk before it is answered:\n\n")
	printLoadHeader("at once", "saves/s")
	for _, n := range writerCounts {
		results, err := runDurable(ctx, temp, n, o)
		if err != nil {
			return fmt.Errorf("%d writers: %w", n, err)
		}
		printLoads(strconv.Itoa(n)+" writers", results)
	}
	return nil
}
