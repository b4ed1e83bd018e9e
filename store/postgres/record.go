package postgres

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sojourn-go/sojourn/store"
)

var errNotARecord = fmt.Errorf("a row is not a session record: %w", store.ErrDamaged)

// row is a record as the arguments of insert and update.
func row(rec store.Record) []any {
	saveIDs := make([]int64, len(rec.SaveIDs))
	for i, t := range rec.SaveIDs {
		saveIDs[i] = int64(t)
	}
	return []any{
		rec.ID[:], int64(rec.Version), saveIDs, userColumn(&rec), millis(rec.Created), millis(rec.Seen),
		millis(rec.Deadline), millis(rec.Expires), millis(rec.Ended), dataColumn(&rec),
	}
}

// userColumn is NULL without a user.
func userColumn(rec *store.Record) []byte {
	if rec.User == (store.UserHash{}) {
		return nil
	}
	return rec.User[:]
}

// dataColumn is NULL for tombstones only.
func dataColumn(rec *store.Record) []byte {
	switch {
	case rec.IsEnd():
		return nil
	case rec.Data == nil:
		return []byte{}
	default:
		return rec.Data
	}
}

// recordColumns are records as the arguments of insertMany and updateMany: one
// array for each column. PostgreSQL's nested arrays must have equal lengths, so
// the save IDs are in one array, RecentSaveIDs for each record, and their real
// numbers in another.
func recordColumns(calls []*writeCall) []any {
	return columnsOf(len(calls), func(i int) *store.Record { return &calls[i].q.rec })
}

func columnsOf(n int, record func(int) *store.Record) []any {
	ids, users, data := make([][]byte, n), make([][]byte, n), make([][]byte, n)
	saveIDs, saveIDCounts := make([]int64, n*store.RecentSaveIDs), make([]int32, n)
	var numbers [6][]int64
	for i := range numbers {
		numbers[i] = make([]int64, n)
	}
	for i := range n {
		rec := record(i)
		ids[i], users[i], data[i] = rec.ID[:], userColumn(rec), dataColumn(rec)
		saveIDCounts[i] = int32(len(rec.SaveIDs))
		for k, saveID := range rec.SaveIDs {
			saveIDs[i*store.RecentSaveIDs+k] = int64(saveID)
		}
		for k, v := range [...]int64{
			int64(rec.Version), millis(rec.Created), millis(rec.Seen), millis(rec.Deadline), millis(rec.Expires), millis(rec.Ended),
		} {
			numbers[k][i] = v
		}
	}
	return []any{
		ids, saveIDs, saveIDCounts, numbers[0], users, numbers[1], numbers[2],
		numbers[3], numbers[4], numbers[5], data,
	}
}

// limitedColumns are the arguments of the SQL function for logins of one user.
func limitedColumns(lock int64, writings []*writing) []any {
	n := len(writings)
	most, refuse, replaces, until := make([]int32, n), make([]bool, n), make([][]byte, n), make([]int64, n)
	for i, w := range writings {
		most[i], refuse[i] = int32(min(w.limit.Max, math.MaxInt32)), w.limit.Refuse
		replaces[i], until[i] = w.limit.Replaces[:], w.limit.Until.UnixMilli()
	}
	c := columnsOf(n, func(i int) *store.Record { return &writings[i].rec })
	return []any{
		lock, userColumn(&writings[0].rec), time.Now().UnixMilli(), most, refuse, replaces, until,
		c[0], c[1], c[2], c[3], c[5], c[6], c[7], c[8], c[9], c[10],
	}
}

// baseColumns are the further arguments of updateMany.
func baseColumns(calls []*writeCall) []any {
	versions, saveIDs, shorten := make([]int64, len(calls)), make([]int64, len(calls)), make([]bool, len(calls))
	for i, c := range calls {
		versions[i], saveIDs[i] = int64(c.q.base.Version), int64(c.q.base.SaveID)
		shorten[i] = c.q.rec.Shorten || c.q.rec.IsEnd()
	}
	return []any{versions, saveIDs, shorten}
}

// touchColumns are the arguments of touchMany: the latest times of each
// session.
func touchColumns(calls []*writeCall) []any {
	var ids [][]byte
	var seen, deadlines []int64
	for _, c := range calls { // sorted by ID
		rec := &c.q.rec
		last := len(ids) - 1
		if last < 0 || !bytes.Equal(ids[last], rec.ID[:]) {
			ids, seen, deadlines = append(ids, rec.ID[:]), append(seen, rec.Seen.UnixMilli()), append(deadlines, rec.Deadline.UnixMilli())
			continue
		}
		seen[last] = max(seen[last], rec.Seen.UnixMilli())
		deadlines[last] = max(deadlines[last], rec.Deadline.UnixMilli())
	}
	return []any{ids, seen, deadlines}
}

// primary returns the error of a query whose first column is whether the server
// is a standby.
func primary(standby *bool, err error) error {
	if err == nil && *standby {
		err = errStandby
	}
	return err
}

// scan reads a row of PRIMARY, see statementsFor. The error is pgx.ErrNoRows
// for the row that a query without records returns.
func scan(r pgx.Rows) (rec store.Record, id []byte, err error) {
	var standby bool
	var user []byte
	var version, created, seen, deadline, expires, ended int64
	var saveIDs []int64
	if r.RawValues()[1] == nil {
		err := primary(&standby, r.Scan(&standby, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil))
		return rec, nil, cmp.Or(err, pgx.ErrNoRows)
	}
	err = r.Scan(&standby, &id, &version, &saveIDs, &user, &created, &seen, &deadline, &expires, &ended, &rec.Data)
	if err := primary(&standby, err); err != nil {
		return rec, nil, err
	}
	if len(id) != len(rec.ID) || len(user) != 0 && len(user) != len(rec.User) {
		return store.Record{}, id, errNotARecord
	}
	copy(rec.ID[:], id)
	copy(rec.User[:], user)
	rec.Version = uint64(version)
	for _, t := range saveIDs {
		rec.SaveIDs = append(rec.SaveIDs, store.SaveID(t))
	}
	rec.Created, rec.Seen, rec.Deadline = moment(created), moment(seen), moment(deadline)
	rec.Expires, rec.Ended = moment(expires), moment(ended)
	if len(rec.Data) == 0 {
		rec.Data = nil
	}
	return rec, id, nil
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
