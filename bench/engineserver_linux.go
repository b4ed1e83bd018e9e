package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// usage is a serving process's resource usage since its start.
type usage struct {
	CPU          time.Duration
	Allocs       uint64
	Hits, Misses uint64 // of its cache
}

// usagePath answers a usage, after a garbage collection, so that earlier
// garbage is not counted.
const usagePath = "/bench/usage"

// withUsage adds usagePath to the library's handlers.
func withUsage(lib library) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", handlers(lib))
	mux.HandleFunc(usagePath, func(w http.ResponseWriter, _ *http.Request) {
		var u usage
		var memory runtime.MemStats
		var taken syscall.Rusage
		runtime.GC()
		runtime.ReadMemStats(&memory)
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &taken); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		u.Allocs = memory.Mallocs
		u.CPU = time.Duration(taken.Utime.Nano() + taken.Stime.Nano())
		if o, ok := lib.(*ours); ok && o.caches != nil {
			u.Hits, u.Misses = o.caches.CacheStats()
		}
		_ = json.NewEncoder(w).Encode(u)
	})
	return mux
}

// serveSide is the serving process: it serves one side, prints its address, and
// ends when its standard input ends, with its parent process.
func serveSide(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("serve: the name of a side and the engines are needed")
	}
	var e engines
	if err := json.Unmarshal([]byte(args[1]), &e); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	for _, s := range engineSides() {
		if s.name != args[0] {
			continue
		}
		lib, err := s.open(ctx, e)
		if err != nil {
			return err
		}
		defer lib.close()
		addr, stop, err := serve(ctx, withUsage(lib))
		if err != nil {
			return err
		}
		defer stop()
		fmt.Println(addr)
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	}
	return fmt.Errorf("serve: no side is called %q", args[0])
}

// served is a side in a separate process.
type served struct {
	engineSide
	addr string
	stop func()
}

// serveApart starts a process that serves the side.
func serveApart(ctx context.Context, s engineSide, e engines) (served, error) {
	program, err := os.Executable()
	if err != nil {
		return served{}, err
	}
	where, err := json.Marshal(e)
	if err != nil {
		return served{}, err
	}
	cmd := exec.CommandContext(ctx, program, "serve", s.name, string(where))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return served{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return served{}, err
	}
	if err := cmd.Start(); err != nil {
		return served{}, err
	}
	stop := func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return served{}, fmt.Errorf("%s does not serve: %w", s.name, err)
	}
	return served{s, strings.TrimSpace(line), stop}, nil
}

func (s served) usage(ctx context.Context) (usage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+usagePath, nil)
	if err != nil {
		return usage{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return usage{}, err
	}
	defer resp.Body.Close()
	var u usage
	return u, json.NewDecoder(resp.Body).Decode(&u)
}
