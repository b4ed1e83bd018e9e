package adoption

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/store"
)

// adoptedAt returns when a legacy session was first adopted: zero if it was
// not, and a time long ago if unknown.
func (a *Adoption) adoptedAt(ctx context.Context, spent store.ID, now time.Time) (time.Time, error) {
	st, err := a.Sessions.Ask(ctx, spent, 0)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return time.Time{}, nil
	case errors.Is(err, stored.ErrDamaged), st != nil && st.Meta.Ended.After(now.Add(rules.Skew)):
		// The time, and so the start of the lifetime, is unknown.
		return time.Unix(0, 0), nil
	case st == nil:
		return time.Time{}, err
	case st.Meta.Expired(now):
		return time.Time{}, nil
	}
	return st.Meta.Ended, nil
}

// noteAdopted writes the note for adoptedAt: a tombstone of a session that
// never existed. Without it, an expired session could be adopted again.
func (a *Adoption) noteAdopted(ctx context.Context, spent store.ID, now, until time.Time) {
	if err := a.Sessions.Bury(ctx, spent, now, until); err != nil && !errors.Is(err, store.ErrConflict) {
		a.Log.Debug("could not note that a legacy session was adopted", slog.Any("error", err))
	}
}

// Refuse invalidates a user's legacy sessions that were issued up to now, or at
// an unknown time, and are not adopted yet.
func (a *Adoption) Refuse(ctx context.Context, user string) error {
	ctx, cancel := a.Sessions.Bounded(ctx)
	defer cancel()
	now := a.Now()
	for _, from := range a.From {
		if err := a.refuseIssued(ctx, from.Name(), user, now, now); err != nil {
			return err
		}
	}
	return nil
}

// refuseIssued writes a note that a user's sessions of one format issued up to
// that time must not be adopted. The note is a separate record, whose Seen is
// that time and never moves backwards.
func (a *Adoption) refuseIssued(ctx context.Context, source, user string, issued, now time.Time) error {
	id := a.mark("user", source, user)
	for attempt := 0; ; attempt++ {
		note, err := a.refusal(ctx, id, now)
		if err != nil {
			return err
		}
		until := rules.Later(note.rec.Expires, a.refusalsUntil(now))
		if note.total {
			return a.Sessions.Forget(ctx, id, until)
		}
		rec := note.rec
		if !rec.Seen.Before(issued) && !rec.Expires.Before(until) && !note.mended {
			return nil
		}
		err = a.Sessions.SaveDated(ctx, id, &rec, rules.Later(rec.Seen, issued), until, note.mended)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		if !stored.BackOff(ctx, attempt) {
			return fault.Away("save", ctx.Err())
		}
	}
}

// refusal is a note of refuseIssued; the zero refusal is none.
type refusal struct {
	rec    store.Record // sessions issued up to its Seen are refused
	mended bool         // a clock was ahead when it was written; the store still has that time
	total  bool         // all are refused, because the time is unknown
}

// refusal loads the note with that ID. A note that is damaged, or was ended as
// a session, refuses all sessions.
func (a *Adoption) refusal(ctx context.Context, id store.ID, now time.Time) (refusal, error) {
	st, err := a.Sessions.Ask(ctx, id, 0)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return refusal{}, nil
	case errors.Is(err, stored.ErrDamaged):
		return refusal{total: true}, nil
	case st == nil:
		return refusal{}, err
	case st.Meta.Expired(now):
		return refusal{}, nil
	case st.Meta.IsEnd():
		return refusal{total: true}, nil
	}
	return refusal{rec: st.Meta, mended: st.Mended}, nil
}

// checkRevoked returns refusedRevoked for a session that a note of refuseIssued covers.
func (a *Adoption) checkRevoked(ctx context.Context, old *adopt.Session, user string) error {
	if user == "" {
		return nil
	}
	now := a.Now()
	note, err := a.refusal(ctx, a.mark("user", old.Source, user), now)
	switch {
	case err != nil:
		return err
	case note.total:
		return refusedRevoked
	case note.rec.Version == 0:
		return nil
	case note.mended:
		// Sessions that the old application issues from now on are accepted again.
		if err := a.refuseIssued(ctx, old.Source, user, now, now); err != nil {
			return err
		}
	}
	if old.Issued.IsZero() || !old.Issued.After(note.rec.Seen) || old.Issued.After(now.Add(rules.Skew)) {
		return refusedRevoked
	}
	return nil
}
