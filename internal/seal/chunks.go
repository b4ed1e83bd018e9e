package seal

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
)

// A long value is sealed in chunks, so that a part can be opened alone:
//
//	first chunk  key id (4) ‖ nonce (24) ‖ ciphertext ‖ tag (16)
//	each other   nonce (12) ‖ ciphertext ‖ tag (16)
//	end          length of the first chunk, sealed (4, big endian)
//
// All chunks are sealed under one derived key: they share the first 12 bytes of
// the first chunk's nonce, and the other 12 are random in each. Each is bound
// to its number and to whether it is the last, as in the STREAM construction
// (Hoang, Reyhanitabar, Rogaway, Vizár 2015), to the random part of the first
// chunk's nonce, and to the value's additional data. So chunks cannot be
// removed, moved, or taken from another value.
const (
	chunkNonce    = nonceSize - len(prefix{})
	chunkOverhead = chunkNonce + tagSize
	lengthSize    = 4
)

// ChunksOverhead is how much longer n sealed chunks are than their plaintext.
func ChunksOverhead(n int) int { return Overhead + (n-1)*chunkOverhead + lengthSize }

// chunk appends a chunk's additional data to that of the whole value. first is
// the random part of the first chunk's nonce.
func chunk(aad, first []byte, number int, last bool) []byte {
	if number > 0 {
		aad = append(aad, first...)
	}
	aad = binary.BigEndian.AppendUint32(aad, uint32(number))
	if last {
		return append(aad, 1)
	}
	return append(aad, 0)
}

// SealChunks is [Ring.Seal] for a plaintext that is cut at these ascending
// offsets, into one chunk more than there are cuts.
func (r *Ring) SealChunks(dst []byte, p Purpose, plaintext []byte, cuts []int, aad []byte) ([]byte, error) {
	s, err := r.sealing.derived[p].sealer()
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	s.used.Add(uint64(len(cuts))) // a few more than the limit are harmless
	dst = slices.Grow(dst, len(plaintext)+ChunksOverhead(len(cuts)+1))
	dst = append(dst, r.sealing.id[:]...)
	dst = append(dst, s.prefix[:]...)
	nonces := make([]byte, (len(cuts)+1)*chunkNonce)
	rand.Read(nonces)
	full := r.additional(p, aad)
	whole := len(*full)
	start, first := 0, 0
	for i := range len(cuts) + 1 {
		end := len(plaintext)
		if i < len(cuts) {
			end = cuts[i]
		}
		nonce := nonces[i*chunkNonce:][:chunkNonce]
		*full = chunk((*full)[:whole], nonces[:chunkNonce], i, i == len(cuts))
		dst = append(dst, nonce...)
		dst = s.aead.Seal(dst, nonce, plaintext[start:end], *full)
		if start = end; i == 0 {
			first = Overhead + end
		}
	}
	r.scratch.Put(full)
	return binary.BigEndian.AppendUint32(dst, uint32(first)), nil
}

// largestKept is the size of the largest buffer that is reused.
const largestKept = 256 << 10

// Borrow returns an empty buffer for a plaintext until it is sealed. Give it
// back with Return.
func (r *Ring) Borrow() *[]byte {
	if buf, ok := r.plaintexts.Get().(*[]byte); ok {
		return buf
	}
	return new([]byte)
}

// Return takes back a buffer, which must not be used any more.
func (r *Ring) Return(buf *[]byte) {
	if cap(*buf) <= largestKept {
		*buf = (*buf)[:0]
		r.plaintexts.Put(buf)
	}
}

// Chunks are the chunks of a sealed value after the first, which can be opened
// one by one. It is safe for concurrent use.
type Chunks struct {
	ring   *Ring
	cipher *derived
	p      Purpose
	aad    []byte
	first  []byte // the random part of the first chunk's nonce
	sealed []byte // from the second chunk on
}

// OpenChunks opens the first chunk of a value from SealChunks. The others share
// sealed and aad, which must not be modified. The errors and stale are those of
// [Ring.Open].
func (r *Ring) OpenChunks(p Purpose, sealed, aad []byte) (first []byte, rest *Chunks, stale bool, err error) {
	n := len(sealed) - lengthSize
	if n < 0 {
		return nil, nil, false, ErrOpen
	}
	length := int(binary.BigEndian.Uint32(sealed[n:]))
	if length < Overhead || length > n {
		return nil, nil, false, ErrOpen
	}
	first, c, stale, err := r.open(nil, p, sealed[:length], chunk(slices.Clip(aad), nil, 0, length == n))
	if err != nil {
		return nil, nil, false, err
	}
	return first, &Chunks{ring: r, cipher: c, p: p, aad: aad, first: sealed[idSize:][len(prefix{}):nonceSize], sealed: sealed[length:n]}, stale, nil
}

// Holds reports whether there are that many chunks with that much plaintext.
func (c *Chunks) Holds(chunks, size int) bool { return len(c.sealed) == size+chunks*chunkOverhead }

// Open appends the plaintext of a chunk to dst: the number-th, counted from 1,
// with size bytes after before bytes of the previous chunks.
func (c *Chunks) Open(dst []byte, number, before, size int) ([]byte, error) {
	at := before + (number-1)*chunkOverhead
	end := at + size + chunkOverhead
	if at < 0 || end > len(c.sealed) {
		return nil, ErrOpen
	}
	full := c.ring.additional(c.p, c.aad)
	*full = chunk(*full, c.first, number, end == len(c.sealed))
	nonce := c.sealed[at:][:chunkNonce]
	plain, err := c.cipher.aead.Open(dst, nonce, c.sealed[at+chunkNonce:end], *full)
	c.ring.scratch.Put(full)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}
