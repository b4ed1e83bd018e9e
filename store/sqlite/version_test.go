package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestSchemaVersionChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	if _, _, err := SchemaVersion(path); err == nil {
		t.Error("there is no file, and it has a version")
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file: %v", err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	// While a service uses the file, and afterwards.
	for range 2 {
		if version, newest, err := SchemaVersion(path); err != nil || version != newest || version != len(migrations) {
			t.Errorf("version %d of %d, %v", version, newest, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	older := filepath.Join(t.TempDir(), "older.db")
	c := other(t, older)
	for _, sql := range migrations[:len(migrations)-1] {
		must(t, c.run(sql))
	}
	must(t, c.run(fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=%d", applicationID, len(migrations)-1)))
	must(t, c.Close())
	for range 2 {
		if version, newest, err := SchemaVersion(older); err != nil || version != len(migrations)-1 || newest != len(migrations) {
			t.Errorf("an older one: version %d of %d, %v", version, newest, err)
		}
	}
	foreign := filepath.Join(t.TempDir(), "foreign.db")
	if err := os.WriteFile(foreign, []byte("not a database, whatever its name says"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := SchemaVersion(foreign); !errors.Is(err, ErrForeign) {
		t.Errorf("a foreign file: %v", err)
	}
}
