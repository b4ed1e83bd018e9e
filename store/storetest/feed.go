package storetest

import (
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// A follower reads a store's feed of ends.
type follower struct {
	*harness
	cursor string
}

func (h *harness) follow(cursor string) *follower {
	h.Helper()
	f := &follower{h, cursor}
	if cursor == store.FeedFromNow {
		f.read(100)
	}
	return f
}

// read returns the ends since the last read, from pages of about limit.
func (f *follower) read(limit int) map[store.ID]time.Time {
	f.Helper()
	heard := map[store.ID]time.Time{}
	for range 10_000 {
		page, err := f.store.(store.EndFeed).Ends(f.Context(), f.cursor, limit)
		if err != nil {
			f.Fatalf("Ends: %v", err)
		}
		if page.Cursor == "" {
			f.Fatalf("Ends returned an empty cursor, which would restart")
		}
		if len(page.Ends) > 4*limit+4096 {
			f.Fatalf("Ends returned %d ends for a limit of %d", len(page.Ends), limit)
		}
		f.cursor = page.Cursor
		for _, e := range page.Ends {
			heard[e.ID] = e.Until
		}
		if !page.More {
			return heard
		}
	}
	f.Fatalf("Ends says More without end")
	return nil
}

// hears fails the test unless the feed has the ends of all these sessions.
func (f *follower) hears(ids ...store.ID) {
	f.Helper()
	heard := f.read(100)
	for _, id := range ids {
		if _, ok := heard[id]; !ok {
			f.Fatalf("the feed returned %d ends, without one of the %d that happened: a stream of that session would go on", len(heard), len(ids))
		}
	}
}

var feedTests = []scenario{
	{"tells every way in which a session ends", func(h *harness) {
		marked, deleted, never := h.inserted(first()), h.inserted(first()), newID()
		f := h.follow(store.FeedFromNow)
		h.saved(ended(marked, time.Hour), marked.Base())
		h.deleted(deleted.ID, now().Add(time.Hour))
		h.deleted(never, now().Add(time.Hour))
		inserted := ended(first(), time.Hour)
		h.inserted(inserted)
		want := []store.ID{marked.ID, deleted.ID, never, inserted.ID}
		if l, ok := h.store.(store.UserLimiter); ok {
			ann := newUser()
			old := h.logins(ann, 1)
			if _, err := l.SaveLimited(h.Context(), login(ann), store.UserLimit{Max: 1, Until: now().Add(time.Hour)}); err != nil {
				h.Fatalf("SaveLimited: %v", err)
			}
			want = append(want, old[0].ID)
		}
		f.hears(want...)
	}},

	{"tells until when the mark is kept", func(h *harness) {
		rec := h.inserted(first())
		f := h.follow(store.FeedFromNow)
		until := now().Add(42 * time.Minute)
		h.deleted(rec.ID, until)
		if got := f.read(100)[rec.ID]; !got.Equal(until) {
			h.Errorf("the feed says that the mark is kept until %v, want %v", got, until)
		}
	}},

	{"tells a later deadline", func(h *harness) {
		rec := h.inserted(first())
		h.deleted(rec.ID, now().Add(time.Hour))
		f := h.follow(store.FeedFromNow)
		until := now().Add(2 * time.Hour)
		h.deleted(rec.ID, until)
		if got := f.read(100)[rec.ID]; !got.Equal(until) {
			h.Errorf("the feed says that the mark is kept until %v, want %v, as the second Delete said", got, until)
		}
	}},

	{"does not tell of live sessions", func(h *harness) {
		f := h.follow(store.FeedFromNow)
		rec := h.inserted(first())
		two := h.following(rec)
		h.conflicts(ended(rec, time.Hour), rec.Base(), "a newer version is stored")
		if heard := f.read(100); len(heard) != 0 {
			h.Errorf("the feed tells of %d ends, want none: version %d is live", len(heard), two.Version)
		}
	}},

	{"a reader that starts now gets the later ends", func(h *harness) {
		before := h.inserted(first())
		h.deleted(before.ID, now().Add(time.Hour))
		f := h.follow(store.FeedFromNow)
		for range 3 {
			rec := h.inserted(first())
			h.deleted(rec.ID, now().Add(time.Hour))
			f.hears(rec.ID)
		}
	}},

	{"a cursor can be used again", func(h *harness) {
		f := h.follow(store.FeedFromNow)
		rec := h.inserted(first())
		h.deleted(rec.ID, now().Add(time.Hour))
		crashed := *f // after reading, before acting on it
		crashed.hears(rec.ID)
		f.hears(rec.ID)
	}},

	{"a reader from the start gets every tombstone that is still kept", func(h *harness) {
		var want []store.ID
		for range 5 {
			rec := h.inserted(first())
			h.deleted(rec.ID, now().Add(time.Hour))
			want = append(want, rec.ID)
		}
		marked := h.inserted(first())
		h.saved(ended(marked, time.Hour), marked.Base())
		want = append(want, marked.ID)
		f := h.follow(store.FeedFromStart)
		heard := f.read(2)
		for _, id := range want {
			if _, ok := heard[id]; !ok {
				h.Fatalf("a reader from the start got %d ends, without one of the %d that are kept", len(heard), len(want))
			}
		}
		rec := h.inserted(first())
		h.deleted(rec.ID, now().Add(time.Hour))
		f.hears(rec.ID)
	}},

	{"readers do not disturb each other", func(h *harness) {
		a, b := h.follow(store.FeedFromNow), h.follow(store.FeedFromNow)
		rec := h.inserted(first())
		h.deleted(rec.ID, now().Add(time.Hour))
		a.hears(rec.ID)
		b.hears(rec.ID)
	}},

	{"many ends come in pages", func(h *harness) {
		f := h.follow(store.FeedFromNow)
		ids := make([]store.ID, h.some(100))
		together(len(ids), func(i int) {
			ids[i] = newID()
			if err := h.store.Delete(h.Context(), ids[i], now().Add(time.Hour)); err != nil {
				h.Errorf("Delete: %v", err)
			}
		})
		heard := f.read(7)
		for _, id := range ids {
			if _, ok := heard[id]; !ok {
				h.Fatalf("the feed returned %d of %d ends", len(heard), len(ids))
			}
		}
	}},

	{"misses no end that happens while it is read", func(h *harness) {
		f := h.follow(store.FeedFromNow)
		var mu sync.Mutex
		done := map[store.ID]bool{}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range h.some(20) {
					id := newID()
					if err := h.store.Delete(h.Context(), id, now().Add(time.Hour)); err != nil {
						h.Errorf("Delete: %v", err)
						return
					}
					mu.Lock()
					done[id] = true
					mu.Unlock()
				}
			})
		}
		defer wg.Wait() // also when the test fails
		over := make(chan struct{})
		go func() { wg.Wait(); close(over) }()
		heard := map[store.ID]bool{}
		for reading := true; reading; {
			select {
			case <-over:
				reading = false
			default:
			}
			mu.Lock()
			before := len(done)
			want := make([]store.ID, 0, before)
			for id := range done {
				want = append(want, id)
			}
			mu.Unlock()
			for id := range f.read(h.some(50)) {
				heard[id] = true
			}
			for _, id := range want {
				if !heard[id] {
					h.Fatalf("an end that was reported before a read is not in it, nor in those before")
				}
			}
		}
	}},

	{"refuses what is not a cursor", func(h *harness) {
		for _, cursor := range []string{"no cursor", "-1", "'; --", "18446744073709551616"} {
			if _, err := h.store.(store.EndFeed).Ends(h.Context(), cursor, 10); err == nil {
				h.Errorf("Ends with the cursor %q: no error", cursor)
			}
		}
	}},
}
