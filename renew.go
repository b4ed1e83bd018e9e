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

// Renew returns the value, replaced first if stale says so: an access token that
// is about to expire, with a refresh token that is good once. Of all requests of
// the session, on all replicas, one at a time runs fetch; the others wait for its
// result, until their ctx is done. The key has to be [ServerSide] and must not be
// [Volatile], or Renew panics.
//
// fetch gets ctx's values, but not its cancellation, and 30 seconds: a refresh that
// has begun is finished and kept even if the client leaves. It must not use the
// response or change the session. The result is saved at once, again and again
// while the store is away, and without the request's other changes. stale must
// depend on its argument only; it is asked about the value as the store has it now.
// A value that this request has set, or that was kept in the cookie until now, is
// saved first, as by [Session.Save].
//
// With an error the value is the newest that is kept, and errors are:
//
//   - [ErrNoValue], if there is none;
//   - [ErrRenewFailed], if fetch has failed, here or in another process. Its own
//     error is wrapped in the process that it has failed in. All that waited get
//     it; the next call tries again;
//   - [ErrEnded], if the session has ended. When that was during fetch, or the value
//     was removed (ErrNoValue) or has no room (ErrTooLarge), the value is what fetch
//     has returned, so that it can be revoked. A caller whose ctx is done is not
//     told of that: use [context.WithoutCancel] to wait for it;
//   - ctx's, or one of [Session.Save]. After [ErrUnavailable] the result may still be
//     kept later.
//
// A value that somebody else has set meanwhile stays if it is not stale. Login waits
// for a refresh, for twice Config.Timeout at most; Logout and revocation do not.
// [Manager.Close] waits until what was fetched is kept, or once more for Config.Timeout.
//
// If a process dies while fetch runs, or cannot reach the store, others take over
// after twice Config.Timeout (10 seconds by default). They cannot tell a process that
// was stopped for longer from a dead one: then fetch runs twice with one value.
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

// toRenew returns the session as the store has it, together with the value that
// the request sees.
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

// keptInStore reports whether a value that the request sees is in the store, in the
// session that the request goes on with.
func (s *session) keptInStore(name string, raw []byte) bool {
	if s.last.Where != rules.Stored || s.login != nil || s.ending != nil {
		return false
	}
	f, ok := s.last.Rec.Find(name)
	return ok && f.Flags&record.ServerSide != 0 && bytes.Equal(f.Value, raw)
}

// goOnFrom lays the request's pending changes on top of a newer state.
func (s *session) goOnFrom(st *stored.State) {
	s.lock()
	defer s.mu.Unlock()
	last := s.last
	if last.Where != rules.Stored || last.ID != st.ID || last.Meta.Version >= st.Meta.Version || s.login != nil || s.ending != nil {
		return
	}
	if s.draft.Rebase(&st.Rec) != nil {
		return // the commit will say why
	}
	if last.Rec.Header.Generation != st.Rec.Header.Generation {
		s.presentDue, s.rotateDue = false, false // that was said of another credential
	}
	s.last = st
	if s.m.caches && s.setsCookies() {
		s.setFloor(st, s.m.now())
	}
}

// renewUnheard logs that a refresh has come to nothing after its request. The
// provider's error may hold secrets, and so may what a function panics with.
func (m *core) renewUnheard(st *stored.State, err error) {
	if errors.Is(err, ErrRenewFailed) {
		err = ErrRenewFailed
	}
	m.log.Report(slog.LevelError, "a value that was renewed for a request which has gone could not be kept",
		slog.String("session", st.ID.String()), slog.Any("error", err))
}
