package postgres

import (
	"errors"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

func FuzzParseCursor(f *testing.F) {
	for _, cursor := range []string{"1:1:", "10:20:12,15", cursorWithin("1:1:", "10:20:12", 11, store.ID{1}), "1:1:/1:1:/1/", "1:1:\n", "1:1:/1:1:/01/" + store.ID{}.String()} {
		f.Add(cursor)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		since, upto, txid, after, err := parseCursor(cursor)
		switch {
		case err != nil:
			if !errors.Is(err, errCursor) {
				t.Errorf("%q: %v", cursor, err)
			}
			return
		case upto == nil:
			if since != cursor || txid != 0 || len(after) != 0 {
				t.Errorf("%q is read as %q, %d, %x", cursor, since, txid, after)
			}
			return
		}
		if txid < 0 || cursorWithin(since, *upto, txid, store.ID(after)) != cursor {
			t.Errorf("%q is read as %q, %q, %d, %x", cursor, since, *upto, txid, after)
		}
	})
}

// A damaged or foreign row.
func TestAnEndOfNoSessionDoesNotStopTheFeed(t *testing.T) {
	_, s := single(t)
	for _, id := range []string{`''`, `'\x00'`, `'\x000102030405060708090a0b0c0d0e'`, `'\x000102030405060708090a0b0c0d0e0f10'`} {
		_, err := s.pool.Exec(t.Context(), "INSERT INTO sojourn_sessions_ends (id, until) VALUES ("+id+"::bytea, 9999999999999)")
		must(t, err)
		end := store.ID{1}
		must(t, s.Delete(t.Context(), end, time.Now().Add(time.Hour)))
		for _, cursor := range []string{store.FeedFromStart, fromStart} {
			found := false
			for more := true; more; {
				page, err := s.Ends(t.Context(), cursor, 1)
				must(t, err)
				for _, e := range page.Ends {
					found = found || e.ID == end
				}
				cursor, more = page.Cursor, page.More
			}
			if !found {
				t.Errorf("after %s the feed lacks an end", id)
			}
		}
	}
}
