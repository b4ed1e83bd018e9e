package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

// parts returns the pieces of a sealed value with these cuts, as it is written.
func parts(sealed []byte, plaintext int, cuts []int) (chunks [][]byte, end []byte) {
	at := Overhead + append(cuts, plaintext)[0]
	chunks = append(chunks, sealed[:at])
	for i := range cuts {
		size := append(cuts[1:], plaintext)[i] - cuts[i] + chunkOverhead
		chunks = append(chunks, sealed[at:][:size])
		at += size
	}
	return chunks, sealed[at:]
}

// openAll returns the plaintext of a sealed value that was cut there.
func openAll(r *Ring, sealed, aad []byte, plaintext int, cuts []int) ([]byte, error) {
	all, rest, _, err := r.OpenChunks(Record, sealed, aad)
	if err != nil {
		return nil, err
	}
	if len(cuts) == 0 {
		return all, nil
	}
	if len(all) != cuts[0] || !rest.Holds(len(cuts), plaintext-cuts[0]) {
		return nil, ErrOpen
	}
	for i, start := range cuts {
		end := append(cuts[1:], plaintext)[i]
		b, err := rest.Open(nil, i+1, start-cuts[0], end-start)
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, nil
}

func TestChunksComeBackAsTheyWere(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	plaintext, aad := bytes.Repeat([]byte("0123456789"), 10), []byte("bound")
	for _, cuts := range [][]int{nil, {0}, {10}, {10, 20, 90}, {100}, {50, 50, 100}} {
		sealed, err := r.SealChunks([]byte("kept"), Record, plaintext, cuts, aad)
		if err != nil {
			t.Fatal(err)
		}
		sealed = bytes.TrimPrefix(sealed, []byte("kept"))
		if want := len(plaintext) + ChunksOverhead(len(cuts)+1); len(sealed) != want {
			t.Errorf("cuts %v: %d bytes, want %d", cuts, len(sealed), want)
		}
		got, err := openAll(r, sealed, aad, len(plaintext), cuts)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("cuts %v: %q, %v", cuts, got, err)
		}
	}
}

// A chunk opens in its own place only.
func TestChunksCannotBeMoved(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	plaintext, aad, cuts := bytes.Repeat([]byte("0123456789"), 4), []byte("version 7"), []int{10, 20, 30}
	seal := func(aad string) ([]byte, [][]byte, []byte) {
		sealed, err := r.SealChunks(nil, Record, plaintext, cuts, []byte(aad))
		if err != nil {
			t.Fatal(err)
		}
		chunks, end := parts(sealed, len(plaintext), cuts)
		return sealed, chunks, end
	}
	_, own, end := seal("version 7")
	_, again, _ := seal("version 7") // another save of the same
	_, older, _ := seal("version 6")
	join := func(end []byte, chunks ...[]byte) []byte { return append(slices.Concat(chunks...), end...) }
	length := func(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

	if got, err := openAll(r, join(end, own...), aad, len(plaintext), cuts); err != nil || !bytes.Equal(got, plaintext) {
		t.Fatalf("as it was sealed: %q, %v", got, err)
	}
	for what, sealed := range map[string][]byte{
		"two swapped":               join(end, own[0], own[2], own[1], own[3]),
		"the last one swapped":      join(end, own[0], own[1], own[3], own[2]),
		"one repeated":              join(end, own[0], own[1], own[1], own[3]),
		"one more":                  join(end, own[0], own[1], own[2], own[3], own[3]),
		"the last one cut off":      join(end, own[0], own[1], own[2]),
		"one cut out":               join(end, own[0], own[1], own[3]),
		"all but the first cut off": join(end, own[0]),
		"one of another save":       join(end, own[0], own[1], again[2], own[3]),
		"the first of another save": join(end, again[0], own[1], own[2], own[3]),
		"one of an older version":   join(end, own[0], own[1], older[2], own[3]),
		"the first of an older one": join(end, older[0], own[1], own[2], own[3]),
		"all of an older version":   join(end, older...),
		"the length of two":         join(length(len(own[0])+len(own[1])), own...),
		"a length of nothing":       join(length(0), own...),
		"a length beyond the end":   join(length(1<<31), own...),
		"no length":                 join(nil, own...),
	} {
		if got, err := openAll(r, sealed, aad, len(plaintext), cuts); err == nil {
			t.Errorf("%s: opened as %q", what, got)
		}
	}
	for i := range own[1] {
		bad := bytes.Clone(own[1])
		bad[i] ^= 1
		if got, err := openAll(r, join(end, own[0], bad, own[2], own[3]), aad, len(plaintext), cuts); !errors.Is(err, ErrOpen) {
			t.Fatalf("byte %d changed: %q, %v", i, got, err)
		}
	}
	// An uncut value does not open as a cut one.
	whole, err := r.Seal(nil, Record, plaintext, aad)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := openAll(r, append(whole, length(len(whole))...), aad, len(plaintext), nil); err == nil {
		t.Errorf("sealed as one piece: opened as %q", got)
	}
	if got, _, err := r.Open(nil, Record, own[0], aad); err == nil {
		t.Errorf("a first chunk alone opened as %q", got)
	}
}

func TestChunksOfAnUnknownKey(t *testing.T) {
	r, other := newRing(t, newKey(t, 1, Active)), newRing(t, newKey(t, 2, Active))
	sealed, err := other.SealChunks(nil, Record, make([]byte, 20), []int{10}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := r.OpenChunks(Record, sealed, nil); !errors.Is(err, ErrUnknownKey) {
		t.Error(err)
	}
}

// FuzzOpenChunks looks for chunks that open although they were not sealed that way.
func FuzzOpenChunks(f *testing.F) {
	r := newRing(f, newKey(f, 1, Active))
	plaintext, aad, cuts := bytes.Repeat([]byte("0123456789"), 4), []byte("version 7"), []int{10, 20, 30}
	sealed, err := r.SealChunks(nil, Record, plaintext, cuts, aad)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(0, 0, 0, byte(0))
	f.Add(10, 64, 0, byte(0))
	f.Add(60, 100, 20, byte(3))
	f.Fuzz(func(t *testing.T, from, to, n int, xor byte) {
		// A stretch is copied to another place, and changed.
		bad := bytes.Clone(sealed)
		place := func(i int) int { return int(uint(i) % uint(len(bad))) }
		from, to = place(from), place(to)
		copied := copy(bad[to:], sealed[from:][:min(place(n), len(bad)-from)])
		for i := range copied {
			bad[to+i] ^= xor
		}
		got, err := openAll(r, bad, aad, len(plaintext), cuts)
		if same := bytes.Equal(bad, sealed); err == nil != same || same && !bytes.Equal(got, plaintext) {
			t.Errorf("the same: %t, opened as %q, %v", same, got, err)
		}
	})
}
