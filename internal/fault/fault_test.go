package fault

import (
	"errors"
	"io"
	"testing"
)

func TestAwayWrapsItsCauseAndUnavailable(t *testing.T) {
	err := Away("load", io.ErrUnexpectedEOF)
	if !errors.Is(err, Unavailable) || !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrUnknown) {
		t.Errorf("got %v", err)
	}
	if want := "sojourn: the session store is unavailable: load: unexpected EOF"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if err := Away("save", ErrUnknown); !errors.Is(err, ErrUnknown) || !errors.Is(err, Unavailable) {
		t.Errorf("got %v", err)
	}
}

func TestSizeSaysHowMuchTooLarge(t *testing.T) {
	err := Size(11, 10)
	if want := "sojourn: the session is too large: 11 bytes, at most 10"; !errors.Is(err, TooLarge) || err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}
