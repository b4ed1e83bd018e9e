package filestore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/filestore"
)

var ctx = context.Background()

func open(t *testing.T) (*filestore.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := filestore.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, dir
}

func TestFilesAreReadReplacedAndRemoved(t *testing.T) {
	s, dir := open(t)
	const key = "container_file/5/5c/5c86.cache"
	if _, err := s.Get(ctx, key); !errors.Is(err, legacy.ErrNoEntry) {
		t.Errorf("before: %v", err)
	}
	for _, text := range []string{"one", "a longer two", ""} {
		if err := s.Set(ctx, key, legacy.Entry{Value: []byte(text)}); err != nil {
			t.Fatal(err)
		}
		if e, err := s.Get(ctx, key); err != nil || string(e.Value) != text {
			t.Errorf("%q, %v", e.Value, err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, key))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "container_file/5/5c/.new-*")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	for range 2 {
		if err := s.Delete(ctx, key); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Get(ctx, key); !errors.Is(err, legacy.ErrNoEntry) {
		t.Errorf("after: %v", err)
	}
}

func TestNoKeyReachesOutsideTheFolder(t *testing.T) {
	s, dir := open(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"../secret", secret, "a/../../secret", "link", ""} {
		if e, err := s.Get(ctx, key); err == nil {
			t.Errorf("%q is read: %q", key, e.Value)
		}
		if key != "link" { // it would be replaced, not followed
			if err := s.Set(ctx, key, legacy.Entry{Value: []byte("x")}); err == nil {
				t.Errorf("%q is written", key)
			}
		}
	}
	if b, _ := os.ReadFile(secret); string(b) != "s" {
		t.Error("the file outside was changed")
	}
}

func TestErrorsDoNotNameTheSession(t *testing.T) {
	s, dir := open(t)
	if err := os.Mkdir(filepath.Join(dir, "5c86identifier"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := s.Get(ctx, "5c86identifier")
	if err == nil || strings.Contains(err.Error(), "identifier") {
		t.Errorf("got %v", err)
	}
	if err := s.Set(ctx, "5c86identifier", legacy.Entry{}); err == nil || strings.Contains(err.Error(), "identifier") {
		t.Errorf("got %v", err)
	}
}

func TestAReaderNeverSeesHalfAFile(t *testing.T) {
	s, _ := open(t)
	old, young := strings.Repeat("a", 1<<16), strings.Repeat("b", 1<<16)
	if err := s.Set(ctx, "k", legacy.Entry{Value: []byte(old)}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 50 {
				text := old
				if i%2 == 0 {
					text = young
				}
				if err := s.Set(ctx, "k", legacy.Entry{Value: []byte(text)}); err != nil {
					t.Error(err)
				}
				if e, err := s.Get(ctx, "k"); err != nil || string(e.Value) != old && string(e.Value) != young {
					t.Errorf("%d bytes, %v", len(e.Value), err)
				}
			}
		})
	}
	wg.Wait()
}

func TestAFolderThatIsMissingIsAnError(t *testing.T) {
	if _, err := filestore.Open(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("opened")
	}
}
