// Package record is the byte layout of a session: a header and a list of named
// values. Parsing a record reads each field's frame once and decodes no value;
// replacing one value copies the others unchanged.
//
// The layout, all integers unsigned LEB128 varints unless said otherwise:
//
//	record = version(1 byte, 1)  length header  count field*
//	header = (tag length bytes)*                   tags ascending, each at most once
//	field  = length name  flags(1 byte)  [stamp] [expiry]  length value
//
// Fields are sorted by name, each name once. Unknown header entries and flag
// bits are kept unchanged, so that an older program keeps the data of a newer
// one.
package record

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
)

// ErrFormat means that the bytes are not a record.
var ErrFormat = errors.New("record: malformed")

const (
	version    = 1
	versionCut = 2 // the values follow all fields: see AppendCut
	// MaxName is the longest name of a field, in bytes.
	MaxName = 255
)

// Flags of a field. Other bits are kept unchanged.
type Flags uint8

const (
	ServerSide Flags = 1 << iota // never in a cookie
	Volatile                     // may live in a cache until the next durable write
	hasStamp                     // on the wire: a stamp follows
	hasExpiry                    // on the wire: an expiry follows

	layout = hasStamp | hasExpiry
)

// Field is one named value. Value is opaque, shared, and never modified.
type Field struct {
	Name  string
	Flags Flags
	// Stamp is the inline counter of the value's last change in a cookie, or 0
	// if it was last changed in a stored session.
	Stamp uint64
	// Expiry is when the value expires, in Unix milliseconds; 0 = never.
	Expiry int64
	Value  []byte

	at place // of an unopened value: see late
}

// Live reports whether the value has not expired at now (Unix milliseconds).
func (f *Field) Live(now int64) bool { return f.Expiry == 0 || now <= f.Expiry }

// Record is a session's header and fields. A Record is a value: after
// [Record.Clone], its methods change only their own copy of the field list, and
// never a Value. n changes of a list of n fields take O(n log n) steps.
type Record struct {
	Header Header
	fields []Field // sorted by Name
	// edits are changes that are not in fields yet, by name; nil = removed. In
	// a long list each change would move many fields. All methods except Find,
	// Put, Remove and Len merge them first; see Done.
	edits map[string]*Field
	more  int // number of fields that the edits add; negative if they remove more
	// late has the values of fields whose Value is nil.
	late *late
	// unlisted means that the fields are those of late, and not in fields yet.
	unlisted bool
}

// list returns the fields, apart from edits, for reading.
func (r *Record) list() []Field {
	if r.unlisted {
		return r.late.fields()
	}
	return r.fields
}

// own copies the fields for changes, if they are still the shared ones of late.
func (r *Record) own() {
	if r.unlisted {
		r.fields, r.unlisted = slices.Clone(r.late.fields()), false
	}
}

// short is the maximum length of a list that is changed in place.
const short = 64

// merge puts the edits into the list of fields.
func (r *Record) merge() {
	if r.edits == nil {
		return
	}
	changed := make([]string, 0, len(r.edits))
	for name := range r.edits {
		changed = append(changed, name)
	}
	slices.Sort(changed)
	out := make([]Field, 0, r.Len())
	rest := r.fields
	for _, name := range changed {
		for len(rest) > 0 && rest[0].Name < name {
			out, rest = append(out, rest[0]), rest[1:]
		}
		if len(rest) > 0 && rest[0].Name == name {
			rest = rest[1:]
		}
		if f := r.edits[name]; f != nil {
			out = append(out, *f)
		}
	}
	r.fields, r.edits, r.more = append(out, rest...), nil, 0
}

// Done returns the record for sharing: reading it changes nothing in it.
func (r *Record) Done() Record {
	r.merge()
	return *r
}

// edit records f as the field of that name; nil = removed.
func (r *Record) edit(name string, f *Field) {
	if r.edits == nil {
		r.edits = map[string]*Field{}
	}
	_, before := r.frame(name)
	r.edits[name] = f
	switch after := f != nil; {
	case after && !before:
		r.more++
	case before && !after:
		r.more--
	}
}

