package memory_test

import (
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

func FuzzCursors(f *testing.F) {
	s := memory.New()
	for i := range byte(3) {
		if err := s.Delete(f.Context(), store.ID{i + 1}, time.Now().Add(24*time.Hour)); err != nil {
			f.Fatal(err)
		}
	}
	for _, cursor := range []string{store.FeedFromNow, store.FeedFromStart, "0", "3", "4", "0.0", "1.5", "255.0", "-1.0", "1", "1.2.3", "9223372036854775807.1", "18446744073709551615"} {
		f.Add(cursor, 1)
		f.Add(cursor, -1)
	}
	f.Fuzz(func(t *testing.T, cursor string, limit int) {
		if page, err := s.Ends(t.Context(), cursor, limit); err == nil {
			if _, err := s.Ends(t.Context(), page.Cursor, limit); err != nil || len(page.Ends) > 3 {
				t.Errorf("%d ends, and after %q: %v", len(page.Ends), page.Cursor, err)
			}
		}
		recs, next, err := s.Scan(t.Context(), cursor, max(limit, 1))
		if err != nil || next == "" {
			return
		}
		if _, _, err := s.Scan(t.Context(), next, 1); err != nil || len(recs) > 3 {
			t.Errorf("%d records, and after %q: %v", len(recs), next, err)
		}
	})
}
