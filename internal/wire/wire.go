// Package wire is the binary format of Sojourn's cookies and the additional
// data of their seals. docs/wire-format.md describes it for other languages;
// testdata/wire-format.json at the root has test vectors for both.
package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/store"
)

// ErrFormat means that a cookie's plain text is not in this package's format.
var ErrFormat = errors.New("wire: malformed cookie content")

// Text is the encoding of sealed bytes in a cookie: canonical base64url without
// padding (RFC 4648, section 5).
var Text = base64.RawURLEncoding.Strict()

const (
	// MaxCookie is the maximum size of a cookie's name and value in browsers,
	// in bytes (RFC 6265bis, section 5.6).
	MaxCookie = 4096
	// MaxChunks is how many numbered cookies one session may take.
	MaxChunks = 4

	chunkSize = 3900 // bytes of name and value of a numbered cookie
)

// Reference is the content of a reference cookie: a session and one of its
// credentials.
type Reference struct {
	Identifier []byte // secret, record.IdentifierSize bytes
	Generation uint64
	Expires    int64 // Unix milliseconds
}

// Append appends identifier, generation and expires to dst, the latter two as
// unsigned varints.
func (r *Reference) Append(dst []byte) []byte {
	dst = append(dst, r.Identifier...)
	dst = binary.AppendUvarint(dst, r.Generation)
	return binary.AppendUvarint(dst, uint64(r.Expires))
}

// ParseReference parses the result of Append. The result shares b.
func ParseReference(b []byte) (Reference, error) {
	const n = record.IdentifierSize
	if len(b) < n {
		return Reference{}, ErrFormat
	}
	r := Reference{Identifier: b[:n:n]}
	generation, i := uvarint(b[n:])
	if i <= 0 {
		return Reference{}, ErrFormat
	}
	expires, j := uvarint(b[n+i:])
	if j <= 0 || n+i+j != len(b) || expires > 1<<62 {
		return Reference{}, ErrFormat
	}
	r.Generation, r.Expires = generation, int64(expires)
	return r, nil
}

// The first byte of a state cookie's plain text is its kind.
const (
	StateInline = 1 // a record follows: the session itself
	StateFloor  = 2 // a Floor follows
	// StateFloorVolatile is StateFloor, for a session that had volatile values
	// in a cache at that version.
	StateFloorVolatile = 3
	// StateRefused is followed by a Mark, and optionally by the plain text of
	// an inline session, including its kind.
	StateRefused = 4
)

// Mark names the reference cookies of a request that were refused. If a browser
// sends it together with these references, it has learned of the refusal, so
// the request began after it. The zero Mark is none.
type Mark [16]byte

// MarkOf returns the mark of reference cookies with these values, in the order
// of the request.
func MarkOf(values []string) Mark {
	h := sha256.New()
	for _, v := range values {
		_ = binary.Write(h, binary.BigEndian, uint64(len(v))) // a hash never fails
		_, _ = io.WriteString(h, v)
	}
	return Mark(h.Sum(nil)[:len(Mark{})])
}

// Append appends the state cookie's plain text for m to dst, after which that
// of an inline session may follow. The zero Mark appends nothing.
func (m Mark) Append(dst []byte) []byte {
	if m == (Mark{}) {
		return dst
	}
	return append(append(dst, StateRefused), m[:]...)
}

// CutMark splits a state cookie's plain text into the mark at its beginning, if
// there is one, and the rest.
func CutMark(b []byte) (Mark, []byte, error) {
	if len(b) == 0 || b[0] != StateRefused {
		return Mark{}, b, nil
	}
	b = b[1:]
	if len(b) < len(Mark{}) || Mark(b) == (Mark{}) {
		return Mark{}, nil, ErrFormat
	}
	m, rest := Mark(b), b[len(Mark{}):]
	if len(rest) > 0 && rest[0] != StateInline {
		return Mark{}, nil, ErrFormat
	}
	return m, rest, nil
}

