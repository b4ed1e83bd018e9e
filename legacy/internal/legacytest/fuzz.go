package legacytest

import (
	"context"
	"errors"
	"net/http"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// Genuine is the placeholder for a genuine cookie value in a fuzzed Cookie header.
const Genuine = "\x01"

// With returns a Cookie header in which Genuine is replaced.
func With(header, genuine string) http.Header {
	return http.Header{"Cookie": {strings.ReplaceAll(header, Genuine, genuine)}}
}

// Allocated returns about how many bytes the process allocates while f runs. It
// is cheap enough for every run of a fuzz target.
func Allocated(f func()) uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	f()
	metrics.Read(sample)
	return sample[0].Value.Uint64() - before
}

// Read reads a session for a fuzz target, from a header that holds size bytes
// or refers to them. It returns the session, or nil if the format refused it
// with a reason. Any other result, or excessive allocation, fails the test.
func Read(t testing.TB, r legacy.Reader, header http.Header, now time.Time, size int) *legacy.Session {
	t.Helper()
	var s *legacy.Session
	var err error
	spent := Allocated(func() { s, err = r.Read(context.Background(), header, now) })
	// A byte of a pickle or gob can become a container, and JSON inside zlib grows.
	if most := uint64(32<<20 + 1000*size); spent > most {
		t.Errorf("%d bytes allocated for %d", spent, size)
	}
	switch {
	case err != nil && reason.Of(err) == "":
		t.Fatalf("no reason: %v", err)
	case err == nil && s.Data == nil:
		t.Fatal("no data")
	case err == nil && len(s.Credential) == 0:
		t.Fatal("nothing to recognise the session by")
	case err != nil:
		return nil
	}
	return s
}

// Rewrite writes a session that was read, and fails unless it reads back with
// the same data. If the format cannot hold it, Write must return an error.
func Rewrite(t testing.TB, f legacy.Format, header http.Header, s *legacy.Session, now time.Time) {
	t.Helper()
	before := s.Data.Clone()
	fields, err := f.Write(context.Background(), s, now)
	if errors.Is(err, value.ErrUnsupported) || errors.Is(err, legacy.ErrTooLarge) {
		return
	}
	if err != nil {
		t.Fatalf("writing what was read: %v", err)
	}
	if len(fields) > 0 {
		header = Header(fields...)
	}
	again, err := f.Read(context.Background(), header, now)
	if err != nil {
		t.Fatalf("reading what was written: %v", err)
	}
	if !value.Equal(before, again.Data) {
		t.Errorf("%s comes back as %s", value.MarshalTagged(before), value.MarshalTagged(again.Data))
	}
}
