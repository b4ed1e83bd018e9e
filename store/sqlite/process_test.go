package sqlite

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// childVariable makes the test program run a task instead of tests: it has the
// task's name and the path of the database.
const childVariable = "SQLITE_TEST_CHILD"

func TestMain(m *testing.M) {
	what, path, isChild := strings.Cut(os.Getenv(childVariable), " ")
	if !isChild {
		os.Exit(m.Run())
	}
	var err error
	switch what {
	case "increment":
		err = incrementAll(path)
	case "write":
		err = writeUntilKilled(path, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child starts the test program with a task.
func child(t *testing.T, what, path string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	must(t, err)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), childVariable+"="+what+" "+path)
	cmd.Stderr = os.Stderr
	return cmd
}

const (
	incrementers = 8
	increments   = 50
)

// incrementAll adds to the counter in session 1, from several goroutines. The
// first goroutine makes the session.
func incrementAll(path string) error {
	s, err := Open(path)
	if err != nil {
		return err
	}
	rec := session(1, 0)
	rec.Data = make([]byte, 8)
	rec.SaveIDs[0] = store.SaveID(rand.Uint64())
	if err := s.Save(context.Background(), rec, store.Base{}); err != nil && !errors.Is(err, store.ErrConflict) {
		return err
	}
	errs := make(chan error)
	for range incrementers {
		go func() {
			for range increments {
				if err := increment(s, rec.ID); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range incrementers {
		err = errors.Join(err, <-errs)
	}
	return errors.Join(err, s.Close())
}

func increment(s *Store, id store.ID) error {
	for {
		stored, err := s.Load(context.Background(), id)
		if err != nil {
			return err
		}
		rec := next(stored)
		rec.SaveIDs[0] = store.SaveID(rand.Uint64())
		rec.Data = binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(stored.Data)+1)
		if err := s.Save(context.Background(), rec, stored.Base()); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

func TestIncrementsOfSeveralProcessesAddUp(t *testing.T) {
	const processes = 3
	path := t.TempDir() + "/sessions.db"
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			if err := child(t, "increment", path).Run(); err != nil {
				t.Errorf("a process: %v", err)
			}
		})
	}
	wg.Wait()
	rec, err := reopen(t, path).Load(t.Context(), id(1))
	must(t, err)
	if n := binary.BigEndian.Uint64(rec.Data); n != processes*incrementers*increments {
		t.Errorf("the counter is %d, want %d", n, processes*incrementers*increments)
	}
}

const (
	crashSessions = 8
	lastVersion   = 200
)

// writeUntilKilled saves versions of some sessions, as fast as it can, and
// writes a line after each save: "session version". A session that has come to
// its last version is ended, "session ended", and the next one begun in its
// place.
func writeUntilKilled(path string, acknowledged io.Writer) error {
	s, err := Open(path, func(o *options) { o.log = smallLimits })
	if err != nil {
		return err
	}
	errs := make(chan error)
	for w := range crashSessions {
		go func() {
			for n := w; ; n += crashSessions {
				if err := writeSession(s, n, acknowledged); err != nil {
					errs <- fmt.Errorf("session %d: %w", n, err)
				}
			}
		}()
	}
	return <-errs
}

func writeSession(s *Store, n int, acknowledged io.Writer) error {
	ctx := context.Background()
	rec, err := s.Load(ctx, id(n))
	switch {
	case errors.Is(err, store.ErrNotFound):
		rec = store.Record{ID: id(n)}
	case err != nil:
		return err
	case rec.IsEnd():
		return nil
	}
	for rec.Version < lastVersion {
		base := rec.Base()
		rec = crashRecord(n, rec.Version+1)
		if err := s.Save(ctx, rec, base); err != nil {
			return err
		}
		// A short write to a pipe is atomic.
		fmt.Fprintf(acknowledged, "%d %d\n", n, rec.Version)
	}
	if err := s.Delete(ctx, id(n), time.Now().Add(time.Hour)); err != nil {
		return err
	}
	fmt.Fprintf(acknowledged, "%d ended\n", n)
	return nil
}

// crashRecord returns the one record that may be stored as this version.
func crashRecord(n int, version uint64) store.Record {
	rec := session(n, 0)
	rec.Version = version
	rec.SaveIDs = nil
	for v := version; v > 0 && len(rec.SaveIDs) < store.RecentSaveIDs; v-- {
		rec.SaveIDs = append(rec.SaveIDs, store.SaveID(v)<<32|store.SaveID(n))
	}
	rng := rand.New(rand.NewPCG(uint64(n), version))
	rec.Data = make([]byte, rng.IntN(20_000))
	for i := range rec.Data {
		rec.Data[i] = byte(rng.Uint32())
	}
	return rec
}

// TestSigkillLosesNothingThatWasAcknowledged kills a constantly saving process
// at a random moment, and checks the database.
func TestSigkillLosesNothingThatWasAcknowledged(t *testing.T) {
	const kills = 25
	path := t.TempDir() + "/sessions.db"
	saved := map[int]uint64{} // the newest acknowledged version of each session
	ended := map[int]bool{}
	total := 0
	for round := range kills {
		cmd := child(t, "write", path)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for after := rand.IntN(300); lines.Scan(); after-- {
			var n int
			var what string
			if _, err := fmt.Sscan(lines.Text(), &n, &what); err != nil {
				t.Fatalf("the process wrote %q", lines.Text())
			}
			if what == "ended" {
				ended[n] = true
			} else if saved[n], err = strconv.ParseUint(what, 10, 64); err != nil {
				t.Fatalf("the process wrote %q", lines.Text())
			}
			total++
			if after == 0 {
				must(t, cmd.Process.Kill())
			}
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() == 1 {
			t.Fatalf("the process ended by itself: %v", err)
		}

		s, err := Open(path)
		must(t, err)
		for n, version := range saved {
			rec, err := s.Load(t.Context(), id(n))
			if err != nil {
				t.Fatalf("kill %d, session %d: %v", round, n, err)
			}
			want := crashRecord(n, rec.Version)
			switch {
			case rec.Version < version:
				t.Errorf("kill %d, session %d: version %d is stored, %d was acknowledged", round, n, rec.Version, version)
			case ended[n] && !rec.IsEnd():
				t.Errorf("kill %d, session %d: it is live after its end was acknowledged", round, n)
			case rec.IsEnd() && rec.Version == lastVersion && len(rec.Data) == 0:
			case !bytes.Equal(rec.Data, want.Data) || rec.Base() != want.Base():
				t.Errorf("kill %d, session %d: version %d is torn", round, n, rec.Version)
			}
		}
		must(t, s.Close())
	}
	var verdict string
	must(t, other(t, path).QueryRow("PRAGMA integrity_check").Scan(&verdict))
	if verdict != "ok" {
		t.Errorf("the database is damaged: %v", verdict)
	}
	t.Logf("%d saves and ends acknowledged in %d sessions over %d kills", total, len(saved), kills)
}
