package redis

import (
	"bytes"
	"errors"
	"strconv"
	"testing"

	"github.com/sojourn-go/sojourn/store"
)

func FuzzDecode(f *testing.F) {
	for _, rec := range []store.Record{{}, {Version: 1 << 63, SaveIDs: []store.SaveID{1, 2}, User: store.UserHash{3}, Seen: timeAt([]byte{0, 0, 0, 0, 0, 1}), Data: []byte("x")}} {
		f.Add(encode(&rec))
	}
	f.Add(bytes.Repeat([]byte{1}, longestHead))
	id := store.ID{7}
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := decode(id, b)
		if err != nil {
			return
		}
		if rec.ID != id || len(rec.SaveIDs) > store.RecentSaveIDs || len(rec.Data) > len(b) {
			t.Errorf("%x is read as %+v", b, rec)
		}
		if again := encode(&rec); !bytes.Equal(again, b) {
			t.Errorf("%x is read as %+v and written as %x", b, rec, again)
		}
	})
}

func FuzzParseCursor(f *testing.F) {
	for _, cursor := range []string{store.FeedFromNow, store.FeedFromStart, "0", "1760000000000000-" + store.ID{1}.String(), "9007199254740993", "1-", "-", "+1"} {
		f.Add(cursor)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		number, id, err := parseCursor(cursor)
		switch {
		case err != nil:
			if !errors.Is(err, ErrFeedCursor) {
				t.Errorf("%q: %v", cursor, err)
			}
			return
		case cursor == store.FeedFromNow || cursor == store.FeedFromStart:
			return
		}
		if n, err := strconv.ParseFloat(number, 64); err != nil || n >= 1<<53 || number != strconv.FormatFloat(n, 'f', -1, 64) {
			t.Errorf("%q is not exact for a script", number)
		}
		if len(id) == len(store.ID{}) {
			number += "-" + store.ID([]byte(id)).String()
		} else if id != "" {
			t.Errorf("%q has an ID of %d bytes", cursor, len(id))
		}
		if number != cursor {
			t.Errorf("%q is taken for %q", cursor, number)
		}
	})
}
