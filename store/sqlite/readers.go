package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// readers are the connections that read. Each is in free while nobody uses it.
type readers struct {
	free chan *reader
}

// A reader is a connection that cannot write, with its statements.
type reader struct {
	conn                            *conn
	byID, byUser, page, last, count *stmt
}

// columns is what a row consists of, in the order that record reads it.
const columns = `row, id, version, tags, user, created, seen, deadline, expires, ended, data`

func newReaders(path string, n int, o options) (readers, error) {
	rs := readers{free: make(chan *reader, n)}
	for range n {
		r, err := newReader(path, o)
		if err != nil {
			return readers{}, errors.Join(err, closeReaders(rs.free, len(rs.free)))
		}
		rs.free <- r
	}
	return rs, nil
}

func newReader(path string, o options) (r *reader, err error) {
	c, err := connect(path, url.Values{"mode": {"rw"}})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if err := c.pragma("busy_timeout", o.busyTimeout.Milliseconds()); err != nil {
		return nil, err
	}
	if err := c.pragma("query_only", 1); err != nil {
		return nil, err
	}
	r = &reader{conn: c}
	return r, c.prepare(statements{
		&r.byID:   `SELECT ` + columns + ` FROM sessions WHERE id = ?1`,
		&r.byUser: `SELECT ` + columns + ` FROM sessions WHERE user = ?1 AND ended IS NULL`,
		&r.page:   `SELECT ` + columns + ` FROM sessions WHERE row > ?1 AND row <= ?2 ORDER BY row LIMIT ?3`,
		&r.last:   `SELECT coalesce(max(row), 0) FROM sessions`,
		&r.count: `SELECT
			count(*) FILTER (WHERE ended IS NULL AND deadline >= ?1),
			count(*) FILTER (WHERE ended IS NULL AND deadline >= ?1 AND user IS NOT NULL),
			count(*) FILTER (WHERE ended IS NULL AND deadline < ?1),
			count(*) FILTER (WHERE ended IS NOT NULL),
			coalesce(sum(length(data)), 0)
			FROM sessions`,
	})
}

// get waits for a free reader, which the caller puts back.
func (rs readers) get(ctx context.Context) (*reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case r, open := <-rs.free:
		if !open {
			return nil, os.ErrClosed
		}
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (rs readers) put(r *reader) { rs.free <- r }

// close waits for all readers to be put back. It is called once.
func (rs readers) close() error {
	if rs.free == nil {
		return nil
	}
	defer close(rs.free)
	return closeReaders(rs.free, cap(rs.free))
}

func closeReaders(free chan *reader, n int) error {
	var errs []error
	for range n {
		errs = append(errs, (<-free).conn.close())
	}
	return errors.Join(errs...)
}

// records runs one of the reader's statements that select rows, and returns
// them and the number of the last one.
func (r *reader) records(s *stmt, args ...driver.Value) (recs []store.Record, last int64, err error) {
	err = s.query(context.Background(), func(row []driver.Value) error {
		rec, err := record(row)
		if err != nil {
			return err
		}
		recs = append(recs, rec)
		last = row[0].(int64)
		return nil
	}, args...)
	return recs, last, err
}

// end returns the number of the last row.
func (r *reader) end() (row int64, err error) {
	err = r.last.query(context.Background(), func(v []driver.Value) error {
		row = v[0].(int64)
		return nil
	})
	return row, err
}

func (r *reader) counts(ctx context.Context, now time.Time) (c store.Counts, err error) {
	err = r.count.query(ctx, func(row []driver.Value) error {
		for i, n := range []*int64{&c.Live, &c.LoggedIn, &c.Expired, &c.Ended, &c.Bytes} {
			*n = row[i].(int64)
		}
		return nil
	}, now.UnixMilli())
	return c, err
}

// record returns the record in a row of columns. The table is STRICT, so the
// values have their columns' types.
func record(row []driver.Value) (store.Record, error) {
	id, _ := row[1].([]byte)
	tags, _ := row[3].([]byte)
	user, _ := row[4].([]byte)
	data, _ := row[10].([]byte)
	if len(id) != len(store.ID{}) || len(tags)%8 != 0 || len(user) != 0 && len(user) != len(store.UserHash{}) {
		return store.Record{}, fmt.Errorf("row %v is damaged", row[0])
	}
	rec := store.Record{
		ID:       store.ID(id),
		Version:  uint64(row[2].(int64)),
		Tags:     make([]store.Tag, len(tags)/8),
		Created:  fromMillis(row[5]),
		Seen:     fromMillis(row[6]),
		Deadline: fromMillis(row[7]),
		Expires:  fromMillis(row[8]),
		Data:     data,
	}
	for i := range rec.Tags {
		rec.Tags[i] = store.Tag(binary.BigEndian.Uint64(tags[8*i:]))
	}
	copy(rec.User[:], user)
	if row[9] != nil {
		rec.Ended = fromMillis(row[9])
	}
	return rec, nil
}

func fromMillis(v driver.Value) time.Time { return time.UnixMilli(v.(int64)).UTC() }
