package stored

import (
	"testing"
)

func TestIdentifiersAre256RandomBits(t *testing.T) {
	const n = 4000
	var ones [256]int
	seen := map[string]bool{}
	for range n {
		id := NewWho().Identifier
		if len(id) != 32 || seen[string(id)] {
			t.Fatalf("an identifier of %d bytes, seen before: %t", len(id), seen[string(id)])
		}
		seen[string(id)] = true
		for bit := range ones {
			if id[bit/8]&(1<<(bit%8)) != 0 {
				ones[bit]++
			}
		}
	}
	for bit, got := range ones {
		if got < n*2/5 || got > n*3/5 {
			t.Errorf("bit %d is set in %d of %d identifiers", bit, got, n)
		}
	}
}
