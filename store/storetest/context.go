package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
		const writers = 8
		each := h.some(10)
		rec := first()
		rec.Data = make([]byte, 8*writers)
		h.inserted(rec)
		together(writers, func(writer int) {
			for n := range each {
				if err := cancelledCount(h, rec.ID, writer, uint64(n+1)); err != nil {
					h.Errorf("writer %d: %v", writer, err)
					return
				}
			}
		})
		for writer := range writers {
			if n := binary.BigEndian.Uint64(h.load(rec.ID).Data[8*writer:]); n != uint64(each) {
				h.Errorf("writer %d has counted to %d, want %d: a save that was cancelled and sent again was lost", writer, n, each)
			}
		}
	}},
}

// cancelledCount sets the writer's own number in a session's Data to n, from one
// less. Each save is first sent with a context that is canceled at a random moment.
func cancelledCount(h *harness, id store.ID, writer int, n uint64) error {
	var unknown uint64 // the version of the last save with an unknown outcome; 0 = none
	for {
		stored, err := h.store.Load(h.Context(), id)
		if err != nil {
			return err
		}
		switch was := binary.BigEndian.Uint64(stored.Data[8*writer:]); {
		case was == n && unknown > 0 && stored.Version >= unknown+store.RecentSaveIDs:
			return nil // many others have saved since, so the record no longer has its save ID
		case was != n-1:
			return fmt.Errorf("its number is %d, want %d: a save was applied although the answer was ErrConflict, or lost", was, n-1)
		}
		rec := next(stored)
		rec.Data = bytes.Clone(stored.Data)
		binary.BigEndian.PutUint64(rec.Data[8*writer:], n)

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
			unknown = rec.Version
			err = h.store.Save(h.Context(), rec, stored.Base())
		}
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}
