package sojourn

import (
	"context"
	"reflect"
	"runtime"
	"time"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/fault"
)

// An Update function runs while its session is locked, and so do the codecs that
// it needs. One that uses its session would wait for itself for ever, and two
// that use each other's sessions would wait for each other: they are told so by
// a panic. Nothing else that waits is: a session may be locked by an Update in
// another goroutine, and using it from within another session's Update is fine.

const (
	stuckPause = time.Millisecond
	stuckTries = 1000 // of that pause: a second at least
)

// lock locks mu.
func (s *session) lock() {
	if s.mu.TryLock() {
		return
	}
	if s.updates.Load()%2 == 0 || !insideUpdate() {
		s.mu.Lock()
		return
	}
	// An Update of this session runs, and so does one in this goroutine. If they
	// are the same, or wait for each other, then nothing will move.
	before, still := s.updates.Load(), 0
	for !s.mu.TryLock() {
		if still++; still > stuckTries {
			panic(fault.Reentry)
		}
		time.Sleep(stuckPause)
		if now := s.updates.Load(); now != before || now%2 == 0 {
			before, still = now, 0
		}
	}
}

// check calls the function that LoginIf was given, with mu held. Other goroutines
// of the request wait meanwhile.
func (s *session) check(ctx context.Context, f func(context.Context) error) (err error) {
	_, _ = s.call(func([]byte, bool) ([]byte, error) {
		err = f(ctx)
		return nil, nil
	}, nil, false)
	return err
}

// call calls an Update function, with mu held by whoever waits for it.
func (s *session) call(f draft.Update, raw []byte, ok bool) ([]byte, error) {
	s.updates.Add(1)
	defer s.updates.Add(1)
	return callUpdate(f, raw, ok)
}

// callUpdate is what insideUpdate looks for on the stack.
//
//go:noinline
func callUpdate(f draft.Update, raw []byte, ok bool) ([]byte, error) { return f(raw, ok) }

// insideUpdate reports whether the calling goroutine is in callUpdate, which is
// known by its address: names depend on how a program is built.
func insideUpdate() bool {
	pcs := make([]uintptr, 256)
	n := runtime.Callers(2, pcs)
	for n == len(pcs) {
		pcs = make([]uintptr, 2*n)
		n = runtime.Callers(2, pcs)
	}
	entry := reflect.ValueOf(callUpdate).Pointer()
	frames := runtime.CallersFrames(pcs[:n])
	for {
		frame, more := frames.Next()
		if frame.Entry == entry {
			return true
		}
		if !more {
			return false
		}
	}
}
