//go:build !race

// The race detector makes a sync.Pool forget at random.

package seal

import "testing"

func TestSealAndOpenDoNotAllocateWhenWarm(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	plaintext, aad := make([]byte, 200), make([]byte, 40)
	sealed, err := r.Seal(nil, State, plaintext, aad)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 512)
	for _, c := range []struct {
		name string
		run  func()
	}{
		{"Seal", func() { r.Seal(buf, State, plaintext, aad) }},
		{"Open", func() { r.Open(buf, State, sealed, aad) }},
		{"Open with an unknown key", func() { r.Open(buf, State, plaintext, aad) }},
	} {
		if n := testing.AllocsPerRun(100, c.run); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { r.Seal(nil, State, plaintext, aad) }); n != 1 {
		t.Errorf("Seal without a buffer: %v allocations, want 1", n)
	}
}
