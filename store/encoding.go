package store

import (
	"encoding/binary"
	"errors"
	"time"
)

// ErrFormat means that bytes are not the binary form of a [Record].
var ErrFormat = errors.New("store: malformed record")

const encodingVersion = 1

// AppendBinary appends the record's binary form to b, for engines that keep
// records as blobs. It implements [encoding.BinaryAppender] and never fails.
//
// The form is: version (1 byte, 1), ID (16 bytes), user (16 bytes), then as
// unsigned varints the record's version, Created, Seen, Deadline, Expires and
// Ended (Unix milliseconds, 0 = not set), the number of save IDs and each save ID as 8
// bytes, big-endian, and last the Data.
func (r Record) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, encodingVersion)
	b = append(b, r.ID[:]...)
	b = append(b, r.User[:]...)
	b = binary.AppendUvarint(b, r.Version)
	for _, t := range [...]time.Time{r.Created, r.Seen, r.Deadline, r.Expires, r.Ended} {
		ms := uint64(0)
		if !t.IsZero() {
			ms = uint64(t.UnixMilli())
		}
		b = binary.AppendUvarint(b, ms)
	}
	b = binary.AppendUvarint(b, uint64(len(r.SaveIDs)))
	for _, saveID := range r.SaveIDs {
		b = binary.BigEndian.AppendUint64(b, uint64(saveID))
	}
	return append(b, r.Data...), nil
}

// MarshalBinary implements [encoding.BinaryMarshaler]. It never fails.
func (r Record) MarshalBinary() ([]byte, error) {
	return r.AppendBinary(make([]byte, 0, 80+8*len(r.SaveIDs)+len(r.Data)))
}

// Decode reads the record with that ID from its binary form. It returns
// [ErrFormat] if a newer release may have written b, and [ErrDamaged] for
// anything else, including the record of another ID. Data shares b.
func Decode(id ID, b []byte) (Record, error) {
	var rec Record
	err := rec.UnmarshalBinary(b)
	switch {
	case err != nil && len(b) > 0 && b[0] > encodingVersion && b[0] < ' ': // versions are not printable
		return Record{}, err
	case err != nil || rec.ID != id:
		return Record{}, ErrDamaged
	}
	return rec, nil
}

// UnmarshalBinary reads the binary form that AppendBinary writes. Data shares
// b, which must not be modified afterwards. It returns ErrFormat for anything
// else.
func (r *Record) UnmarshalBinary(b []byte) error {
	var out Record
	if len(b) < 1+len(out.ID)+len(out.User) || b[0] != encodingVersion {
		return ErrFormat
	}
	b = b[1:]
	b = b[copy(out.ID[:], b):]
	b = b[copy(out.User[:], b):]
	number := func() (v uint64, ok bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false
		}
		b = b[n:]
		return v, true
	}
	var ok bool
	if out.Version, ok = number(); !ok {
		return ErrFormat
	}
	for _, t := range []*time.Time{&out.Created, &out.Seen, &out.Deadline, &out.Expires, &out.Ended} {
		ms, ok := number()
		if !ok || ms > 1<<62 {
			return ErrFormat
		}
		if ms != 0 {
			*t = time.UnixMilli(int64(ms)).UTC()
		}
	}
	n, ok := number()
	if !ok || n > RecentSaveIDs || uint64(len(b)) < 8*n {
		return ErrFormat
	}
	for range n {
		out.SaveIDs = append(out.SaveIDs, SaveID(binary.BigEndian.Uint64(b)))
		b = b[8:]
	}
	if len(b) > 0 {
		out.Data = b[:len(b):len(b)]
	}
	*r = out
	return nil
}
