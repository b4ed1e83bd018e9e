package sqlite

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// After the file was replaced by a backup, or similar, saves would be lost, so
// they are refused with the reason. Reads are also refused, because they would
// return data that is not in the new file.
func TestAFileThatWasReplacedWhileItIsOpenIsNotUsedAnyMore(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"another file renamed over it": func(path string) error {
			return errors.Join(os.WriteFile(path+".backup", make([]byte, 1<<20), 0o600), os.Rename(path+".backup", path))
		},
		"moved away":    func(path string) error { return os.Rename(path, path+".old") },
		"deleted":       os.Remove,
		"cut to zero":   func(path string) error { return os.Truncate(path, 0) },
		"log deleted":   func(path string) error { return os.Remove(path + "-wal") },
		"index deleted": func(path string) error { return os.Remove(path + "-shm") },
		"log replaced": func(path string) error {
			return errors.Join(os.Remove(path+"-wal"), os.WriteFile(path+"-wal", nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := opened(t)
			rec := insert(t, s, session(1, 100))
			must(t, harm(s.path))
			eventually(t, "it is noticed", func() bool {
				return errors.Is(s.Save(t.Context(), session(2, 100), store.Base{}), ErrReplaced)
			})
			err := s.Save(t.Context(), next(rec), rec.Base())
			if !errors.Is(err, ErrReplaced) || !errors.Is(err, store.ErrRefused) || !strings.Contains(err.Error(), "stop the application") {
				t.Errorf("Save: %v", err)
			}
			_, loading := s.Load(t.Context(), rec.ID)
			_, listing := s.ByUser(t.Context(), rec.User)
			_, _, scanning := s.Scan(t.Context(), "", 10)
			_, counting := s.Count(t.Context())
			_, hearing := s.Ends(t.Context(), store.FeedFromStart, 10)
			_, sweeping := s.Sweep(t.Context(), time.Hour, 10)
			for what, err := range map[string]error{
				"load": loading, "list": listing, "scan": scanning, "count": counting, "feed": hearing, "sweep": sweeping,
				"touch":  s.Touch(t.Context(), rec.ID, time.Now(), time.Now()),
				"delete": s.Delete(t.Context(), rec.ID, time.Now().Add(time.Hour)),
			} {
				if !errors.Is(err, ErrReplaced) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// After the file is restored, no restart is needed.
func TestAFileThatIsMovedAwayAndBackIsUsedAgain(t *testing.T) {
	s := opened(t)
	rec := insert(t, s, session(1, 100))
	must(t, os.Rename(s.path, s.path+".away"))
	eventually(t, "it is noticed", func() bool {
		_, err := s.Load(t.Context(), rec.ID)
		return errors.Is(err, ErrReplaced)
	})
	must(t, os.Rename(s.path+".away", s.path))
	eventually(t, "it is used again", func() bool { return s.Save(t.Context(), next(rec), rec.Base()) == nil })
}

// The new file has a log of its own, which the old store must not delete when it
// is closed.
func TestClosingLeavesTheFilesOfARestoredBackupAlone(t *testing.T) {
	s := opened(t)
	insert(t, s, session(1, 100))
	for _, suffix := range []string{"", "-wal", "-shm"} {
		must(t, os.Rename(s.path+suffix, s.path+suffix+".old"))
	}
	restored, err := Open(s.path)
	must(t, err)
	t.Cleanup(func() { _ = restored.Close() })
	rec := insert(t, restored, session(2, 100))
	must(t, s.Close())
	if _, err := os.Stat(s.path + "-wal"); err != nil {
		t.Errorf("the log of the file that is in use: %v", err)
	}
	must(t, restored.Save(t.Context(), next(rec), rec.Base()))
}

// The cost of the checks does not grow with the store's use.
func TestTheFilesAreNotLookedAtForEachRequest(t *testing.T) {
	f := new(file)
	s := opened(t)
	must(t, f.watch(s.path))
	must(t, f.inPlace())
	looked := f.next.Load()
	for range 1000 {
		_ = f.inPlace()
	}
	if looks := (f.next.Load() - looked) / int64(lookEvery); looks > 1+int64(time.Since(time.Unix(0, looked).Add(-lookEvery))/lookEvery) {
		t.Errorf("looked %d times", looks)
	}
	if n := testing.AllocsPerRun(100, func() { _ = f.inPlace() }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestAWriteBeforeWhichTheContextEndsIsRefusedForSure(t *testing.T) {
	s := opened(t)
	c := other(t, s.path)
	must(t, c.run("BEGIN IMMEDIATE"))
	for what, write := range map[string]func(context.Context) error{
		"in its caller":     func(ctx context.Context) error { return s.Save(ctx, session(1, 10), store.Base{}) },
		"in a transaction":  func(ctx context.Context) error { return s.Delete(ctx, id(1), time.Now()) },
		"touch in one step": func(ctx context.Context) error { return s.Touch(ctx, id(1), time.Now(), time.Now()) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := write(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, store.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
		cancel()
	}
	must(t, c.run("COMMIT"))
	insert(t, s, session(1, 10))
}
