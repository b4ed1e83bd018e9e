package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

var contextTests = []scenario{
	{"a call whose context is over fails and changes nothing for good", func(h *harness) {
		cancelled, cancel := context.WithCancel(h.Context())
		cancel()
		late, cancel := context.WithDeadline(h.Context(), now().Add(-time.Second))
		defer cancel()
		for _, c := range []struct {
			ctx  context.Context
			want error
		}{
			{cancelled, context.Canceled},
			{late, context.DeadlineExceeded},
		} {
			rec := h.inserted(login(newUser()))
			save := next(rec)
			fails := func(call string, err error) {
				h.Helper()
				if !errors.Is(err, c.want) {
					h.Errorf("%s with a context that is over: %v, want an error that is %v", call, err, c.want)
				}
			}
			_, err := h.store.Load(c.ctx, rec.ID)
			fails("Load", err)
			fails("Save", h.store.Save(c.ctx, save, rec.Base()))
			if s, ok := h.store.(store.Toucher); ok {
				fails("Touch", s.Touch(c.ctx, rec.ID, now(), now().Add(time.Hour)))
			}
			if s, ok := h.store.(store.Sweeper); ok {
				_, err := s.Sweep(c.ctx, time.Hour, 10)
				fails("Sweep", err)
			}
			if s, ok := h.store.(store.UserIndex); ok {
				_, err := s.ByUser(c.ctx, rec.User)
				fails("ByUser", err)
			}
			if s, ok := h.store.(store.UserLimiter); ok {
				_, err := s.SaveLimited(c.ctx, login(rec.User), store.UserLimit{Max: 3, Until: now().Add(time.Hour)})
				fails("SaveLimited", err)
			}
			if s, ok := h.store.(store.EndFeed); ok {
				_, err := s.Ends(c.ctx, store.FeedFromNow, 10)
				fails("Ends", err)
			}
			if s, ok := h.store.(store.Scanner); ok {
				_, _, err := s.Scan(c.ctx, "", 10)
				fails("Scan", err)
			}
			if s, ok := h.store.(store.Counter); ok {
				_, err := s.Count(c.ctx)
				fails("Count", err)
			}
			// Whether it was applied or not, the same save sent again succeeds.
			h.saved(save, rec.Base())
			h.same(h.load(rec.ID), save)

			fails("Delete", h.store.Delete(c.ctx, rec.ID, now().Add(time.Hour)))
			h.deleted(rec.ID, now().Add(time.Hour))
			h.staysEnded(rec.ID)
		}
	}},

	{"saves cancelled half-way are settled by sending them again", func(h *harness) {
		each := h.some(10)
		rec := first()
		rec.Data = binary.BigEndian.AppendUint64(nil, 0)
		h.inserted(rec)
		together(8, func(int) {
			for range each {
				if err := cancelledIncrement(h, rec.ID); err != nil {
					h.Errorf("increment: %v", err)
					return
				}
			}
		})
		if n := binary.BigEndian.Uint64(h.load(rec.ID).Data); n != uint64(8*each) {
			h.Errorf("the counter is %d, want %d: a save that was cancelled and sent again was lost or applied twice", n, 8*each)
		}
	}},
}

// cancelledIncrement adds one to the counter in a session's Data. Each save is
// first sent with a context that is canceled at a random moment.
func cancelledIncrement(h *harness, id store.ID) error {
	for {
		stored, err := h.store.Load(h.Context(), id)
		if err != nil {
			return err
		}
		rec := next(stored)
		rec.Data = binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(stored.Data)+1)

		ctx, cancel := context.WithCancel(h.Context())
		go func() {
			for range rand.IntN(200) {
				runtime.Gosched()
			}
			cancel()
		}()
		sent := rec
		sent.SaveIDs = slices.Clone(rec.SaveIDs)
		err = h.store.Save(ctx, sent, stored.Base())
		cancel()
		clear(sent.SaveIDs) // the caller may reuse them after any outcome
		if err != nil && !errors.Is(err, store.ErrConflict) {
			err = h.store.Save(h.Context(), rec, stored.Base())
		}
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}
