package sojourn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/stored"
)

// Renew returns the value, after replacing it with the result of fetch if stale
// returns true: for example an access token, by a refresh token that can be
// used once. Of all requests of the session, on all replicas, one at a time
// runs fetch; the others wait for its result, or until their ctx is done. Renew
// panics unless the key is [ServerSide] and not [Volatile].
//
// fetch gets the values of ctx but not its cancellation, and has 30 seconds, so
// a started refresh is completed even if the client disconnects. It must not
// use the response or change the session. Its result is saved at once, with
// retries while the store is unavailable, and without the request's other
// changes. stale must depend only on its argument, the value in the store. A
// value that this request has set, or that was in the cookie, is saved first,
// as by Save.
//
// On an error, the returned value is the newest saved one. The errors are:
//
//   - [ErrNoValue]: there is no value.
//   - [ErrRenewFailed]: fetch failed. In the process that ran it, the error wraps that
//     of fetch. All waiting calls return it; the next call tries again.
//   - [ErrEnded]: the session has ended. If it ended during fetch, the returned value is
//     the result of fetch, so that you can revoke it; likewise for ErrNoValue (it was
//     removed) and ErrTooLarge. A call with a canceled ctx does not return it: pass
//     [context.WithoutCancel].
//   - The error of ctx, or one of [Session.Save]. After [ErrUnavailable], the result may
//     still be saved later.
//
// A value that another request sets during fetch stays if it is not stale.
// Login waits for a refresh, at most twice Config.Timeout; Logout and
// revocation do not. [Manager.Close] waits for fetch, and at most
// Config.Timeout for the save.
//
// If the process that runs fetch dies, is suspended, or cannot reach the store,
// another one takes over after twice Config.Timeout. After a suspension, fetch
// may run with the same value.
func (k Key[T]) Renew(ctx context.Context, s *Session, stale func(T) bool, fetch func(ctx context.Context, old T) (T, error)) (T, error) {
	v := new(T)
	err := k.of.renew(ctx, s, v,
		func(v any) bool { return stale(*v.(*T)) },
		func(ctx context.Context, v any) (err error) {
			p := v.(*T)
			*p, err = fetch(ctx, *p)
			return err
		})
	return *v, err
}

func (k *key) renew(ctx context.Context, s *Session, to any, stale func(v any) bool, fetch func(ctx context.Context, v any) error) error {
	if k.Flags&record.ServerSide == 0 || k.Flags&record.Volatile != 0 || len(k.Name) > stored.MaxRenewName {
		panic(fmt.Sprintf("sojourn: Renew of %.40q: use a ServerSide key that is not Volatile, with a name of at most %d bytes", k.Name, stored.MaxRenewName))
	}
	if err := k.lookup(s, to); err != nil {
		reflect.ValueOf(to).Elem().SetZero() // a codec may have begun to fill it in
		return err
	}
	if !stale(to) {
		return nil
	}
	st, err := s.toRenew(ctx, k.Slot)
	if err != nil {
		return err
	}
	read := func(raw []byte) (any, error) {
		v := reflect.New(k.typ).Interface()
		return v, k.read(raw, v)
	}
	done, err := s.m.stored.Renew(ctx, stored.Renewal{
		State: st, Slot: k.Slot,
		Stale: func(raw []byte) (bool, error) {
			v, err := read(raw)
			return err == nil && stale(v), err
		},
		Fetch: func(ctx context.Context, raw []byte) ([]byte, error) {
			v, err := read(raw)
			if err == nil {
				err = fetch(ctx, v)
			}
			if err != nil {
				return nil, err
			}
			return k.write(v)
		},
		Unheard: func(err error) { s.m.renewUnheard(st, err) },
	})
	switch {
	case done.Raw != nil:
		reflect.ValueOf(to).Elem().SetZero()
		err = errors.Join(err, k.read(done.Raw, to))
	case errors.Is(err, ErrNoValue):
		reflect.ValueOf(to).Elem().SetZero()
	}
	if done.State != nil {
		s.goOnFrom(done.State)
	}
	return err
}

// toRenew returns the session as it is in the store, together with the value
// that the request sees.
func (s *session) toRenew(ctx context.Context, k draft.Slot) (*stored.State, error) {
	s.lock()
	defer s.mu.Unlock()
	switch {
	case s.m.mode == CookieOnly:
		return nil, fmt.Errorf("%w: Renew of %q", ErrNoStore, k.Name)
	case s.phase == phaseDraft:
		return nil, errDraft
	case s.phase == phaseOver:
		return nil, s.late
	}
	raw, ok := s.raw(k.Name)
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrNoValue, k.Name)
	}
	if !s.keptInStore(k.Name, raw) {
		s.put(k, raw)
		if err := s.save(ctx); err != nil {
			return nil, err
		}
	}
	return s.last, nil
}

// keptInStore reports whether the value that the request sees is in the store,
// in the session that the request will have after its commit.
func (s *session) keptInStore(name string, raw []byte) bool {
	if s.last.Where != rules.Stored || s.login != nil || s.ending != nil {
		return false
	}
	f, ok := s.last.Rec.Find(name)
	return ok && f.Flags&record.ServerSide != 0 && bytes.Equal(f.Value, raw)
}

// goOnFrom applies the request's pending changes to a newer state.
func (s *session) goOnFrom(st *stored.State) {
	s.lock()
	defer s.mu.Unlock()
	last := s.last
	if last.Where != rules.Stored || last.ID != st.ID || last.Meta.Version >= st.Meta.Version || s.login != nil || s.ending != nil {
		return
	}
	if s.draft.Rebase(&st.Rec) != nil {
		return // the commit will return the error
	}
	if last.Rec.Header.Generation != st.Rec.Header.Generation {
		s.presentDue, s.rotateDue = false, false // they were true of another credential
	}
	s.last = st
	if s.m.caches && s.setsCookies() {
		s.setFloor(st, s.m.now())
	}
}

// renewUnheard logs that a refresh failed after its request had ended. The
// provider's error, or the value of a panic, may contain secrets.
func (m *core) renewUnheard(st *stored.State, err error) {
	if errors.Is(err, ErrRenewFailed) {
		err = ErrRenewFailed
	}
	m.log.Report(slog.LevelError, "a renewed value could not be saved after its request had ended",
		slog.String("session", st.ID.String()), slog.Any("error", err))
}
