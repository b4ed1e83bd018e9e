package open_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/open"
)

type opening func(context.Context, string) (store.Store, io.Closer, error)

func TestStoreOpensWhatTheURLNames(t *testing.T) {
	for _, url := range []string{
		"memory:", "sqlite:" + filepath.Join(t.TempDir(), "new", "sessions.db"),
		"redis://" + servers.Redis(t).Addr + "/1?prefix=a:",
	} {
		s, closer, err := open.Store(t.Context(), url)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		now := time.Now()
		rec := store.Record{
			ID: store.HashIdentifier([]byte("a")), Version: 1, Tags: []store.Tag{1},
			Created: now, Seen: now, Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour),
		}
		if err := s.Save(t.Context(), rec, store.Base{}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if err := closer.Close(); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestExistingOpensWhatStoreHasMade(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "sessions.db")
	_, closer, err := open.Store(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	_, closer, err = open.Existing(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if err := closer.Close(); err != nil {
		t.Error(err)
	}
}

func TestExistingMakesNothing(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"memory:", "sqlite:" + filepath.Join(dir, "new", "sessions.db"), "sqlite:" + empty, "sqlite:" + dir} {
		if _, _, err := open.Existing(t.Context(), url); !errors.Is(err, open.ErrMissing) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("the folder has %v", left)
	}
	if info, err := os.Stat(empty); err != nil || info.Size() != 0 {
		t.Errorf("the empty file is now %v %v", info, err)
	}
}

func TestWhatIsNoStoreURLIsRefused(t *testing.T) {
	for name, open1 := range map[string]opening{"Store": open.Store, "Existing": open.Existing} {
		for _, url := range []string{"", "sessions.db", "sqlite:", "memory:x", "mysql://root:hunter2@db/sessions", "redis://root:hunter2@db/sessions", "rediscluster://:hunter2@db?x=y", ":"} {
			_, _, err := open1(t.Context(), url)
			if !errors.Is(err, open.ErrURL) {
				t.Errorf("%s(%q): %v", name, url, err)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: the error repeats the password: %v", name, err)
			}
		}
	}
}

func TestAFolderThatIsAFileIsAnErrorOfTheStore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := open.Store(t.Context(), "sqlite:"+filepath.Join(file, "sessions.db"))
	if err == nil || errors.Is(err, open.ErrURL) || errors.Is(err, open.ErrMissing) {
		t.Errorf("got %v", err)
	}
}

func TestAServerThatIsNotThereIsAnErrorOfTheStore(t *testing.T) {
	for name, open1 := range map[string]opening{"Store": open.Store, "Existing": open.Existing} {
		_, _, err := open1(t.Context(), "redis://root:hunter2@127.0.0.1:1")
		if err == nil || errors.Is(err, open.ErrURL) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestACancelledContextOpensNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	if _, _, err := open.Store(ctx, "sqlite:"+path); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file: %v", err)
	}
}
