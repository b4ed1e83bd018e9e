package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/opentest"
	"github.com/sojourn-go/sojourn/store/open"
	_ "github.com/sojourn-go/sojourn/store/sqlite"
)

func TestByURL(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	opentest.Run(t, opentest.Engine{
		Stores: []string{"sqlite:" + filepath.Join(dir, "new", "sessions.db"), "sqlite:" + filepath.Join(dir, "other.db")},
		Schema: true,
		Away:   []string{"sqlite:" + filepath.Join(file, "sessions.db")}, // a folder that is a file

		Refused:       []string{"sqlite:", "sqlite"},
		RefusedCaches: []string{"sqlite:a.db"},
	})
}

func TestExistingMakesNothing(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"sqlite:" + filepath.Join(dir, "new", "sessions.db"), "sqlite:" + empty, "sqlite:" + dir} {
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
