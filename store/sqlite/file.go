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

// ErrReplaced says that the database file, or one of the two beside it, was
// replaced, removed or cut short while it was open. Whatever is saved now would be
// lost with what is still open, so nothing is, until the files are back or the
// application is started again.
var ErrReplaced = errors.New("sqlite: the database file was replaced, removed or cut short while it was open; " +
	"stop the application, put the file in place, and start the application again")

// lookEvery is how often the files are looked at, while they are used. It takes a
// few microseconds.
const lookEvery = 100 * time.Millisecond

// file knows which files SQLite has opened. As long as one connection is open,
// SQLite keeps all three, so any other file at one of the paths is not its own.
type file struct {
	paths [3]string // the database, its log, and the log's index
	are   [3]os.FileInfo
	next  atomic.Int64 // when to look again, in Unix nanoseconds
	wrong atomic.Pointer[error]
}

// watch remembers the files of a database that is open. It must be called before
// anything else.
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

// inPlace returns an error that wraps ErrReplaced if the files are not those that
// were opened. What it says is up to lookEvery old.
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
			continue // nobody knows: SQLite may still do what it has to
		case !os.SameFile(is, f.are[i]):
			return fmt.Errorf("%w: %s is another file", ErrReplaced, p)
		case i == 0 && is.Size() < pageSize:
			return fmt.Errorf("%w: %s has %d bytes", ErrReplaced, p, is.Size())
		}
	}
	return nil
}
