package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/fault"
)

type probe struct {
	sessions *sojourn.Manager

	stopping    chan struct{} // closed when streams are to end
	stopStreams func()
}

// newProbe makes a probe whose sessions are kept as cfg says.
func newProbe(cfg sojourn.Config) (*probe, error) {
	p := &probe{stopping: make(chan struct{})}
	p.stopStreams = sync.OnceFunc(func() { close(p.stopping) })
	cfg.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
		refuse(w, statusOf(err), refusal{err.Error(), errors.Is(err, fault.ErrUnknown)})
	}
	var err error
	p.sessions, err = sojourn.New(cfg)
	return p, err
}

func (p *probe) handler() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, h sessionHandler) { mux.Handle("GET "+path, p.with(h)) }
	post := func(path string, h sessionHandler) { mux.Handle("POST "+path, p.with(delayed(h))) }

	get("/info", p.info)
	get("/get", p.get)
	get("/all", p.all)
	post("/set", p.set())
	post("/set-serverside", p.set(sojourn.ServerSide))
	post("/set-volatile", p.set(sojourn.Volatile))
	post("/incr", p.incr)
	post("/append", p.append)
	post("/pop", p.pop)
	post("/delete", p.delete)
	post("/clear", p.clear)
	post("/renew", p.renew)

	post("/flash", p.flash)
	get("/flashes", p.flashes)
	post("/login", p.login)
	post("/logout", p.logout)
	post("/rotate", p.rotate)

	get("/sessions", p.userSessions)
	post("/revoke", p.revoke)
	post("/revoke-user", p.revokeUser)

	post("/fail", p.fail)
	get("/stream", p.stream)
	get("/late-set", p.lateSet)
	get("/panic", p.panic)
	get("/big", p.big)

	mux.HandleFunc("GET /untouched", p.untouched)
	mux.HandleFunc("GET /stats", p.stats)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, "no such endpoint: "+r.Method+" "+r.URL.Path)
	})

	// One Wrap around everything: requests that do not use a session cost nothing.
	return p.sessions.Wrap(mux)
}

// sessionHandler answers a request whose session was loaded and whose
// parameters were parsed. A returned error is answered by its kind.
type sessionHandler func(http.ResponseWriter, *http.Request, *sojourn.Session) error

func (p *probe) with(h sessionHandler) http.Handler {
	return p.sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		err := r.ParseForm()
		if err != nil {
			err = badParameter("the parameters cannot be read: %v", err)
		} else {
			err = h(w, r, session)
		}
		var bad parameterError
		switch {
		case errors.As(err, &bad):
			fail(w, http.StatusBadRequest, bad.Error())
		case err != nil:
			p.sessions.ServeError(w, r, err)
		}
	})
}

// delayed lets a request hold a loaded session for delay=MS before it changes
// it. It continues when the client disconnects, like a slow handler.
func delayed(h sessionHandler) sessionHandler {
	return func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
		delay, err := milliseconds(r, "delay", 0)
		if err != nil {
			return err
		}
		time.Sleep(delay)
		return h(w, r, session)
	}
}

// parameterError is a mistake in a request's parameters.
type parameterError string

func (e parameterError) Error() string { return string(e) }

func badParameter(format string, args ...any) error {
	return parameterError(fmt.Sprintf(format, args...))
}

// key returns the parameter that names a session value.
func key(r *http.Request) (string, error) {
	name := r.Form.Get("key")
	if name == "" || len(name) > 255 || name[0] == '_' {
		return "", badParameter("key: use 1 to 255 bytes that do not start with \"_\"")
	}
	return name, nil
}

// number returns an integer parameter, or otherwise if it is not given.
func number(r *http.Request, name string, otherwise, limit int) (int, error) {
	text := r.Form.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > limit {
		return 0, badParameter("%s: use a number from 0 to %d", name, limit)
	}
	return n, nil
}

func milliseconds(r *http.Request, name string, otherwise int) (time.Duration, error) {
	n, err := number(r, name, otherwise, 10*60*1000)
	return time.Duration(n) * time.Millisecond, err
}

// answer writes a JSON answer. The session is committed before its first byte.
func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	// An error means that the client has disconnected, or that the commit
	// failed, which the library has answered.
	_ = json.NewEncoder(w).Encode(v)
	return nil
}

// refusal is the answer to a request that failed.
type refusal struct {
	Error string `json:"error"`
	// Unknown: the store may have kept the change, or may yet.
	Unknown bool `json:"unknown"`
}

func fail(w http.ResponseWriter, status int, text string) { refuse(w, status, refusal{Error: text}) }

func refuse(w http.ResponseWriter, status int, why refusal) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(why)
}

// statusOf maps the library's errors to statuses, as the library itself does
// for a plain text answer.
func statusOf(err error) int {
	is := func(kinds ...error) bool {
		return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
	}
	switch {
	case is(sojourn.ErrTooLarge):
		return http.StatusRequestEntityTooLarge
	case is(sojourn.ErrEnded, sojourn.ErrExpired, sojourn.ErrTaken, sojourn.ErrTooManySessions, sojourn.ErrCrossSite):
		return http.StatusConflict
	case is(sojourn.ErrNoMiddleware, sojourn.ErrBadValue, sojourn.ErrNoStore, sojourn.ErrTooLate, errors.ErrUnsupported):
		return http.StatusInternalServerError
	default:
		return http.StatusServiceUnavailable
	}
}

type ok struct {
	OK bool `json:"ok"`
}
