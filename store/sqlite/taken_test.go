package sqlite

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/sojourn-go/sojourn/store"
)

// Read data is not copied again, so it must not change when the same connection
// reads further rows.
func TestWhatWasReadStaysAsItIsWhenMoreIsRead(t *testing.T) {
	s := opened(t)
	want := map[store.ID]store.Record{}
	for n, size := range []int{0, 1, 15, 16, 1000, 20_000, 20_000, 300_000} {
		rec := session(n+1, size)
		rec.User = store.UserHash{1}
		if size == 0 {
			rec.Data = nil
		}
		want[rec.ID] = insert(t, s, rec)
	}
	same := func(got store.Record) {
		t.Helper()
		rec := want[got.ID]
		if !bytes.Equal(got.Data, rec.Data) || !slices.Equal(got.SaveIDs, rec.SaveIDs) || got.User != rec.User {
			t.Errorf("a record of %d bytes came back as another one of %d", len(rec.Data), len(got.Data))
		}
	}
	var kept []store.Record
	for range 3 {
		recs, _, err := s.Scan(t.Context(), "", 100)
		must(t, err)
		kept = append(kept, recs...)
		recs, err = s.ByUser(t.Context(), store.UserHash{1})
		must(t, err)
		kept = append(kept, recs...)
		for id := range want {
			rec, err := s.Load(t.Context(), id)
			must(t, err)
			kept = append(kept, rec)
		}
	}
	for _, rec := range kept {
		same(rec)
	}
	if len(kept) != 9*len(want) {
		t.Errorf("%d records, want %d", len(kept), 9*len(want))
	}
	// A caller who leaves during a read does not affect others.
	ctx, leave := context.WithCancel(t.Context())
	recs, err := s.ByUser(ctx, store.UserHash{1})
	leave()
	must(t, err)
	for _, rec := range recs {
		same(rec)
	}
}
