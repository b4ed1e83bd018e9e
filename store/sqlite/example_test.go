package sqlite_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/sqlite"
)

// A session is still there when the process starts again.
func ExampleOpen() {
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "data", "sessions.db")
	id := store.HashIdentifier([]byte("only the browser knows this"))

	db, err := sqlite.Open(path)
	if err != nil {
		panic(err)
	}
	err = db.Save(context.Background(), store.Record{
		ID:       id,
		Version:  1,
		SaveIDs:  []store.SaveID{0x5eed},
		Deadline: time.Now().Add(time.Hour),
		Data:     []byte("sealed by the session manager"),
	}, store.Base{})
	if err != nil {
		panic(err)
	}
	if err := db.Close(); err != nil {
		panic(err)
	}

	db, err = sqlite.Open(path)
	if err != nil {
		panic(err)
	}
	defer db.Close()
	rec, err := db.Load(context.Background(), id)
	fmt.Println(rec.Version, string(rec.Data), err)
	// Output: 1 sealed by the session manager <nil>
}
