package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// ErrReplaced means that the database file, or one of the two files beside it,
// was replaced, removed or truncated while it was open. Saves are refused,
// because they would be lost, until the files are restored or the application
// restarts.
var ErrReplaced = errors.New("sqlite: the database file was replaced, removed or cut short while it was open; " +
	"stop the application, put the file in place, and start the application again")

// lookEvery is how often the files are checked while they are used. A check
// takes a few microseconds.
const lookEvery = 100 * time.Millisecond

// file has the identities of the files that SQLite has opened. SQLite keeps all
// three while a connection is open, so a different file at one of the paths is
// not SQLite's.
type file struct {
	paths [3]string // the database, its log, and the log's index
	are   [3]os.FileInfo
	next  atomic.Int64 // when to check again, in Unix nanoseconds
	wrong atomic.Pointer[error]
}

// watch records the files of an open database. It must be called first.
func (f *file) watch(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	f.paths = [3]string{path, path + "-wal", path + "-shm"}
	for i, p := range f.paths {
		if f.are[i], err = os.Stat(p); err != nil {
			return err
		}
	}
	return nil
}

// inPlace returns an error that wraps ErrReplaced if the files are not those
// that were opened. Its result is up to lookEvery old.
func (f *file) inPlace() error {
	now, next := time.Now().UnixNano(), f.next.Load()
	if now >= next && f.next.CompareAndSwap(next, now+int64(lookEvery)) {
		err := f.look()
		f.wrong.Store(&err)
	}
	if err := f.wrong.Load(); err != nil {
		return *err
	}
	return nil
}

func (f *file) look() error {
	for i, p := range f.paths {
		is, err := os.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%w: %s is missing", ErrReplaced, p)
		case err != nil:
			continue // unknown, so SQLite may try
		case !os.SameFile(is, f.are[i]):
			return fmt.Errorf("%w: %s is another file", ErrReplaced, p)
		case i == 0 && is.Size() < pageSize:
			return fmt.Errorf("%w: %s has %d bytes", ErrReplaced, p, is.Size())
		}
	}
	return nil
}
