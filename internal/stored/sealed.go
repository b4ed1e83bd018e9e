package stored

import (
	"slices"
	"sync"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/seal"
)

// SealRecord seals a session, bound to aad: as one piece, or in chunks if it is
// longer than record.ChunkSize. max is its maximum size before sealing. If a
// value of the original record is damaged, the error is ErrDamaged.
func SealRecord(ring *seal.Ring, r *record.Record, aad []byte, max int) ([]byte, error) {
	buf := ring.Borrow()
	defer ring.Return(buf)
	plain, cuts, whole := r.AppendCut(slices.Grow(*buf, r.Size()))
	*buf = plain
	switch {
	case !whole:
		return nil, ErrDamaged
	case len(plain) > max:
		return nil, fault.Size(len(plain), max)
	case len(plain) <= record.ChunkSize: // the same limit as in OpenRecord
		return ring.Seal(make([]byte, 0, len(plain)+seal.Overhead), seal.Record, plain, aad)
	}
	return ring.SealChunks(nil, seal.Record, plain, cuts, aad)
}

// OpenRecord is the inverse of SealRecord. A long record's values are opened on
// first use; damaged is called the first time that one does not open. The
// errors are those of seal.Ring.Open, and record.ErrFormat.
func OpenRecord(ring *seal.Ring, data, aad []byte, damaged func(error)) (r record.Record, stale bool, err error) {
	if len(data) <= longestWhole {
		return openWhole(ring, data, aad)
	}
	head, rest, stale, err := ring.OpenChunks(seal.Record, data, aad)
	if err == nil {
		r, err = record.ParseCut(head, &values{Chunks: rest, damaged: damaged}, rest.Holds)
	}
	return r, stale, err
}

// longestWhole is the maximum size of a sealed record that is not cut.
const longestWhole = seal.Overhead + record.ChunkSize

func openWhole(ring *seal.Ring, data, aad []byte) (r record.Record, stale bool, err error) {
	plain, stale, err := ring.Open(nil, seal.Record, data, aad)
	if err == nil {
		r, err = record.Parse(plain)
	}
	return r, stale, err
}

// values are chunks; the first one that does not open is reported.
type values struct {
	*seal.Chunks
	damaged func(error)
	once    sync.Once
}

func (v *values) Open(dst []byte, number, before, size int) ([]byte, error) {
	b, err := v.Chunks.Open(dst, number, before, size)
	if err != nil {
		v.once.Do(func() { v.damaged(err) })
	}
	return b, err
}
