package operation_test

import (
	"bytes"
	"context"
	"errors"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

// A deployment writes the key file line by line, slower than a service polls it.
func TestAKeyFileThatIsWrittenLineByLineLogsNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		index, old, next := sitetest.WithState(keys.Generate(), "index"), olderKey(), keys.Generate()
		text := sitetest.KeyText(index, sitetest.WithState(old, "retired"), next)
		path := filepath.Join(t.TempDir(), "session.keys")
		write := func(s string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(1200 * time.Millisecond)
			synctest.Wait()
		}
		write(text)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var log sitetest.LogBook
		keys, err := keys.WatchFile(ctx, path, time.Second, slog.New(&log))
		if err != nil {
			t.Fatal(err)
		}
		shop := sitetest.Local(sitetest.Manager(t, sojourn.Config{Keys: keys, Store: memory.New()}))
		visitors := make([]*sitetest.Browser, 8)
		for i := range visitors {
			visitors[i] = sitetest.NewBrowser()
			sitetest.Does(t, visitors[i], shop, func(s *sojourn.Session) { s.Login("anna") })
		}
		lines := strings.SplitAfter(text, "\n")
		for n := range lines {
			write(strings.Join(lines[:n], ""))
			for i, b := range visitors {
				sitetest.Look(t, b, shop, func(s *sojourn.Session) {
					if s.User() != "anna" {
						t.Errorf("visitor %d is logged out when %d lines are there", i, n)
					}
				})
			}
			if got := len(keys.Keys()); got != 2 {
				t.Errorf("%d keys when %d lines are there, want 2", got, n)
			}
		}
		write(text)
		if n := len(log.With("could not be reloaded")); n < 2 {
			t.Errorf("%d error lines about a file that is half written", n)
		}
		if n := len(log.With("were reloaded")); n > 0 {
			t.Errorf("%d changes were taken on, want none", n)
		}
		cancel()
		synctest.Wait()
	})
}

func TestAServiceDoesNotStartWithAnIncompleteKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "session.keys")
	text := sitetest.KeyText(sitetest.WithState(keys.Generate(), "index"), olderKey(), keys.Generate())
	text = strings.TrimSuffix(text, "\n")
	for n := range len(text) {
		if _, err := sojourn.ParseKeys(text[:n]); err == nil {
			t.Fatalf("ParseKeys takes the first %d of %d bytes", n, len(text))
		}
		if err := os.WriteFile(path, []byte(text[:n]), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := sojourn.LoadKeyFile(path); err == nil {
			t.Fatalf("LoadKeyFile takes the first %d of %d bytes", n, len(text))
		}
	}
}

func TestReplaceRefusesEveryIncompleteText(t *testing.T) {
	text := strings.TrimSuffix(sitetest.KeyText(sitetest.WithState(keys.Generate(), "index"), sitetest.WithState(olderKey(), "retired"), keys.Generate()), "\n")
	keys := sitetest.Parse(t, text)
	before := keys.String()
	for n := range len(text) {
		if err := keys.Replace(text[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes were taken on", n, len(text))
		}
	}
	if keys.String() != before {
		t.Errorf("the ring is now %v", keys)
	}
}

// A complete text may be missing the key: it is another service's, a restored
// backup, an edit that removed the wrong key, or a stage was skipped.
func TestAReloadKeepsTheKeyThatSeals(t *testing.T) {
	index, old, next := sitetest.WithState(keys.Generate(), "index"), olderKey(), keys.Generate()
	for what, text := range map[string]string{
		"the next key alone":         sitetest.KeyText(index, next),
		"the next key, published":    sitetest.KeyText(index, next, sitetest.WithState(keys.Generate(), "published")),
		"a key that nobody knows":    sitetest.KeyText(index, keys.Generate()),
		"a backup of before it came": sitetest.KeyText(index, sitetest.WithState(olderKey(), "active")),
	} {
		ring := sitetest.Parse(t, sitetest.KeyText(index, old, sitetest.WithState(next, "published")))
		before := ring.String()
		err := ring.Replace(text)
		if !errors.Is(err, keys.ErrSealingKey) || ring.String() != before {
			t.Errorf("%s: %v, and the ring is %v; want ErrSealingKey, and no change", what, err, ring)
		}
	}
	keys := sitetest.Parse(t, sitetest.KeyText(index, old, sitetest.WithState(next, "published")))
	for _, stage := range []string{
		sitetest.KeyText(index, sitetest.WithState(old, "retired"), next), // activated and retired at once
		sitetest.KeyText(index, next),                                     // stolen, or a lifetime later
	} {
		if err := keys.Replace(stage); err != nil {
			t.Error(err)
		}
	}
	if infos := keys.Keys(); len(infos) != 1 {
		t.Errorf("%d keys are left, want 1", len(infos))
	}
}

func TestWatchedKeysWithoutTheOneThatSealsAreAnErrorInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		index, old, next := sitetest.WithState(keys.Generate(), "index"), olderKey(), keys.Generate()
		var mu sync.Mutex
		text := sitetest.KeyText(index, old)
		put := func(s string) {
			mu.Lock()
			text = s
			mu.Unlock()
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		var log sitetest.LogBook
		keys, err := keys.Watch(ctx, time.Second, slog.New(&log), func(context.Context) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			return text, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		put(sitetest.KeyText(index, next))
		if lines := log.With("could not be reloaded"); len(lines) != 1 {
			t.Errorf("%d error lines about a set without the key that seals, want 1", len(lines))
		}
		put(sitetest.KeyText(index, sitetest.WithState(old, "retired"), next))
		put(sitetest.KeyText(index, next))
		if n := len(log.With("were reloaded")); n != 2 || len(keys.Keys()) != 1 {
			t.Errorf("%d changes were taken on and %d keys are left, want 2 and 1", n, len(keys.Keys()))
		}
		cancel()
		synctest.Wait()
	})
}

func TestMakingAKeyFileIsLogged(t *testing.T) {
	var book sitetest.LogBook
	path := filepath.Join(t.TempDir(), "session.keys")
	for range 2 { // made once
		if _, err := keys.WatchFile(t.Context(), path, time.Hour, slog.New(&book)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(book.With("was made with new keys")); n != 1 {
		t.Errorf("%d lines about a key file that was made once", n)
	}

	var text bytes.Buffer
	before, writer, flags := slog.Default(), log.Writer(), log.Flags()
	slog.SetDefault(slog.New(slog.NewTextHandler(&text, nil))) // at Info, as by default
	defer func() {
		slog.SetDefault(before)
		log.SetOutput(writer)
		log.SetFlags(flags)
	}()
	path = filepath.Join(t.TempDir(), "session.keys")
	for range 2 {
		if _, err := sojourn.LoadKeyFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(text.String(), "was made with new keys"); n != 1 || !strings.Contains(text.String(), path) {
		t.Errorf("%d lines about a key file that was made once: %s", n, text.String())
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	secret := string(file)[strings.LastIndex(string(file), ":")+1:]
	if strings.Contains(text.String(), secret[:8]) {
		t.Error("the log holds the key")
	}
}
