package record

import (
	"bytes"
	"encoding/binary"
	"strings"
	"sync/atomic"
)

// ChunkSize is the maximum size of a record that is sealed as one piece. The
// values of a longer record are cut into chunks of whole values; a chunk with
// several values has at most this many bytes.
const ChunkSize = 2048

// Chunks are values that are opened on first use. Open appends a chunk to dst:
// the number-th, counted from 1, whose size bytes follow those of the previous
// chunks. It is safe for concurrent use.
type Chunks interface {
	Open(dst []byte, number, before, size int) ([]byte, error)
}

// late is a parsed record whose fields precede its values. It is shared; only
// opened values are added.
type late struct {
	chunks Chunks
	frames []byte // the fields
	count  int    // of them
	pieces []piece
	expire bool // some of them may
	// listed are the fields, once all of them are needed. Most requests read a
	// value or two, which are found without the list.
	listed atomic.Pointer[[]Field]
}

// place is the place of a value: its piece, and the position in it.
type place struct{ piece, start, size uint32 }

// piece is a chunk. The first one is chunk number 1: number 0 has the fields.
type piece struct {
	before, size int
	plain        atomic.Pointer[[]byte]
	bad          atomic.Bool // it failed to open
}

// cutter assigns places to values, one after the other, by their sizes.
type cutter struct {
	pieces int // that have begun
	at     int // where the next value begins
	start  int // where the last piece did
}

// add returns the place of a value of that size, and whether a piece begins with it.
func (c *cutter) add(size int) (v place, begins bool) {
	if size == 0 {
		return v, false
	}
	if c.pieces == 0 || c.at-c.start+size > ChunkSize {
		c.pieces, c.start, begins = c.pieces+1, c.at, true
	}
	v = place{piece: uint32(c.pieces - 1), start: uint32(c.at - c.start), size: uint32(size)}
	c.at += size
	return v, begins
}

// walker goes through the fields of a record that is cut.
type walker struct {
	decoder
	cutter
	field  Field // without its name
	name   []byte
	begins bool // a piece begins with its value
}

func (l *late) walk() walker { return walker{decoder: decoder{b: l.frames}} }

// next moves to the next field, or sets bad if there is none.
func (w *walker) next() {
	w.field = Field{}
	w.name = w.frame(&w.field)
	size := w.uvarint()
	if size > 1<<31 { // larger than any store allows
		w.fail()
		size = 0
	}
	if w.field.at, w.begins = w.add(int(size)); size == 0 {
		w.field.Value = []byte{}
	}
}

// check reports whether the frames have the form of AppendCut. It counts the
// pieces and their bytes.
func (l *late) check() (pieces, size int, ok bool) {
	w := l.walk()
	var last []byte
	for i := range l.count {
		w.next()
		if w.bad || i > 0 && bytes.Compare(w.name, last) <= 0 {
			return 0, 0, false
		}
		last = w.name
		l.expire = l.expire || w.field.Expiry != 0
	}
	return w.pieces, w.at, len(w.b) == 0
}

// layOut makes that many pieces of that many bytes.
func (l *late) layOut(pieces, size int) {
	l.pieces = make([]piece, 0, pieces)
	w := l.walk()
	for range l.count {
		if w.next(); w.begins {
			l.pieces = append(l.pieces, piece{before: w.start})
		}
	}
	for i := len(l.pieces) - 1; i >= 0; i-- {
		l.pieces[i].size, size = size-l.pieces[i].before, l.pieces[i].before
	}
}

// fields returns all fields, sorted by name, without unopened values.
func (l *late) fields() []Field {
	if listed := l.listed.Load(); listed != nil {
		return *listed
	}
	fields := make([]Field, l.count)
	var names strings.Builder // one allocation for all names
	names.Grow(l.count * 16)
	w := l.walk()
	for i := range fields {
		w.next()
		start := names.Len()
		names.Write(w.name)
		fields[i] = w.field
		fields[i].Name = names.String()[start:]
	}
	if !l.listed.CompareAndSwap(nil, &fields) { // another goroutine was faster
		return *l.listed.Load()
	}
	return fields
}

// find returns the field of that name, as it is in fields.
func (l *late) find(name string) (*Field, bool) {
	w := l.walk()
	for range l.count {
		if w.next(); string(w.name) >= name {
			if string(w.name) > name {
				break
			}
			f := w.field
			f.Name = name
			return &f, true
		}
	}
	return nil, false
}

// open returns the value at a place, nil if its chunk does not open.
func (l *late) open(v place) []byte {
	plain := l.piece(int(v.piece))
	if plain == nil {
		return nil
	}
	end := v.start + v.size
	return plain[v.start:end:end]
}

// piece returns the bytes of a piece, nil if it does not open.
func (l *late) piece(i int) []byte {
	c := &l.pieces[i]
	if c.bad.Load() {
		return nil
	}
	if plain := c.plain.Load(); plain != nil {
		return *plain
	}
	plain, err := l.chunks.Open(nil, i+1, c.before, c.size)
	if err != nil || len(plain) != c.size {
		c.bad.Store(true)
		return nil
	}
	c.plain.Store(&plain) // another goroutine may have stored the same
	return plain
}

