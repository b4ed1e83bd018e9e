package postgres

import (
	"context"
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sojourn-go/sojourn/store"
)

// A cursor is the snapshot up to which ends were returned, in the form of
// PostgreSQL's txid_snapshot: which transactions had finished. So an end is not
// missed if its transaction finishes late. Between the pages of one walk it is
// "since/upto/txid/id": the two snapshots between which the ends are, and the
// last end that was returned.
var cursorForm = regexp.MustCompile(`^(\d{1,19}:\d{1,19}:[\d,]*)(?:/(\d{1,19}:\d{1,19}:[\d,]*)/(\d{1,19})/([a-z2-7]{26}))?$`)

// fromStart is a snapshot before all transactions.
const fromStart = "1:1:"

var errCursor = errors.New("not a cursor of this store")

// Ends implements [store.EndFeed]. A call without new ends costs one index
// lookup. A long write transaction, anywhere in the database server, makes it
// slower.
func (s *Store) Ends(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	page, err := s.ends(ctx, cursor, max(limit, 1))
	if err != nil {
		return store.EndPage{}, failed("read the feed of ends", err)
	}
	return page, nil
}

func (s *Store) ends(ctx context.Context, cursor string, limit int) (page store.EndPage, err error) {
	since := cursor
	var upto *string             // the current snapshot, on the first page
	var txid int64               // the last end of the previous page
	after := []byte{}            // in that transaction
	kept := int64(math.MinInt64) // earlier deadlines are left out
	switch cursor {
	case store.FeedFromNow:
		err = s.retry(ctx, repeatable, func(db querier) error {
			var standby bool
			row := db.QueryRow(ctx, "SELECT pg_is_in_recovery(), txid_current_snapshot()::text")
			return primary(&standby, row.Scan(&standby, &page.Cursor))
		})
		return page, err
	case store.FeedFromStart:
		since, kept = fromStart, time.Now().UnixMilli()
	default:
		if since, upto, txid, after, err = parseCursor(cursor); err != nil {
			return page, err
		}
	}
	var snapshot string
	err = s.retry(ctx, repeatable, func(db querier) error {
		page.Ends = nil
		var standby bool
		rows, err := db.Query(ctx, s.sql.ends, since, upto, txid, after, kept, limit)
		if err != nil {
			return err
		}
		var number, until *int64
		var id []byte
		_, err = pgx.ForEachRow(rows, []any{&standby, &snapshot, &number, &id, &until}, func() error {
			switch {
			case standby:
				return errStandby
			case number == nil: // nothing has ended
				return nil
			case len(id) != len(store.ID{}):
				return errNotARecord
			}
			txid = *number
			page.Ends = append(page.Ends, store.End{ID: store.ID(id), Until: time.UnixMilli(*until).UTC()})
			return nil
		})
		return err
	})
	if err != nil {
		return page, err
	}
	page.Cursor = snapshot
	if page.More = len(page.Ends) == limit; page.More {
		page.Cursor = cursorWithin(since, snapshot, txid, page.Ends[limit-1].ID)
	}
	return page, nil
}

func cursorWithin(since, upto string, txid int64, last store.ID) string {
	return strings.Join([]string{since, upto, strconv.FormatInt(txid, 10), last.String()}, "/")
}

// parseCursor parses a cursor. Between two walks it is only a snapshot.
func parseCursor(cursor string) (since string, upto *string, txid int64, after []byte, err error) {
	part := cursorForm.FindStringSubmatch(cursor)
	if part == nil {
		return "", nil, 0, nil, errCursor
	}
	if part[2] == "" {
		return part[1], nil, 0, []byte{}, nil
	}
	id, err1 := store.ParseID(part[4])
	txid, err2 := strconv.ParseInt(part[3], 10, 64)
	if err1 != nil || err2 != nil || cursorWithin(part[1], part[2], txid, id) != cursor {
		return "", nil, 0, nil, errCursor
	}
	return part[1], &part[2], txid, id[:], nil
}
