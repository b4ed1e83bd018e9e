package stored

import (
	"slices"
	"sync"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/seal"
)

// SealRecord seals a session, bound to aad: as one piece, or in chunks if it is
// longer than record.ChunkSize. max is the most bytes that it may have before.
// Nothing that was made of a damaged record is sealed: the error is ErrDamaged
// then.
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
	case cuts == nil:
		return ring.Seal(make([]byte, 0, len(plain)+seal.Overhead), seal.Record, plain, aad)
	}
	return ring.SealChunks(nil, seal.Record, plain, cuts, aad)
}

// OpenRecord is the inverse of SealRecord. A long record's values are opened when
// somebody asks for them; the first time that one does not open, damaged is called.
// The errors are those of seal.Ring.Open, and record.ErrFormat.
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

// longestWhole is the length of the longest sealed record that was not cut.
const longestWhole = seal.Overhead + record.ChunkSize

func openWhole(ring *seal.Ring, data, aad []byte) (r record.Record, stale bool, err error) {
	plain, stale, err := ring.Open(nil, seal.Record, data, aad)
	if err == nil {
		r, err = record.Parse(plain)
	}
	return r, stale, err
}

// values are chunks of which the first that does not open is reported.
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
