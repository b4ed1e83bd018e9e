// Package recorded runs recorded sessions on real servers, for the tests of the
// engines.
package recorded

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/share"
	"github.com/sojourn-go/sojourn/legacy/value"
	"github.com/sojourn-go/sojourn/legacy/vectors"
)

// Sessions reads each recorded session that wanted accepts, from stores that on
// fills with its entries, and checks the result. It fails if there are fewer
// than atLeast. dir is the folder of the recorded sessions.
func Sessions(t *testing.T, dir string, atLeast int, wanted func(*vectors.Case) bool, on func(*testing.T, *vectors.Case) vectors.Backends) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no recorded sessions in %s: %v", dir, err)
	}
	n := 0
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := vectors.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		for i := range file.Cases {
			c := &file.Cases[i]
			if c.Pickle != nil || c.Optional || !wanted(c) {
				continue
			}
			n++
			t.Run(c.Name, func(t *testing.T) { read(t, c, on(t, c)) })
		}
	}
	if n < atLeast {
		t.Errorf("only %d recorded sessions, want %d", n, atLeast)
	}
}

// Has reports whether a case has an entry in that back end.
func Has(c *vectors.Case, backend string) bool {
	return slices.ContainsFunc(c.Storage, func(e vectors.Entry) bool { return e.Backend == backend })
}

// Live reports whether an entry has not expired when its case is read.
func Live(c *vectors.Case, e vectors.Entry) bool {
	return e.ExpiresAt == nil || *e.ExpiresAt == 0 || float64(*e.ExpiresAt) > c.Now
}

func read(t *testing.T, c *vectors.Case, backends vectors.Backends) {
	t.Helper()
	format, err := c.FormatOn(backends)
	if err != nil {
		t.Fatal(err)
	}
	_, header, now, err := c.Setup()
	if err != nil {
		t.Fatal(err)
	}
	got, err := format.Read(context.Background(), header, now)
	if c.Expect.Valid != (err == nil) {
		t.Fatalf("%v, want valid to be %v", err, c.Expect.Valid)
	}
	if err != nil {
		return
	}
	want, err := value.ParseTagged(c.Expect.Data)
	if err != nil {
		t.Fatal(err)
	}
	if !value.Equal(got.Data, want) {
		t.Fatalf("read %s, want %s", value.MarshalTagged(got.Data), c.Expect.Data)
	}
	writer, ok := format.(legacy.Writer)
	if !ok {
		return
	}
	// After a write it reads the same.
	fields, err := writer.Write(context.Background(), got, now)
	if err != nil {
		t.Fatal(err)
	}
	if len(fields) > 0 {
		header = http.Header{"Cookie": {field(fields)}}
	}
	again, err := format.Read(context.Background(), header, now)
	if err != nil || !value.Equal(again.Data, want) {
		t.Fatalf("after a write %v, %v", again, err)
	}
	if _, err := format.End(context.Background(), again); err != nil {
		t.Fatal(err)
	}
	if _, err := format.Read(context.Background(), header, now); got.ID != "" && !got.Copies && err == nil {
		t.Error("it is still there after its end")
	}
}

// field joins Set-Cookie fields to a Cookie field.
func field(setCookie []string) string {
	out := ""
	for _, line := range setCookie {
		name, raw, removed := cookies.ParseSet(line)
		if !removed {
			out += name + "=" + raw + "; "
		}
	}
	return out
}

// Parallel makes many concurrent requests change one value of a session through
// package share. No change may be lost.
func Parallel(t *testing.T, format legacy.Format) {
	t.Helper()
	ctx := context.Background()
	shared, err := share.New(share.Config{Format: format})
	if err != nil {
		t.Fatal(err)
	}
	first, err := shared.Open(ctx, http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	out := http.Header{}
	if err := first.Set("n", 0); err != nil {
		t.Fatal(err)
	}
	if err := first.Save(ctx, out); err != nil {
		t.Fatal(err)
	}
	header := http.Header{"Cookie": {field(out["Set-Cookie"])}}
	const requests = 8
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			s, err := shared.Open(ctx, header)
			if err == nil {
				err = s.Update("n", add)
			}
			if err == nil {
				err = s.Save(ctx, http.Header{})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	last, err := shared.Open(ctx, header)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := last.Get("n", &n); err != nil || n != requests {
		t.Errorf("%d of %d changes, %v", n, requests, err)
	}
	if err := last.End(ctx, http.Header{}); err != nil {
		t.Error(err)
	}
	if s, err := shared.Open(ctx, header); err != nil || !s.IsNew() {
		t.Errorf("it is there after its end: %v", err)
	}
}

// add works on int64, which formats read, and on int, which Go libraries keep.
func add(v any) any {
	switch n := v.(type) {
	case int64:
		return n + 1
	case int:
		return n + 1
	}
	return 1
}
