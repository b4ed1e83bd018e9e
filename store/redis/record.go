package redis

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// A record is one string: a head that the scripts read and change, and the
// Data, which they do not change. Its parts, all numbers big-endian:
//
//	at  bytes
//	 0   1     format, 1
//	 1   1     number of save IDs
//	 2   6     Seen      times in Unix milliseconds, 0 = not set
//	 8   6     Deadline
//	14   6     Created
//	20   6     Expires
//	26   6     Ended
//	32  16     User
//	48   8     Version
//	56   8 n   SaveIDs, newest first
//	     …     Data
//
// Version and newest save ID are adjacent, so that a base is 16 bytes.
const (
	format      = 1
	userAt      = 32
	versionAt   = 48
	saveIDsAt   = 56
	longestHead = saveIDsAt + 8*store.RecentSaveIDs
	timeSize    = 6
	longestTime = 1<<(8*timeSize) - 1 // in the year 10889
)

// maxValue is the default limit of a string in Redis (proto-max-bulk-len). A
// longer string closes the connection.
const maxValue = 512 << 20

// fits returns ErrTooLarge for Data that exceeds Redis's limit together with a head.
func fits(data int) error {
	if limit := maxValue - longestHead; data > limit {
		return fmt.Errorf("%d bytes, at most %d: %w", data, limit, store.ErrTooLarge)
	}
	return nil
}

// clockSkew is how long a record stays after its deadline: the server's clock
// may be ahead of those of the replicas. The scripts repeat it.
const clockSkew = time.Minute

var errFormat = errors.New("the record was written by a newer release")

func encode(rec *store.Record) []byte {
	saveIDs := rec.SaveIDs[:min(len(rec.SaveIDs), store.RecentSaveIDs)]
	b := make([]byte, 0, saveIDsAt+8*len(saveIDs)+len(rec.Data))
	b = append(b, format, byte(len(saveIDs)))
	for _, t := range [...]time.Time{rec.Seen, rec.Deadline, rec.Created, rec.Expires, rec.Ended} {
		b = appendTime(b, t)
	}
	b = append(b, rec.User[:]...)
	b = binary.BigEndian.AppendUint64(b, rec.Version)
	for _, saveID := range saveIDs {
		b = binary.BigEndian.AppendUint64(b, uint64(saveID))
	}
	return append(b, rec.Data...)
}

// decode reads a record in encode's form. Data shares b. It returns errFormat
// if a newer release may have written b, and store.ErrDamaged for anything
// else.
func decode(id store.ID, b []byte) (store.Record, error) {
	switch {
	case len(b) > 0 && b[0] > format && b[0] < ' ': // formats are not printable
		return store.Record{}, errFormat
	case len(b) < saveIDsAt || b[0] != format:
		return store.Record{}, store.ErrDamaged
	}
	n := int(b[1])
	head := saveIDsAt + 8*n
	if n > store.RecentSaveIDs || len(b) < head {
		return store.Record{}, store.ErrDamaged
	}
	rec := store.Record{ID: id, User: store.UserHash(b[userAt:versionAt]), Version: binary.BigEndian.Uint64(b[versionAt:])}
	for i, t := range [...]*time.Time{&rec.Seen, &rec.Deadline, &rec.Created, &rec.Expires, &rec.Ended} {
		*t = timeAt(b[2+i*timeSize:])
	}
	for i := range n {
		rec.SaveIDs = append(rec.SaveIDs, store.SaveID(binary.BigEndian.Uint64(b[saveIDsAt+8*i:])))
	}
	if len(b) > head {
		rec.Data = b[head:len(b):len(b)]
	}
	return rec, nil
}

// encodeBase returns the 16 bytes of a record that must match base, or "" for
// the zero base.
func encodeBase(base store.Base) string {
	if base == (store.Base{}) {
		return ""
	}
	b := binary.BigEndian.AppendUint64(nil, base.Version)
	return string(binary.BigEndian.AppendUint64(b, uint64(base.SaveID)))
}

func appendTime(b []byte, t time.Time) []byte {
	ms := int64(0)
	if !t.IsZero() {
		ms = min(max(t.UnixMilli(), 0), longestTime)
	}
	var all [8]byte
	binary.BigEndian.PutUint64(all[:], uint64(ms))
	return append(b, all[8-timeSize:]...)
}

func timeAt(b []byte) time.Time {
	var all [8]byte
	copy(all[8-timeSize:], b[:timeSize])
	ms := binary.BigEndian.Uint64(all[:])
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}

// key returns the key of a session's record.
func (s *Store) key(id store.ID) string { return s.options.Prefix + sessionKeys + id.String() }

// userKey returns the key of a user's index.
func (s *Store) userKey(user store.UserHash) string {
	return s.options.Prefix + userKeys + store.ID(user).String()
}

// The kinds of keys, right after the prefix. There is one feed.
const (
	sessionKeys = "s:"
	userKeys    = "u:"
	cacheKeys   = "c:"
	feedKey     = "ends"
)
