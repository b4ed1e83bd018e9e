package sqlite

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

func FuzzParseScan(f *testing.F) {
	for _, cursor := range []string{"1-2", "-1-5", "1", "1-2x", " 1-2", "+1-2", "01-2", "9223372036854775808-1"} {
		f.Add(cursor)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		after, end, err := parseScan(cursor)
		if err == nil && scanCursor(after, end) != cursor {
			t.Errorf("%q is read as %d, %d", cursor, after, end)
		}
	})
}

// rowOf is a row of the table of sessions.
type rowOf struct {
	id, saveIDs, user, data []byte
	number                  int64
	ended                   bool
}

func (r rowOf) Scan(into ...any) error {
	for i, v := range []any{
		r.number, r.id, r.number, r.saveIDs, r.user, r.number, r.number, r.number, r.number, sql.NullInt64{Int64: r.number, Valid: r.ended}, r.data,
	} {
		switch into := into[i].(type) {
		case *int64:
			*into = v.(int64)
		case *taken:
			*into = v.([]byte)
		case *sql.NullInt64:
			*into = v.(sql.NullInt64)
		default:
			return errors.New("a column of an unknown type")
		}
	}
	return nil
}

func FuzzScanRecord(f *testing.F) {
	f.Add(make([]byte, 16), []byte("12345678"), []byte(nil), []byte("data"), int64(1), false)
	f.Add([]byte("short"), []byte("1234567"), make([]byte, 16), []byte(nil), int64(-1), true)
	f.Fuzz(func(t *testing.T, id, saveIDs, user, data []byte, number int64, ended bool) {
		if len(user) == 0 {
			user = nil // what NULL is read as
		}
		rec, _, err := scanRecord(rowOf{id, saveIDs, user, data, number, ended})
		if err != nil {
			if !errors.Is(err, store.ErrDamaged) {
				t.Error(err)
			}
			return
		}
		var back []byte
		for _, saveID := range rec.SaveIDs {
			back = binary.BigEndian.AppendUint64(back, uint64(saveID))
		}
		if string(rec.ID[:]) != string(id) || string(back) != string(saveIDs) || string(rec.Data) != string(data) || rec.Seen.UnixMilli() != number || rec.IsEnd() != ended && number != 0 {
			t.Errorf("read %+v", rec)
		}
		if user != nil && string(rec.User[:]) != string(user) {
			t.Errorf("the user is %x, want %x", rec.User, user)
		}
	})
}

// A damaged or foreign row.
func TestAnEndOfNoSessionDoesNotStopTheFeed(t *testing.T) {
	s := opened(t)
	c := other(t, s.path)
	for _, id := range []string{"''", "x'00'", "zeroblob(15)", "zeroblob(17)", "zeroblob(100000)"} {
		must(t, c.run("INSERT INTO ends (id, until) VALUES ("+strings.Replace(id, "''", "x''", 1)+", 9999999999999)"))
		end := store.ID{1}
		must(t, s.Delete(t.Context(), end, time.Now().Add(time.Hour)))
		for _, cursor := range []string{store.FeedFromStart, "0"} {
			ends := map[store.ID]bool{}
			for more := true; more; {
				page, err := s.Ends(t.Context(), cursor, 1)
				must(t, err)
				for _, e := range page.Ends {
					ends[e.ID] = true
				}
				cursor, more = page.Cursor, page.More
			}
			if len(ends) != 1 || !ends[end] {
				t.Errorf("after %s the feed tells of %d ends", id, len(ends))
			}
		}
	}
}

// Rows that are not records do not end a scan.
func TestDamagedRowsEndNoScan(t *testing.T) {
	s := opened(t)
	c := other(t, s.path)
	want := map[store.ID]bool{}
	for i := range 12 {
		rec := session(i+1, 10)
		must(t, s.Save(t.Context(), rec, store.Base{}))
		if i%3 == 0 {
			want[rec.ID] = true
			continue
		}
		must(t, c.run(fmt.Sprintf("UPDATE sessions SET id = zeroblob(%d) WHERE id = x'%x'", 17+i, rec.ID[:])))
	}
	for limit := 1; limit < 15; limit++ {
		found, cursor := map[store.ID]bool{}, ""
		for range 40 {
			recs, next, err := s.Scan(t.Context(), cursor, limit)
			must(t, err)
			for _, rec := range recs {
				found[rec.ID] = true
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		if !maps.Equal(found, want) || cursor != "" {
			t.Errorf("pages of %d: %d sessions of %d are found, the walk goes on at %q", limit, len(found), len(want), cursor)
		}
	}
}
