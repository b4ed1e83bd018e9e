package storetest

import (
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// walk scans the store in pages and returns how often each ID was seen, the
// newest record seen of each, and how many pages there were.
func (h *harness) walk(limit int, between func()) (times map[store.ID]int, last map[store.ID]store.Record, pages int) {
	h.Helper()
	times, last = map[store.ID]int{}, map[store.ID]store.Record{}
	cursor := ""
	for {
		recs, next, err := h.store.(store.Scanner).Scan(h.Context(), cursor, limit)
		if err != nil {
			h.Fatalf("Scan of page %d: %v", pages+1, err)
		}
		if len(recs) > 10*limit {
			h.Fatalf("Scan returned %d records, want about %d: a page must fit into memory", len(recs), limit)
		}
		for _, rec := range recs {
			times[rec.ID]++
			last[rec.ID] = rec
		}
		pages++
		if next == "" {
			return times, last, pages
		}
		if pages > 2_000 {
			h.Fatalf("Scan has not ended after %d pages of %d, want an end even while records are added", pages, limit)
		}
		cursor = next
		between()
	}
}

var scanTests = []scenario{
	{"of an empty store ends at once", func(h *harness) {
		times, _, _ := h.walk(10, func() {})
		if len(times) != 0 {
			h.Errorf("Scan returned %d records, want none", len(times))
		}
	}},

	{"returns every record in pages, marks and expired ones too", func(h *harness) {
		var want []store.Record
		for range h.some(100) {
			live := h.inserted(login(newUser()))
			base := h.inserted(first())
			mark := h.saved(ended(base, time.Hour), base.Base())
			want = append(want, live, mark)
		}
		old := h.inserted(over(30 * time.Minute))
		_, err := h.store.Load(h.Context(), old.ID)
		if err == nil { // an engine with native expiry has dropped it
			want = append(want, old)
		}
		for _, limit := range []int{1, 7, 1000} {
			times, last, pages := h.walk(limit, func() {})
			for _, rec := range want {
				if times[rec.ID] == 0 {
					h.Fatalf("Scan with limit %d never returned a record that was there all the time", limit)
				}
				h.same(last[rec.ID], rec)
			}
			if len(times) != len(want) {
				h.Errorf("Scan with limit %d returned %d different records, want %d", limit, len(times), len(want))
			}
			if limit == 7 && pages < 3 {
				h.Errorf("Scan with limit 7 returned %d records in %d pages, want pages of about the limit", len(times), pages)
			}
		}
	}},

	{"returns what stays, while others come, go and change", func(h *harness) {
		half := h.some(100)
		stay := make([]store.Record, 2*half)
		leave := make([]store.Record, 2*half)
		for i := range stay {
			stay[i], leave[i] = h.inserted(first()), h.inserted(over(2*time.Hour))
		}
		// One half changes between the pages, the other half during them.
		stop := make(chan struct{})
		var wg sync.WaitGroup
		during := func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				at := half + i%half
				if err := comeAndGo(h, &stay[at], leave[at].ID); err != nil {
					h.Errorf("a write beside the scan: %v", err)
					return
				}
			}
		}
		between := 0
		times, _, _ := h.walk(7, func() {
			if s, ok := h.store.(store.Sweeper); ok && between == 0 {
				// This removes half of the page that was just returned.
				if _, err := s.Sweep(h.Context(), time.Hour, 4*half); err != nil {
					h.Errorf("Sweep between the pages: %v", err)
				}
			}
			if between == 0 { // not before: it would remove these records earlier
				wg.Go(during)
			}
			for range 4 {
				at := between % half
				if err := comeAndGo(h, &stay[at], leave[at].ID); err != nil {
					h.Errorf("a write between the pages: %v", err)
				}
				between++
			}
		})
		close(stop)
		wg.Wait()
		for n, rec := range stay {
			if times[rec.ID] == 0 {
				h.Fatalf("Scan never returned record %d of %d, which was there all the time", n, len(stay))
			}
		}
	}},
}

// comeAndGo changes the record that stays, adds one, and removes another where
// the store can.
func comeAndGo(h *harness, stay *store.Record, leave store.ID) error {
	save := next(*stay)
	if err := h.store.Save(h.Context(), save, stay.Base()); err != nil {
		return err
	}
	*stay = save
	if err := h.store.Save(h.Context(), over(2*time.Hour), store.Base{}); err != nil {
		return err
	}
	if err := h.store.Delete(h.Context(), leave, now().Add(-2*time.Hour)); err != nil {
		return err
	}
	if s, ok := h.store.(store.Sweeper); ok {
		if _, err := s.Sweep(h.Context(), time.Hour, 2); err != nil {
			return err
		}
	}
	return nil
}
