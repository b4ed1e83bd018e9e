package memcached

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

func newStore(t *testing.T, server *servers.Server, o Options) *Store {
	t.Helper()
	s, err := NewStore([]string{server.Addr}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func record(n byte, size int) store.Record {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return store.Record{
		ID: store.ID{n}, Version: 1, SaveIDs: []store.SaveID{store.SaveID(n) + 1}, Created: now, Seen: now,
		Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour), Data: make([]byte, size),
	}
}

func following(rec store.Record, size int) store.Record {
	rec.Version, rec.SaveIDs, rec.Data = rec.Version+1, []store.SaveID{99, rec.SaveIDs[0]}, make([]byte, size)
	return rec
}

func TestWhatAFullServerRefusesIsAsItWas(t *testing.T) {
	server := servers.Memcached(t, 2, "-M")
	s := newStore(t, server, Options{})
	rec := record(1, 10)
	if err := s.Save(t.Context(), rec, store.Base{}); err != nil {
		t.Fatal(err)
	}
	var err error
	for n := 0; err == nil; n++ {
		err = s.mc.Add(&memcache.Item{Key: fmt.Sprint("filler", n), Value: make([]byte, 1000)})
	}
	for what, err := range map[string]error{
		"insert": s.Save(t.Context(), record(2, 1000), store.Base{}),
		"update": s.Save(t.Context(), following(rec, 1000), rec.Base()),
	} {
		if !errors.Is(err, store.ErrRefused) || !strings.Contains(err.Error(), "out of memory") {
			t.Errorf("%s: %v, want a refusal", what, err)
		}
	}
	if _, err := s.Load(t.Context(), store.ID{2}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("what was refused is there: %v", err)
	}
	if got, err := s.Load(t.Context(), rec.ID); err != nil || got.Version != 1 {
		t.Errorf("the record that was to be replaced: version %d, %v", got.Version, err)
	}
}

func TestWhatIsTooLargeForTheServerIsAsItWas(t *testing.T) {
	server := servers.Memcached(t, 64, "-I", "512k")
	s := newStore(t, server, Options{}) // which says a MiB
	rec := record(1, 10)
	if err := s.Save(t.Context(), rec, store.Base{}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"insert": s.Save(t.Context(), record(2, 700_000), store.Base{}),
		"update": s.Save(t.Context(), following(rec, 700_000), rec.Base()),
	} {
		if !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", what, err)
		}
	}
	if got, err := s.Load(t.Context(), rec.ID); err != nil || got.Version != 1 {
		t.Errorf("version %d, %v", got.Version, err)
	}
}

func TestAServerThatIsDownIsWaitedForAndNothingIsSaved(t *testing.T) {
	server := servers.Memcached(t, 64)
	s := newStore(t, server, Options{Timeout: 5 * time.Second})
	server.Kill()
	rec := record(1, 10)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for what, err := range map[string]error{
		"save":   s.Save(ctx, rec, store.Base{}),
		"delete": s.Delete(ctx, rec.ID, time.Now().Add(time.Hour)),
		"touch":  s.Touch(ctx, rec.ID, rec.Seen, rec.Deadline),
	} {
		if !errors.Is(err, store.ErrRefused) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want a refusal at the deadline", what, err)
		}
	}
	saved := make(chan error, 1)
	go func() { saved <- s.Save(context.Background(), rec, store.Base{}) }()
	server.Start()
	if err := <-saved; err != nil {
		t.Error(err)
	}
}

// The end of an idle connection is detected on its next use.
func TestARestartCostsNoCall(t *testing.T) {
	server := servers.Memcached(t, 64)
	s := newStore(t, server, Options{Timeout: 5 * time.Second})
	done := make(chan error)
	for range 20 {
		go func() {
			_, err := s.Load(t.Context(), store.ID{1})
			done <- err
		}()
	}
	for range 20 {
		if err := <-done; !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
	}
	server.Kill()
	server.Start()
	if err := s.Save(t.Context(), record(1, 10), store.Base{}); err != nil {
		t.Error(err)
	}
}

// answering is a server that answers a write with that line, and ends then.
func answering(t *testing.T, line string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for b := make([]byte, 4096); ; {
					n, err := c.Read(b)
					switch {
					case err != nil:
						return
					case strings.HasPrefix(string(b[:n]), "get"):
						_, _ = io.WriteString(c, "END\r\n")
					default:
						_, _ = io.WriteString(c, line)
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// Answers that tests cannot get from a real memcached.
func TestEveryAnswerIsTold(t *testing.T) {
	for line, want := range map[string]error{
		"SERVER_ERROR out of memory storing object\r\n":   store.ErrRefused,
		"SERVER_ERROR out of memory in client object\r\n": store.ErrRefused,
		"SERVER_ERROR object too large for cache\r\n":     store.ErrTooLarge,
		"CLIENT_ERROR bad command line format\r\n":        store.ErrRefused,
		"CLIENT_ERROR bad data chunk\r\n":                 store.ErrRefused,
		"ERROR\r\n":                                       store.ErrRefused,
		"SERVER_ERROR proxy lost its backend\r\n":         nil,
		"SERVER_ERROR\r\n":                                nil,
		"CLIENT_ERROR something else\r\n":                 nil,
		"STORE":                                           nil, // and then it ends
		"":                                                nil,
	} {
		s, err := NewStore([]string{answering(t, line)}, Options{Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Save(t.Context(), record(1, 10), store.Base{})
		for _, means := range []error{store.ErrRefused, store.ErrTooLarge, store.ErrConflict} {
			if err == nil || errors.Is(err, means) != errors.Is(want, means) {
				t.Errorf("%q: %v, want %v", line, err, want)
			}
		}
		_ = s.Close()
	}
}