// Parse parses b, which the record then shares, so it must not be modified. It
// returns ErrFormat for any bytes that Append does not write.
func Parse(b []byte) (Record, error) {
	var r Record
	d := decoder{b: b}
	n, err := r.parseStart(&d, version)
	if err != nil {
		return r, err
	}
	if n > 0 {
		r.fields = make([]Field, n)
	}
	var names strings.Builder // one allocation for all names
	names.Grow(n * 16)
	last := ""
	for i := range r.fields {
		f := &r.fields[i]
		start := names.Len()
		names.Write(d.frame(f))
		f.Name = names.String()[start:]
		f.Value = d.bytes()
		if d.bad || i > 0 && f.Name <= last {
			return Record{}, ErrFormat
		}
		last = f.Name
	}
	if len(d.b) != 0 {
		return Record{}, ErrFormat
	}
	return r, nil
}

// parseStart reads the part before the fields, and their number.
func (r *Record) parseStart(d *decoder, want byte) (fields int, err error) {
	if d.byte() != want {
		return 0, ErrFormat
	}
	head := d.bytes()
	n := d.uvarint()
	// A field takes at least four bytes, so a false count cannot cause a large allocation.
	if d.bad || n > uint64(len(d.b)/4) {
		return 0, ErrFormat
	}
	if !r.Header.parse(head) {
		return 0, ErrFormat
	}
	return int(n), nil
}

// frame reads a field up to its value, and returns its name.
func (d *decoder) frame(f *Field) (name []byte) {
	name = d.bytes()
	f.Flags = Flags(d.byte())
	if f.Flags&hasStamp != 0 {
		f.Stamp = d.nonzero()
	}
	if f.Flags&hasExpiry != 0 {
		f.Expiry = d.millis()
	}
	f.Flags &^= layout
	if len(name) == 0 || len(name) > MaxName {
		d.fail()
	}
	return name
}

// Append appends the record's bytes to dst.
func (r *Record) Append(dst []byte) []byte {
	dst = r.appendStart(dst, version)
	fields := r.list()
	for i := range fields {
		dst = appendBytes(r.appendField(dst, &fields[i]), r.value(&fields[i]))
	}
	return dst
}

// appendStart appends the part before the fields.
func (r *Record) appendStart(dst []byte, version byte) []byte {
	r.merge()
	dst = append(dst, version)
	var head [256]byte
	h := r.Header.append(head[:0])
	dst = appendBytes(dst, h)
	return binary.AppendUvarint(dst, uint64(r.Len()))
}

// appendField appends a field up to its value.
func (r *Record) appendField(dst []byte, f *Field) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(f.Name)))
	dst = append(dst, f.Name...)
	flags := f.Flags &^ layout
	if f.Stamp != 0 {
		flags |= hasStamp
	}
	if f.Expiry != 0 {
		flags |= hasExpiry
	}
	dst = append(dst, byte(flags))
	if f.Stamp != 0 {
		dst = binary.AppendUvarint(dst, f.Stamp)
	}
	if f.Expiry != 0 {
		dst = binary.AppendUvarint(dst, uint64(f.Expiry))
	}
	return dst
}

// Size returns an upper bound, close to the size that Append needs, in bytes.
func (r *Record) Size() int {
	r.merge()
	n := 64 + len(r.Header.User) + len(r.Header.UserAgent) + len(r.Header.IP) + len(r.Header.Methods)
	n += len(r.Header.Identifier) + len(r.Header.Legacy) + len(r.Header.Link) + len(r.Header.Unknown) + 22*8
	fields := r.list()
	for i := range fields {
		n += len(fields[i].Name) + r.size(&fields[i]) + 32
	}
	return n
}

// Len returns the number of fields.
func (r *Record) Len() int {
	if r.unlisted {
		return r.late.count
	}
	return len(r.fields) + r.more
}

// Fields returns the fields, sorted by name. They must not be modified. It
// opens all values; a damaged one is nil: see [Record.Whole].
func (r *Record) Fields() []Field {
	r.merge()
	if r.late == nil {
		return r.fields
	}
	out := slices.Clone(r.list())
	for i := range out {
		out[i] = *r.there(&out[i])
	}
	return out
}

// Frames returns the fields as Fields does, but opens no value: a Value may be nil.
func (r *Record) Frames() []Field {
	r.merge()
	return r.list()
}

