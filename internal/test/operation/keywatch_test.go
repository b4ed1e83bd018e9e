package operation_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

// olderKey returns a new active key that was made before another.
func olderKey() string {
	part := strings.Split(keys.Generate(), ":")
	return part[0] + ":20200101T000000Z:" + part[2]
}

func TestReplaceKeepsTheRingOnAnError(t *testing.T) {
	first := olderKey()
	ring := sitetest.Parse(t, first)
	before := ring.String()
	for what, text := range map[string]string{
		"nothing":       "",
		"garbage":       "active:never:secret",
		"no active key": sitetest.WithState(first, "retired"),
	} {
		if err := ring.Replace(text); err == nil || strings.Contains(err.Error(), "secret") && what == "garbage" && strings.Contains(err.Error(), "never") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := ring.Replace(keys.Generate()); !errors.Is(err, keys.ErrIndexKey) {
		t.Errorf("other keys under which no user's sessions are found: %v, want ErrIndexKey", err)
	}
	if ring.String() != before {
		t.Errorf("the ring has changed from %s to %s", before, ring)
	}
	if err := ring.Replace(sitetest.KeyText(first, keys.Generate())); err != nil {
		t.Error(err)
	}
}

func TestKeysAreDescribedWithoutSecrets(t *testing.T) {
	first, second := olderKey(), keys.Generate()
	infos := sitetest.Parse(t, sitetest.KeyText(first, sitetest.WithState(second, "published"))).Keys()
	if len(infos) != 2 || infos[0].State != "active" || !infos[0].Seals || infos[1].State != "published" || infos[1].Seals ||
		infos[0].ID == infos[1].ID || len(infos[0].ID) != 8 || infos[0].Created.Year() != 2020 {
		t.Errorf("%+v", infos)
	}
}

// The documented procedure, one replica after the other, under load. Secrets could
// not be changed while replicas served, as reported in oauth2-proxy/oauth2-proxy#3042
// and pallets/werkzeug#31.
func TestKeysRollOverWhileReplicasAreAtDifferentStages(t *testing.T) {
	old, fresh := olderKey(), keys.Generate()
	// In the last stage the old key is removed. Without an index entry that
	// would make users' sessions unfindable, so the ring has one.
	index := sitetest.WithState(keys.Generate(), "index")
	stages := []string{
		sitetest.KeyText(index, old),
		sitetest.KeyText(index, old, sitetest.WithState(fresh, "published")),
		sitetest.KeyText(index, old, fresh),
		sitetest.KeyText(index, sitetest.WithState(old, "retired"), fresh),
	}
	db := memory.New()
	rings := make([]*sojourn.KeyRing, 3)
	shops := make([]*sitetest.Site, 3)
	for i := range shops {
		rings[i] = sitetest.Parse(t, stages[0])
		shops[i] = sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Keys: rings[i], Store: db}))
	}
	type visitor struct {
		b     *sitetest.Browser
		users bool
		n     int
	}
	visitors := make([]*visitor, 12)
	for i := range visitors {
		v := &visitor{b: sitetest.NewBrowser(), users: i%2 == 0}
		visitors[i] = v
		sitetest.Does(t, v.b, shops[i%3], func(s *sojourn.Session) {
			if v.users {
				s.Login("anna")
				sitetest.Visits.Set(s, 0)
			} else {
				sitetest.Colour.Set(s, "red")
			}
		})
	}
	stop := make(chan struct{})
	var load sync.WaitGroup
	for i, v := range visitors {
		load.Go(func() {
			for at := i; ; at++ {
				select {
				case <-stop:
					return
				default:
				}
				a := v.b.Visit(shops[at%3], func(s *sojourn.Session) {
					switch {
					case v.users && (s.User() != "anna" || sitetest.Visits.Get(s) != v.n):
						t.Errorf("a user lost the session, or a visit: %q, %d of %d", s.User(), sitetest.Visits.Get(s), v.n)
					case !v.users && sitetest.Colour.Get(s) != "red":
						t.Error("an anonymous visitor lost the cookie")
					}
					if v.users {
						sitetest.Visits.Set(s, v.n+1)
					} else if at%7 == 0 {
						sitetest.Note.Set(s, time.Now().String())
					}
				})
				if a.Status != 200 {
					t.Errorf("got %d %s", a.Status, a.Body)
					return
				}
				v.n++
			}
		})
	}
	for _, text := range stages[1:] {
		for _, ring := range rings {
			if err := ring.Replace(text); err != nil {
				t.Error(err)
			}
			for _, v := range visitors { // some load in between
				v.b.Clone().Visit(shops[0], sitetest.Reads)
			}
		}
	}
	close(stop)
	load.Wait()
	// All sessions used since are sealed with the new key, so the old one can be removed.
	for _, shop := range shops {
		for _, v := range visitors {
			sitetest.Does(t, v.b, shop, func(s *sojourn.Session) {
				if v.users { // a record moves when it is saved, and only a change is saved
					sitetest.Visits.Set(s, v.n+1)
				}
			})
			v.n++
		}
	}
	for _, ring := range rings {
		if err := ring.Replace(sitetest.KeyText(index, fresh)); err != nil {
			t.Fatal(err)
		}
	}
	for i, v := range visitors {
		if sitetest.IsNew(t, v.b, shops[i%3]) {
			t.Errorf("visitor %d was lost with the old key", i)
		}
	}
}

func TestWatchFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		path := filepath.Join(t.TempDir(), "keys", "session.keys")
		var log sitetest.LogBook
		ring, err := keys.WatchFile(ctx, path, time.Minute, slog.New(&log))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		write := func(s string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute + time.Millisecond)
			synctest.Wait()
		}
		write(strings.Replace(string(text), "entries:2", "entries:3", 1) + sitetest.WithState(keys.Generate(), "published"))
		if n := len(ring.Keys()); n != 2 {
			t.Errorf("%d keys after the file got a second one", n)
		}
		time.Sleep(time.Hour)
		if n := len(log.With("were reloaded")); n != 1 {
			t.Errorf("%d log lines about one change, want 1", n)
		}
		for range 3 {
			write("garbage")
		}
		if n := len(ring.Keys()); n != 2 {
			t.Errorf("%d keys after the file became unusable, want those before", n)
		}
		if n := len(log.With("could not be reloaded")); n != 1 {
			t.Errorf("%d log lines about one unusable file, want 1", n)
		}
		write(string(text))
		if n := len(ring.Keys()); n != 1 {
			t.Errorf("%d keys after the file was as before", n)
		}
		cancel()
		synctest.Wait()
		write(strings.Replace(string(text), "entries:2", "entries:3", 1) + sitetest.WithState(keys.Generate(), "published"))
		if n := len(ring.Keys()); n != 1 {
			t.Errorf("%d keys: somebody still watches", n)
		}
	})
}

func TestWatchOfAFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var mu sync.Mutex
		text, fails := keys.Generate(), error(nil)
		load := func(context.Context) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			return text, fails
		}
		ring, err := keys.Watch(ctx, 0, slog.New(&sitetest.LogBook{}), load)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		text = sitetest.KeyText(text, keys.Generate())
		fails = errors.New("the key service is away")
		mu.Unlock()
		time.Sleep(time.Hour)
		if len(ring.Keys()) != 1 {
			t.Error("keys were taken from a load that failed")
		}
		mu.Lock()
		fails = nil
		mu.Unlock()
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		if len(ring.Keys()) != 2 {
			t.Error("the new key was not taken on")
		}
		if _, err := keys.Watch(ctx, 0, nil, func(context.Context) (string, error) { return "", errors.New("away") }); err == nil {
			t.Error("no error from the first load")
		}
	})
}

func TestALoadOfKeysThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		text := keys.Generate()
		var calls atomic.Int64
		ring, err := keys.Watch(ctx, time.Minute, slog.New(&sitetest.LogBook{}), func(ctx context.Context) (string, error) {
			switch calls.Add(1) {
			case 1:
				return text, nil
			case 2: // the key service does not answer
				<-ctx.Done()
				return "", ctx.Err()
			default:
				return sitetest.KeyText(text, keys.Generate()), nil
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3*time.Minute + time.Millisecond)
		synctest.Wait()
		if n := len(ring.Keys()); n != 2 {
			t.Errorf("%d keys after %d loads: it still waits for the one that hangs", n, calls.Load())
		}
		cancel()
		synctest.Wait()
	})
}

func TestKeysAreNotWatchedAtNegativeIntervals(t *testing.T) {
	load := func(context.Context) (string, error) { return keys.Generate(), nil }
	if _, err := keys.Watch(t.Context(), -time.Second, nil, load); err == nil {
		t.Error("no error")
	}
}
