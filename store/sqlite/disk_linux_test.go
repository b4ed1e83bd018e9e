package sqlite

import (
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/sojourn-go/sojourn/store"
)

// TestACommitThatCannotBeWrittenFailsAllOfItAndLosesNothing has the operating
// system refuse to let files grow, as on a full disk.
func TestACommitThatCannotBeWrittenFailsAllOfItAndLosesNothing(t *testing.T) {
	s := opened(t, func(o *options) { o.log.ahead = 0 }) // or there is room in the log
	kept := insert(t, s, session(1, 1000))

	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var usual syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &usual))
	tight := usual
	tight.Cur = uint64(logSize(t, s)) + 20_000
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &tight))
	outcomes := make([]error, 2)
	whileHeld(t, s,
		func() { outcomes[0] = s.Save(t.Context(), session(2, 10), store.Base{}) },
		func() { outcomes[1] = s.Save(t.Context(), session(3, 100_000), store.Base{}) },
	)
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &usual))

	for i, err := range outcomes {
		if err == nil {
			t.Errorf("save %d was answered with success, and the log could not be written", i)
		} else if !strings.Contains(err.Error(), "sqlite: save: ") {
			t.Errorf("save %d: %v, want to know what failed", i, err)
		}
		// SQLite reports that writing failed, but not whether the commit was written.
		if errors.Is(err, store.ErrRefused) != refusals[code(err)] {
			t.Errorf("save %d: %v (code %d) is told as the wrong kind", i, err, code(err))
		}
		if _, err := s.Load(t.Context(), id(2+i)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Load of a save that failed: %v, want store.ErrNotFound", err)
		}
	}
	if _, err := s.Load(t.Context(), kept.ID); err != nil {
		t.Errorf("Load of an earlier save: %v", err)
	}
	for n := range 3 {
		if err := s.Save(t.Context(), session(10+n, 100_000), store.Base{}); err != nil {
			t.Errorf("Save after there is room again: %v", err)
		}
	}
}

func TestOpenRefusesAReadOnlyFile(t *testing.T) {
	s := opened(t)
	insert(t, s, session(1, 10))
	must(t, s.Close())
	must(t, os.Chmod(s.path, 0o444))
	must(t, os.Chmod(filepath.Dir(s.path), 0o777))
	must(t, os.Chmod(filepath.Dir(filepath.Dir(s.path)), 0o755))
	asNobody(t, func() {
		s, err := Open(s.path)
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("Open: %v, want fs.ErrPermission that says the file is read-only", err)
		}
		if err == nil {
			s.Close()
		}
	})
}

func TestOpenInAFolderThatCannotBeWrittenTo(t *testing.T) {
	folder := t.TempDir()
	must(t, os.Chmod(folder, 0o555))
	asNobody(t, func() {
		s, err := Open(folder + "/sessions.db")
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Open: %v, want fs.ErrPermission", err)
		}
		if err == nil {
			s.Close()
		}
	})
}

// asNobody runs a function with the file permissions of an ordinary user, even
// if the tests run as root.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if os.Geteuid() == 0 {
			// For this thread only, which ends with the goroutine.
			runtime.LockOSThread()
			if err := syscall.Setfsuid(65534); err != nil {
				t.Error(err)
				return
			}
		}
		f()
	}()
	<-done
}
