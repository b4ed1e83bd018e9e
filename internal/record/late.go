package record

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync/atomic"
)

// ChunkSize is how many bytes a record has at most whose values are sealed
// together with its header. The values of a longer one are cut into chunks, each
// with whole values, one after the other; one with several values has at most this
// many bytes.
const ChunkSize = 2048

// Chunks are values that are opened when they are asked for. Open returns a chunk:
// the number-th, counted from 1, with size bytes that follow those of the chunks
// before it. It is safe for concurrent use.
type Chunks interface {
	Open(number, before, size int) ([]byte, error)
}

// late is where the values of a record are that were not there when it was
// parsed. It is shared, and does not change apart from what has been opened.
type late struct {
	chunks Chunks
	parsed []Field // as they were parsed, sorted by name
	places []place // of their values
	pieces []piece
}

// place is where a value is: in which piece, and where in there.
type place struct{ piece, start, size int }

// piece is a chunk. The first one is chunk number 1: number 0 has the fields.
type piece struct {
	before, size int
	plain        atomic.Pointer[[]byte]
	bad          atomic.Bool // it did not open
}

// cut gives each value a place, as their sizes say, and calls begin with the start
// of each piece.
func cut(places []place, begin func(start int)) {
	n, at, start := 0, 0, 0
	for i := range places {
		v := &places[i]
		if v.size == 0 {
			continue
		}
		if n == 0 || at-start+v.size > ChunkSize {
			begin(at)
			n, start = n+1, at
		}
		v.piece, v.start = n-1, at-start
		at += v.size
	}
}

// layOut gives the values their places in pieces. It reports whether the chunks
// that there are can be those.
func (l *late) layOut(fits func(chunks, size int) bool) bool {
	n, total := 0, 0
	cut(l.places, func(int) { n++ })
	l.pieces = make([]piece, 0, n)
	cut(l.places, func(start int) { l.pieces = append(l.pieces, piece{before: start}) })
	for _, v := range l.places {
		total += v.size
		if v.size > 0 {
			l.pieces[v.piece].size += v.size
		}
	}
	return fits(n, total)
}

// find returns where the value of that name is.
func (l *late) find(name string) place {
	i, _ := slices.BinarySearchFunc(l.parsed, name, func(f Field, name string) int { return strings.Compare(f.Name, name) })
	return l.places[i]
}

// open returns a value, nil if its chunk does not open.
func (l *late) open(name string) []byte {
	v := l.find(name)
	plain := l.piece(v.piece)
	if plain == nil {
		return nil
	}
	return plain[v.start : v.start+v.size : v.start+v.size]
}

// piece returns what a piece holds, nil if it does not open.
func (l *late) piece(i int) []byte {
	c := &l.pieces[i]
	if c.bad.Load() {
		return nil
	}
	if plain := c.plain.Load(); plain != nil {
		return *plain
	}
	plain, err := l.chunks.Open(i+1, c.before, c.size)
	if err != nil || len(plain) != c.size {
		c.bad.Store(true)
		return nil
	}
	c.plain.Store(&plain) // another goroutine may have stored the same
	return plain
}

// isLate reports whether the value of a field of r is still to be opened.
func (r *Record) isLate(f *Field) bool { return f.Value == nil && r.late != nil }

// there returns f with its value.
func (r *Record) there(f *Field) *Field {
	if !r.isLate(f) {
		return f
	}
	found := *f
	found.Value = r.late.open(f.Name)
	return &found
}

// size returns how many bytes the value of a field has.
func (r *Record) size(f *Field) int {
	if r.isLate(f) {
		return r.late.find(f.Name).size
	}
	return len(f.Value)
}

// Whole opens all values that the record was parsed with, also those that it has no
// more, and reports whether each did open. One that does not is nil, and nothing
// that was made of the record may be kept.
func (r *Record) Whole() bool {
	if r.late == nil {
		return true
	}
	whole := true
	for i := range r.late.pieces {
		whole = r.late.piece(i) != nil && whole
	}
	return whole
}

// AppendCut is [Record.Append] for a record that is to be sealed in chunks if it is
// long: cuts are the offsets in plain at which the chunks after the first begin.
// There are none in a record of up to ChunkSize bytes, whose layout is that of
// Append.
//
// In a longer one the values come after all fields, in the order of these:
//
//	record = version(1 byte, 2)  length header  count field*  value*
//	field  = length name  flags(1 byte)  [stamp] [expiry]  length
func (r *Record) AppendCut(dst []byte) (plain []byte, cuts []int) {
	r.merge()
	if r.Size() <= ChunkSize {
		return r.Append(dst), nil
	}
	start := len(dst)
	dst = r.appendHead(dst, versionCut)
	places, size := make([]place, len(r.fields)), len(dst)-start
	for i := range r.fields {
		places[i].size = r.size(&r.fields[i])
		size += places[i].size
	}
	if size <= ChunkSize {
		return r.Append(dst[:start]), nil
	}
	first := len(dst)
	cut(places, func(start int) { cuts = append(cuts, first+start) })
	for i := range r.fields {
		dst = append(dst, r.there(&r.fields[i]).Value...)
	}
	return dst, cuts
}

// ParseCut is [Parse] for the first chunk of a record that is cut into several. The
// record takes its values from the others, which fits must know: it is told how
// many there are, and how many bytes they have.
func ParseCut(b []byte, chunks Chunks, fits func(chunks, size int) bool) (Record, error) {
	l := &late{chunks: chunks}
	r, err := parse(b, l)
	if err != nil {
		return r, err
	}
	if r.late = l; !l.layOut(fits) {
		return Record{}, ErrFormat
	}
	return r, nil
}

// appendHead appends a record up to its values.
func (r *Record) appendHead(dst []byte, version byte) []byte {
	dst = r.appendStart(dst, version)
	for i := range r.fields {
		dst = binary.AppendUvarint(r.appendField(dst, &r.fields[i]), uint64(r.size(&r.fields[i])))
	}
	return dst
}