// isLate reports whether the value of a field of r is not opened yet.
func (r *Record) isLate(f *Field) bool { return f.Value == nil && r.late != nil }

// there returns f with its value.
func (r *Record) there(f *Field) *Field {
	if !r.isLate(f) {
		return f
	}
	found := *f
	found.Value, found.at = r.value(f), place{}
	return &found
}

// value returns the value of a field, nil if it does not open.
func (r *Record) value(f *Field) []byte {
	if r.isLate(f) {
		return r.late.open(f.at)
	}
	return f.Value
}

// size returns the size of a field's value, in bytes.
func (r *Record) size(f *Field) int {
	if r.isLate(f) {
		return int(f.at.size)
	}
	return len(f.Value)
}

// Whole opens all values of the parsed record, including removed ones, and
// reports whether all opened. A damaged value is nil; then nothing made from
// the record may be saved.
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

// AppendCut is [Record.Append] for a record that is sealed in chunks if it is
// long: cuts are the offsets in plain at which the chunks after the first
// begin. A record of up to ChunkSize bytes has none, and the layout of Append. A
// longer one may have none as well: its names and header are long, and no value
// has any bytes.
// whole is the result of [Record.Whole].
//
// In a longer record the values follow all fields, in the same order:
//
//	record = version(1 byte, 2)  length header  count field*  value*
//	field  = length name  flags(1 byte)  [stamp] [expiry]  length
func (r *Record) AppendCut(dst []byte) (plain []byte, cuts []int, whole bool) {
	r.merge()
	if r.Size() <= ChunkSize {
		return r.Append(dst), nil, r.Whole()
	}
	start := len(dst)
	dst = r.appendHead(dst, versionCut)
	first, fields := len(dst), r.list()
	var c cutter
	for i := range fields {
		if _, begins := c.add(r.size(&fields[i])); begins {
			cuts = append(cuts, first+c.start)
		}
	}
	if first-start+c.at <= ChunkSize {
		return r.Append(dst[:start]), nil, r.Whole()
	}
	dst, whole = r.appendValues(dst, fields)
	return dst, cuts, whole
}

// appendValues appends the values of fields, and reports whether all values of
// the parsed record open. A piece that is unopened and unchanged is opened
// directly into the result.
func (r *Record) appendValues(dst []byte, fields []Field) (_ []byte, whole bool) {
	whole = true
	var done []bool // pieces that opened
	if r.late != nil {
		done = make([]bool, len(r.late.pieces))
	}
	for i := 0; i < len(fields); {
		f := &fields[i]
		if n := r.wholePiece(fields[i:]); n > 0 {
			number := int(f.at.piece)
			c := &r.late.pieces[number]
			longer, err := r.late.chunks.Open(dst, number+1, c.before, c.size)
			if done[number] = err == nil && len(longer) == len(dst)+c.size; done[number] {
				dst = longer
			}
			i += n
			continue
		}
		dst = append(dst, r.value(f)...)
		i++
	}
	for i, ok := range done {
		whole = (ok || r.late.piece(i) != nil) && whole
	}
	return dst, whole
}

// wholePiece returns how many of the fields, from the first on, have all values
// of a piece in their order; 0 if there is no such piece, or it was opened.
func (r *Record) wholePiece(fields []Field) int {
	if !r.isLate(&fields[0]) || fields[0].at.start > 0 {
		return 0
	}
	number, at := fields[0].at.piece, uint32(0)
	c := &r.late.pieces[number]
	if c.plain.Load() != nil || c.bad.Load() {
		return 0
	}
	for i := range fields {
		f := &fields[i]
		switch {
		case r.size(f) == 0:
			continue
		case !r.isLate(f) || f.at.piece != number || f.at.start != at:
			return 0
		}
		if at += f.at.size; int(at) == c.size {
			return i + 1
		}
	}
	return 0
}

// ParseCut is [Parse] for the first chunk of a record that is cut into several.
// The values are in the other chunks; fits checks their number and their total
// size.
func ParseCut(b []byte, chunks Chunks, fits func(chunks, size int) bool) (r Record, err error) {
	d := decoder{b: b}
	n, err := r.parseStart(&d, versionCut)
	if err != nil {
		return r, err
	}
	l := &late{chunks: chunks, frames: d.b, count: n}
	pieces, size, ok := l.check()
	if !ok || !fits(pieces, size) {
		return Record{}, ErrFormat
	}
	l.layOut(pieces, size)
	if r.late, r.unlisted = l, n <= short; !r.unlisted {
		r.fields = l.fields() // searching many frames for each value is slow
	}
	return r, nil
}

// appendHead appends a record up to its values.
func (r *Record) appendHead(dst []byte, version byte) []byte {
	dst = r.appendStart(dst, version)
	fields := r.list()
	for i := range fields {
		dst = binary.AppendUvarint(r.appendField(dst, &fields[i]), uint64(r.size(&fields[i])))
	}
	return dst
}