func (r *Record) search(name string) (int, bool) {
	if len(r.fields) < 8 {
		for i := range r.fields {
			if r.fields[i].Name >= name {
				return i, r.fields[i].Name == name
			}
		}
		return len(r.fields), false
	}
	return slices.BinarySearchFunc(r.fields, name, func(f Field, name string) int {
		return strings.Compare(f.Name, name)
	})
}

// Find returns the field with that name, live or not. Its value is nil if it is
// damaged.
func (r *Record) Find(name string) (*Field, bool) {
	f, ok := r.frame(name)
	if !ok {
		return nil, false
	}
	return r.there(f), true
}

// frame is Find, but opens no value.
func (r *Record) frame(name string) (*Field, bool) {
	if f, ok := r.edits[name]; ok {
		return f, f != nil
	}
	if r.unlisted {
		return r.late.find(name)
	}
	i, ok := r.search(name)
	if !ok {
		return nil, false
	}
	return &r.fields[i], true
}

// Clone returns a record that Put and Remove may change without changing r.
func (r *Record) Clone() Record {
	r.merge()
	return Record{Header: r.Header, fields: slices.Clone(r.fields), late: r.late, unlisted: r.unlisted}
}

// Put inserts f or replaces the field of that name.
func (r *Record) Put(f Field) {
	r.own()
	f.at = place{}
	if f.Value == nil && r.late != nil {
		f.Value = []byte{} // nil means an unopened value
	}
	n := len(r.fields)
	if r.edits == nil && (n == 0 || r.fields[n-1].Name < f.Name) {
		r.fields = append(r.fields, f)
		return
	}
	if r.edits != nil || n >= short {
		late := f // so that f itself stays on the stack
		r.edit(f.Name, &late)
		return
	}
	i, ok := r.search(f.Name)
	if ok {
		r.fields[i] = f
		return
	}
	r.fields = slices.Insert(r.fields, i, f)
}

// Remove removes the field with that name, if there is one.
func (r *Record) Remove(name string) {
	r.own()
	if r.edits != nil || len(r.fields) >= short {
		if _, ok := r.frame(name); ok {
			r.edit(name, nil)
		}
		return
	}
	if i, ok := r.search(name); ok {
		r.fields = slices.Delete(r.fields, i, i+1)
	}
}

// RemoveAll removes every field and leaves the header.
func (r *Record) RemoveAll() { r.fields, r.edits, r.more, r.unlisted = nil, nil, 0, false }

// Same reports whether two records share one list of fields. It may be false
// for records with equal fields.
func (r *Record) Same(other *Record) bool {
	if r.unlisted || other.unlisted {
		return r.unlisted && other.unlisted && r.late == other.late
	}
	if r.edits != nil || other.edits != nil || len(r.fields) != len(other.fields) {
		return false
	}
	return len(r.fields) == 0 || &r.fields[0] == &other.fields[0]
}

// Expire removes the fields that have expired at now (Unix milliseconds).
func (r *Record) Expire(now int64) {
	if r.unlisted && !r.late.expire {
		return
	}
	r.own()
	r.merge()
	r.fields = slices.DeleteFunc(r.fields, func(f Field) bool { return !f.Live(now) })
}

// Settle marks every field as last changed in a stored session.
func (r *Record) Settle() {
	r.own()
	r.merge()
	for i := range r.fields {
		r.fields[i].Stamp = 0
	}
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

// decoder reads from the front of b. After missing data, or a number that is
// not in its shortest form, bad is set and every result is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() {
	d.bad, d.b = true, nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	if len(d.b) > 0 && d.b[0] < 0x80 {
		c := d.b[0]
		d.b = d.b[1:]
		return uint64(c)
	}
	v, n := binary.Uvarint(d.b)
	// A last byte of zero is padding, and a number has only one encoding.
	if n <= 0 || n > 1 && d.b[n-1] == 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) nonzero() uint64 {
	v := d.uvarint()
	if v == 0 {
		d.fail()
	}
	return v
}

func (d *decoder) millis() int64 {
	v := d.nonzero()
	if v > 1<<62 {
		d.fail()
		return 0
	}
	return int64(v)
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}
