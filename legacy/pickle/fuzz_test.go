package pickle_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/pickle"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

func FuzzDecode(f *testing.F) {
	for _, c := range recordedPickles(f) {
		if b := c.bytes(f); len(b) < 512 {
			f.Add(b)
		}
	}
	limits := pickle.Limits{Nodes: 4_000, Bytes: 64 << 10}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v any
		var err error
		if spent := legacytest.Allocated(func() { v, err = limits.Decode(data) }); spent > 16<<20 {
			t.Errorf("%d bytes allocated for %d", spent, len(data))
		}
		if err != nil {
			if reason.Of(err) == "" {
				t.Errorf("no reason: %v", err)
			}
			return
		}
		written, err := pickle.Encode(v)
		if errors.Is(err, value.ErrUnsupported) {
			return // a zone by itself
		}
		if err != nil {
			t.Fatal(err)
		}
		again, err := pickle.Decode(written)
		if err != nil || !value.Equal(v, again) {
			t.Fatalf("%q is written as %q: %v", data, written, err)
		}
		if twice, err := pickle.Encode(again); err != nil || !bytes.Equal(written, twice) {
			t.Errorf("%q is written as %q and then %q, %v", data, written, twice, err)
		}
	})
}
