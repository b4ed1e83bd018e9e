package seal

import (
	"bytes"
	"testing"
	"time"
)

// The size of a small session, and of the data it is bound to.
var (
	benchText = bytes.Repeat([]byte("x"), 200)
	benchAAD  = bytes.Repeat([]byte("y"), 40)
)

func benchRing(b *testing.B) *Ring {
	key, err := NewKey([SecretSize]byte{1}, Active, time.Unix(0, 0))
	if err != nil {
		b.Fatal(err)
	}
	ring, err := NewRing([]Key{key}, [SecretSize]byte{2})
	if err != nil {
		b.Fatal(err)
	}
	return ring
}

func BenchmarkSeal(b *testing.B) {
	run := func(b *testing.B, before func(*purposeKey)) {
		ring := benchRing(b)
		buf := make([]byte, 0, 512)
		b.ReportAllocs()
		for b.Loop() {
			before(&ring.sealing.derived[State])
			if _, err := ring.Seal(buf, State, benchText, benchAAD); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("warm", func(b *testing.B) { run(b, func(*purposeKey) {}) })
	b.Run("cold", func(b *testing.B) { run(b, func(k *purposeKey) { k.current.Store(nil) }) })
	b.Run("parallel", func(b *testing.B) {
		ring := benchRing(b)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			buf := make([]byte, 0, 512)
			for pb.Next() {
				ring.Seal(buf, State, benchText, benchAAD)
			}
		})
	})
}

func BenchmarkOpen(b *testing.B) {
	// other is a process whose values the ring has to open.
	ring, other := benchRing(b), benchRing(b)
	sealed, err := other.Seal(nil, State, benchText, benchAAD)
	if err != nil {
		b.Fatal(err)
	}
	run := func(b *testing.B, ring *Ring, before func(*purposeKey)) {
		buf := make([]byte, 0, 512)
		b.ReportAllocs()
		for b.Loop() {
			before(&ring.sealing.derived[State])
			if _, _, err := ring.Open(buf, State, sealed, benchAAD); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("own", func(b *testing.B) { run(b, other, func(*purposeKey) {}) })
	b.Run("warm", func(b *testing.B) { run(b, ring, func(*purposeKey) {}) })
	b.Run("cold", func(b *testing.B) {
		set := ring.sealing.derived[State].set(prefix(sealed[idSize:]))
		run(b, ring, func(*purposeKey) { set[0].Store(nil) })
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			buf := make([]byte, 0, 512)
			for pb.Next() {
				ring.Open(buf, State, sealed, benchAAD)
			}
		})
	})
	b.Run("unknown key", func(b *testing.B) {
		foreign := bytes.Clone(sealed)
		foreign[0] ^= 1
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := ring.Open(nil, State, foreign, benchAAD); err != ErrUnknownKey {
				b.Fatal(err)
			}
		}
	})
}