// Floor is the newest version of a stored session that a browser has seen.
type Floor struct {
	ID      store.ID
	Version uint64
	// Volatile: a cache may hold values for that version.
	Volatile bool
}

// Append appends the state cookie's plain text for f to dst.
func (f *Floor) Append(dst []byte) []byte {
	kind := byte(StateFloor)
	if f.Volatile {
		kind = StateFloorVolatile
	}
	dst = append(dst, kind)
	dst = append(dst, f.ID[:]...)
	return binary.AppendUvarint(dst, f.Version)
}

// ParseFloor parses the result of Append after that kind.
func ParseFloor(kind byte, b []byte) (Floor, error) {
	f := Floor{Volatile: kind == StateFloorVolatile}
	if len(b) <= len(f.ID) {
		return Floor{}, ErrFormat
	}
	copy(f.ID[:], b)
	v, n := uvarint(b[len(f.ID):])
	if n <= 0 || len(f.ID)+n != len(b) {
		return Floor{}, ErrFormat
	}
	f.Version = v
	return f, nil
}

// uvarint is binary.Uvarint for numbers in their shortest form, so that each
// number has one encoding.
func uvarint(b []byte) (v uint64, n int) {
	v, n = binary.Uvarint(b)
	if n > 1 && b[n-1] == 0 {
		return 0, 0
	}
	return v, n
}

// Scope returns the scope of a manager's name and a tenant. A name has no zero
// byte, so scopes are unique.
func Scope(name, tenant string) string {
	if tenant == "" {
		return name
	}
	return name + "\x00" + tenant
}

// Bind returns the additional data of the cookies of that scope.
func Bind(scope string) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(scope))), scope...)
}

// BindRecord returns the additional data of a stored record: its ID, version,
// user and end, so that an attacker with write access to a store cannot present
// one session's data as another's, or as newer.
func BindRecord(bound []byte, rec *store.Record) []byte {
	b := make([]byte, 0, len(bound)+len(rec.ID)+len(rec.User)+16)
	b = append(b, bound...)
	b = append(b, rec.ID[:]...)
	b = binary.BigEndian.AppendUint64(b, rec.Version)
	b = append(b, rec.User[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(rec.Expires.UnixMilli()))
}

// BindVolatile returns the additional data of a cache's values for that state
// of a record: that of the record, and its newest save ID.
func BindVolatile(bound []byte, rec *store.Record) []byte {
	return binary.BigEndian.AppendUint64(BindRecord(bound, rec), uint64(rec.Base().SaveID))
}

// Chunks returns the number of pieces into which Split cuts a value of n bytes.
func Chunks(name string, n int) int {
	if len(name)+n <= MaxCookie {
		return 1
	}
	size := chunkSize - len(name)
	return (n + size - 1) / size
}

// Split cuts a cookie value into pieces that fit into cookies with names as
// long as name. The first piece starts with the number of pieces and a dot,
// unless there is only one.
func Split(name, value string) []string {
	chunks := make([]string, Chunks(name, len(value)))
	if len(chunks) == 1 {
		chunks[0] = value
		return chunks
	}
	for i := range chunks {
		end := min(chunkSize-len(name), len(value))
		chunks[i], value = value[:end], value[end:]
	}
	chunks[0] = strconv.Itoa(len(chunks)) + "." + chunks[0]
	return chunks
}

// Join is the inverse of Split. more returns the value of the i-th numbered
// cookie, counted from 1. It reports whether all pieces are there.
func Join(first string, more func(i int) (string, bool)) (string, bool) {
	if len(first) < 2 || first[1] != '.' {
		return first, true
	}
	n := int(first[0]) - '0'
	if n < 2 || n > MaxChunks {
		return "", false
	}
	var b strings.Builder
	b.WriteString(first[2:])
	for i := 1; i < n; i++ {
		part, ok := more(i)
		if !ok {
			return "", false
		}
		b.WriteString(part)
	}
	return b.String(), true
}
