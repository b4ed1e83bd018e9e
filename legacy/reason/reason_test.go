package reason_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/sojourn-go/sojourn/legacy/reason"
)

func TestTheReasonOfAnError(t *testing.T) {
	wrapped := fmt.Errorf("reading: %w", fmt.Errorf("%w: in detail", reason.Expired))
	if !errors.Is(wrapped, reason.Expired) || errors.Is(wrapped, reason.Missing) {
		t.Errorf("%v is not expired", wrapped)
	}
	for err, want := range map[error]reason.Reason{wrapped: "expired", errors.New("down"): "", nil: ""} {
		if got := reason.Of(err); got != want {
			t.Errorf("%v is %q, want %q", err, got, want)
		}
	}
}
