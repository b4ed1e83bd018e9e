package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/ops"
)

func (p *probe) untouched(w http.ResponseWriter, _ *http.Request) {
	io.WriteString(w, "ok")
}

func (p *probe) stats(w http.ResponseWriter, _ *http.Request) {
	s := ops.For(p.sessions).Stats()
	_ = answer(w, map[string]uint64{
		"loads":            s.Loads,
		"saves":            s.Saves,
		"conflicts":        s.Conflicts,
		"retries":          s.Retries,
		"touches":          s.Touches,
		"rejected_cookies": s.RejectedCookies,
		"cache_hits":       s.CacheHits,
		"cache_misses":     s.CacheMisses,
		"store_errors":     s.StoreErrors,
	})
}

// fail changes the session and answers with an error, which keeps nothing.
func (p *probe) fail(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	name, err := key(r)
	if err != nil {
		return err
	}
	session.Set(name, r.Form.Get("value"))
	fail(w, http.StatusInternalServerError, "failed, as asked")
	return nil
}

// panic changes the session and aborts the response.
func (p *probe) panic(_ http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	name, err := key(r)
	if err != nil {
		return err
	}
	session.Set(name, "from a handler that panicked")
	panic(http.ErrAbortHandler)
}

// lateSet changes the session after the first byte of the response: kept in a
// stored session, too late for one that needs a cookie.
func (p *probe) lateSet(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	name, err := key(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, ".")
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	session.Set(name, r.Form.Get("value"))
	if err := session.Save(r.Context()); err != nil {
		fmt.Fprintf(w, "\n%v\n", err)
	}
	return nil
}

// keepAlive is how often a stream sends a comment, so that proxies do not close
// it: nginx does after a minute without data.
const keepAlive = 15 * time.Second

// stream sends server-sent events until there were enough of them, the session
// ends, or the client leaves. Waiting does not count as activity.
func (p *probe) stream(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	events, err := number(r, "events", 10, 1_000_000)
	if err != nil {
		return err
	}
	every, err := milliseconds(r, "every", 1000)
	if err != nil {
		return err
	}
	ended := session.Done()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // otherwise nginx buffers the events
	flush := http.NewResponseController(w).Flush
	if err := flush(); err != nil {
		return err
	}
	tick := time.NewTicker(max(every, time.Microsecond))
	defer tick.Stop()
	quiet := time.NewTicker(keepAlive)
	defer quiet.Stop()
	for i := 0; i < events; {
		select {
		case <-tick.C:
			fmt.Fprintf(w, "data: %d\n\n", i)
			i++
		case <-quiet.C:
			io.WriteString(w, ": still here\n\n")
		case <-ended:
			fmt.Fprintf(w, "event: ended\ndata: %s\n\n", why(session.Err()))
			return flush()
		case <-p.stopping:
			return nil
		case <-r.Context().Done():
			return nil
		}
		if err := flush(); err != nil {
			return nil // the client left
		}
	}
	return nil
}

func why(err error) string {
	switch {
	case errors.Is(err, sojourn.ErrExpired):
		return "expired"
	case errors.Is(err, sojourn.ErrClosed):
		return "closed"
	default:
		return "ended"
	}
}

// big reads from the session and serves a file: the response writer must not
// keep the kernel from sending it.
func (p *probe) big(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	size, err := number(r, "bytes", 1<<20, 1<<30)
	if err != nil {
		return err
	}
	session.Has("theme")
	f, err := os.CreateTemp("", "probe-*.bin")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		return err
	}
	http.ServeContent(w, r, "big.bin", time.Time{}, f)
	return nil
}
