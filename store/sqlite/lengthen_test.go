package sqlite

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/sojourn-go/sojourn/store"
)

func TestSavesOverwriteTheLogRatherThanLettingItGrow(t *testing.T) {
	s := opened(t)
	for _, size := range []int{10, 1000, 20_000} {
		before := logSize(t, s)
		for n := range 20 {
			rec := insert(t, s, session(size+n, size))
			must(t, s.Save(t.Context(), next(rec), rec.Base()))
			must(t, s.Delete(t.Context(), rec.ID, rec.Expires))
		}
		if after := logSize(t, s); after != before {
			t.Errorf("60 commits with %d bytes of data let the log grow from %d to %d bytes", size, before, after)
		}
	}
}

func TestTheLogIsMadeLongerBeforeItIsFull(t *testing.T) {
	s := opened(t, func(o *options) { o.log = logLimits{check: 10, size: 400, most: 1600, ahead: 200} })
	rec := insert(t, s, session(1, 10))
	for range 1000 {
		base := rec.Base()
		rec = next(rec)
		must(t, s.Save(t.Context(), rec, base))
		if logSize(t, s) > logBytes(200) {
			break
		}
	}
	// Not by the commits: each of them would make it a page longer.
	if size := logSize(t, s); size < logBytes(205) {
		t.Errorf("the log has %d bytes after many saves, want it to be made longer in good time", size)
	}
}

func TestTheLogIsLeftAloneWhileAnotherProcessWrites(t *testing.T) {
	s := opened(t)
	insert(t, s, session(1, 10))
	c := other(t, s.path)
	before := logSize(t, s)
	must(t, c.run("BEGIN IMMEDIATE"))
	s.writer.hold(func() { s.writer.lengthen(3000) })
	if after := logSize(t, s); after != before {
		t.Errorf("the log grew from %d to %d bytes under another process's lock", before, after)
	}
	must(t, c.run("COMMIT"))
	s.writer.hold(func() { s.writer.lengthen(3000) })
	if after := logSize(t, s); after != logBytes(3000) {
		t.Errorf("the log has %d bytes, want room for 3000 pages", after)
	}
	insert(t, s, session(2, 100_000))
	if n, err := number(c.DB, "SELECT count(*) FROM sessions"); err != nil || n != 2 {
		t.Error("another process does not see both sessions")
	}
}

func TestALogThatReplacedOursIsLeftAlone(t *testing.T) {
	s := opened(t)
	log := s.path + "-wal"
	must(t, os.Rename(log, log+".away"))
	must(t, os.WriteFile(log, []byte("another"), 0o600))
	s.writer.hold(func() { s.writer.lengthen(3000) })
	is, err := os.ReadFile(log)
	must(t, err)
	if string(is) != "another" {
		t.Errorf("another process's log was written to: it has %d bytes", len(is))
	}
	must(t, os.Rename(log+".away", log))
}

// A crash leaves a log with unused space at its end.
func TestALongLogIsRecoveredAfterACrash(t *testing.T) {
	s := opened(t)
	var saved []store.Record
	crash := func() {
		t.Helper()
		copied := filepath.Join(t.TempDir(), "sessions.db")
		for _, suffix := range []string{"", "-wal"} {
			b, err := os.ReadFile(s.path + suffix)
			must(t, err)
			must(t, os.WriteFile(copied+suffix, b, 0o600))
		}
		c := reopen(t, copied)
		for _, rec := range saved {
			got, err := c.Load(t.Context(), rec.ID)
			must(t, err)
			if !bytes.Equal(got.Data, rec.Data) {
				t.Errorf("after %d saves and a crash a session is another one", len(saved))
			}
		}
		if n, err := c.Count(t.Context()); err != nil || n.Live != int64(len(saved)) {
			t.Errorf("after %d saves and a crash there are %d sessions (%v)", len(saved), n.Live, err)
		}
	}
	crash() // zeros from the beginning
	for n, size := range []int{10, 5000, 100_000} {
		saved = append(saved, insert(t, s, session(n+1, size)))
		crash()
	}
	s.writer.hold(func() { s.writer.lengthen(3000) })
	crash()
	s.log.trim(s.writer)
	saved = append(saved, insert(t, s, session(9, 10)))
	crash()
}
