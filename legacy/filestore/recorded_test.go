package filestore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/beaker"
	"github.com/sojourn-go/sojourn/legacy/filestore"
	"github.com/sojourn-go/sojourn/legacy/gorilla"
	"github.com/sojourn-go/sojourn/legacy/internal/recorded"
	"github.com/sojourn-go/sojourn/legacy/vectors"
)

func TestRecordedSessionsAreReadFromFiles(t *testing.T) {
	wanted := func(c *vectors.Case) bool { return recorded.Has(c, "file") }
	recorded.Sessions(t, "../testdata", 40, wanted, func(t *testing.T, c *vectors.Case) vectors.Backends {
		dir := t.TempDir()
		for _, e := range c.Storage {
			name := filepath.Join(dir, filepath.FromSlash(e.Key.(string)))
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, e.Value, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		return vectors.Backends{Store: folder(t, dir)}
	})
}

func folder(t *testing.T, dir string) *filestore.Store {
	t.Helper()
	s, err := filestore.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestParallelChangesInFilesAreKept(t *testing.T) {
	secret := []byte("a secret of the old application!")
	one, err := beaker.New(beaker.Config{Type: beaker.File, Secret: secret, Store: folder(t, t.TempDir())})
	two, err2 := gorilla.New(gorilla.Config{
		Name: "s", Keys: []gorilla.KeyPair{{Hash: secret}}, Backend: gorilla.FilesystemStore, Store: folder(t, t.TempDir()),
	})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	t.Run("beaker", func(t *testing.T) { recorded.Parallel(t, one) })
	t.Run("gorilla", func(t *testing.T) { recorded.Parallel(t, two) })
}

func TestAGuardAllowsOnlyWhatWasSeen(t *testing.T) {
	s := folder(t, t.TempDir())
	ctx := legacy.Guarded(context.Background())
	if _, err := s.Get(ctx, "k"); !errors.Is(err, legacy.ErrNoEntry) {
		t.Fatal(err)
	}
	if err := s.Set(context.Background(), "k", legacy.Entry{Value: []byte("other")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(ctx, "k", legacy.Entry{Value: []byte("mine")}); !errors.Is(err, legacy.ErrChanged) {
		t.Errorf("%v", err)
	}
	if e, err := s.Get(ctx, "k"); err != nil || string(e.Value) != "other" {
		t.Errorf("%q, %v", e.Value, err)
	}
}
