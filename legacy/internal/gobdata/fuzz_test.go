package gobdata_test

import (
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/legacy/internal/gobdata"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/reason"
)

func FuzzDecode(f *testing.F) {
	register()
	for _, m := range samples() {
		f.Add(encode(f, m))
	}
	f.Add([]byte(strings.Repeat("\x03\x04\x00\x02", 3)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got map[any]any
		var err error
		if spent := legacytest.Allocated(func() { err = gobdata.Decode(b, &got) }); spent > 16<<20 {
			t.Errorf("%d bytes allocated for %d", spent, len(b))
		}
		if err != nil {
			if reason.Of(err) == "" {
				t.Errorf("no reason: %v", err)
			}
			return
		}
		// What was read can be written again, and reads as many values.
		again, err := gobdata.Encode(got)
		if err != nil {
			t.Fatal(err)
		}
		var back map[any]any
		if err := gobdata.Decode(again, &back); err != nil || len(back) != len(got) {
			t.Errorf("%d values come back as %d: %v", len(got), len(back), err)
		}
	})
}
