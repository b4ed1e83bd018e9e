// Package filestore keeps legacy sessions in the files where Beaker's "file"
// type and gorilla's FilesystemStore keep them.
package filestore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"

	"github.com/sojourn-go/sojourn/legacy"
)

// maxFile is the maximum size of a file that is read, in bytes.
const maxFile = 8 << 20

// Store is a legacy.Store whose keys are paths below a folder. A key cannot
// address a file outside of it, even through symbolic links. It is safe for
// concurrent use, also by several processes: a file is replaced as a whole.
//
// A guard's comparison is atomic only within this process: other programs that
// write the files use no lock.
type Store struct {
	root *os.Root
	// replacing is held from a guard's comparison to the write.
	replacing sync.Mutex
}

var _ legacy.Store = (*Store)(nil)

// Open opens an existing folder: Beaker's data_dir, or gorilla's path.
func Open(folder string) (*Store, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("session files: %w", err)
	}
	return &Store{root: root}, nil
}

// Close closes the folder.
func (s *Store) Close() error { return s.root.Close() }

// Get implements legacy.Store.
func (s *Store) Get(ctx context.Context, key string) (legacy.Entry, error) {
	e, err := s.get(key)
	if err == nil || errors.Is(err, legacy.ErrNoEntry) {
		legacy.GuardOf(ctx).SawEntry(s, key, e, err == nil)
	}
	return e, err
}

func (s *Store) get(key string) (legacy.Entry, error) {
	f, err := s.root.Open(key)
	if errors.Is(err, fs.ErrNotExist) {
		return legacy.Entry{}, legacy.ErrNoEntry
	}
	if err != nil {
		return legacy.Entry{}, clean(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("a file of over %d bytes", maxFile)
	}
	if err != nil {
		return legacy.Entry{}, clean(err)
	}
	return legacy.Entry{Value: b}, nil
}

// Set implements legacy.Store. Folders are created as needed. Files and folders
// are accessible to their owner only. The entry's Expires and Flags are not
// kept.
func (s *Store) Set(ctx context.Context, key string, e legacy.Entry) error {
	s.replacing.Lock()
	defer s.replacing.Unlock()
	if guard := legacy.GuardOf(ctx); guard != nil {
		now, err := s.get(key)
		if err != nil && !errors.Is(err, legacy.ErrNoEntry) {
			return err
		}
		if !guard.Allows(s, key, now, err == nil) {
			return legacy.ErrChanged
		}
	}
	if err := s.root.MkdirAll(path.Dir(key), 0o700); err != nil {
		return clean(err)
	}
	temporary := path.Join(path.Dir(key), ".new-"+rand.Text())
	if err := s.root.WriteFile(temporary, e.Value, 0o600); err != nil {
		_ = s.root.Remove(temporary)
		return clean(err)
	}
	if err := s.root.Rename(temporary, key); err != nil {
		_ = s.root.Remove(temporary)
		return clean(err)
	}
	return nil
}

// Delete implements legacy.Store.
func (s *Store) Delete(_ context.Context, key string) error {
	err := s.root.Remove(key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return clean(err)
}

// clean removes the path from an error, because it contains the session's identifier.
func clean(err error) error {
	if err == nil {
		return nil
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("session files: %s: %w", p.Op, p.Err)
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		return fmt.Errorf("session files: %s: %w", l.Op, l.Err)
	}
	return fmt.Errorf("session files: %w", err)
}
