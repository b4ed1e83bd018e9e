package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/promises"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/storetest"
)

func TestStore(t *testing.T) {
	server := servers.Redis(t)
	storetest.Run(t, opener(at(server), server), storetest.Records(30_000),
		storetest.Copies(func(_ *testing.T, st store.Store, from, to store.ID) {
			s := st.(*Store)
			server.RedisCommand("COPY", s.key(from), s.key(to), "REPLACE")
		}))
}

// A foreign value is neither an outage nor a session.
func TestADamagedValueIsNoRecord(t *testing.T) {
	server, s := single(t)
	ann := store.UserHash{1}
	good := inserted(t, s, session(ann))
	for name, bytes := range map[string]string{"text": "hello", "one byte": "\x01", "a cut record": "\x01\x02 and no more"} {
		rec := inserted(t, s, session(ann))
		server.RedisCommand("SET", s.key(rec.ID), bytes)
		if _, err := s.Load(t.Context(), rec.ID); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("%s: Load: %v", name, err)
		}
		if err := s.Touch(t.Context(), rec.ID, time.Now(), time.Now().Add(time.Hour)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: Touch: %v", name, err)
		}
		if err := s.Save(t.Context(), next(rec), rec.Base()); !errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: Save: %v", name, err)
		}
		if recs, err := s.ByUser(t.Context(), ann); err != nil || len(recs) != 1 || recs[0].ID != good.ID {
			t.Errorf("%s: ByUser: %d records, %v", name, len(recs), err)
		}
		must(t, s.Delete(t.Context(), rec.ID, time.Now().Add(time.Hour)))
		if mark, err := s.Load(t.Context(), rec.ID); err != nil || !mark.IsEnd() {
			t.Errorf("%s: after Delete: %v", name, err)
		}
	}
	newer := inserted(t, s, session(ann))
	server.RedisCommand("SET", s.key(newer.ID), "\x02 as a later release may write it")
	if _, err := s.Load(t.Context(), newer.ID); err == nil || errors.Is(err, store.ErrDamaged) {
		t.Errorf("a later format: %v, want an error: it may be a session", err)
	}
}

func TestPromises(t *testing.T) {
	server := servers.Redis(t)
	promises.Run(t, opener(at(server), server))
}

func TestAKeyExpiresAMinuteAfterItsDeadline(t *testing.T) {
	server, s := single(t)
	expires := func(what, key string, want time.Time) {
		t.Helper()
		if got := server.RedisCommand("PEXPIRETIME", key); strings.TrimSpace(got) != fmt.Sprint(want.Add(clockSkew).UnixMilli()) {
			t.Errorf("%s: the key expires at %s, want a minute after %d", what, got, want.UnixMilli())
		}
	}
	rec := inserted(t, s, session(store.UserHash{1}))
	key := s.key(rec.ID)
	expires("saved", key, rec.Deadline)
	expires("the user's index", s.userKey(rec.User), rec.Expires)

	must(t, s.Touch(t.Context(), rec.ID, rec.Seen, rec.Deadline.Add(time.Minute)))
	expires("touched", key, rec.Deadline.Add(time.Minute))
	must(t, s.Touch(t.Context(), rec.ID, rec.Seen, rec.Deadline))
	expires("touched with an earlier deadline", key, rec.Deadline.Add(time.Minute))

	two := next(rec)
	saved(t, s, two, rec.Base())
	expires("saved with an earlier deadline", key, rec.Deadline.Add(time.Minute))
	three := next(two)
	three.Shorten = true
	saved(t, s, three, two.Base())
	expires("shortened", key, rec.Deadline)

	expires("the user's index, after all that", s.userKey(rec.User), rec.Expires)

	until := time.Now().Add(5 * time.Minute)
	must(t, s.Delete(t.Context(), rec.ID, until))
	expires("ended", key, until)
	must(t, s.Delete(t.Context(), rec.ID, until.Add(time.Minute)))
	expires("ended again", key, until.Add(time.Minute))

	unknown := newID()
	must(t, s.Delete(t.Context(), unknown, until))
	expires("ended before it was seen", s.key(unknown), until)
}

func TestARecordPastItsDeadlineIsGone(t *testing.T) {
	server, s := single(t)
	rec := session(store.UserHash{})
	rec.Deadline = time.Now().Add(300*time.Millisecond - clockSkew)
	inserted(t, s, rec)
	eventually(t, "it is not found", func() bool {
		_, err := s.Load(t.Context(), rec.ID)
		return errors.Is(err, store.ErrNotFound)
	})
	if got := server.RedisCommand("DBSIZE"); got != "0\n" {
		t.Errorf("the server holds %s keys", got)
	}
}

// calls returns how often each command was called since CONFIG RESETSTAT.
func calls(server *servers.Server) map[string]int {
	n := map[string]int{}
	for line := range strings.Lines(server.RedisCommand("INFO", "commandstats")) {
		if name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls="); ok {
			count, _, _ := strings.Cut(rest, ",")
			n[name], _ = strconv.Atoi(count)
		}
	}
	return n
}

func TestRoundTripsAreFew(t *testing.T) {
	server, s := single(t)
	ann, bob := store.UserHash{1}, store.UserHash{2}
	warm := inserted(t, s, session(ann)) // teaches the scripts
	must(t, s.Touch(t.Context(), warm.ID, warm.Seen, warm.Deadline))
	must(t, s.Delete(t.Context(), warm.ID, time.Now().Add(time.Hour)))
	carl := store.UserHash{3}
	limited(t, s, session(carl), upTo(2))
	cursor := fromNow(t, s)
	heard(t, s, &cursor)

	anonymous, login := session(store.UserHash{}), session(ann)
	followed := next(login)
	moved := next(followed)
	moved.User = bob
	longer := next(moved)
	longer.Expires = longer.Expires.Add(time.Hour)
	mark := ended(longer, time.Hour)
	for _, c := range []struct {
		what string
		call func() error
		want map[string]int // besides those inside scripts
	}{
		{"an anonymous session's first save", func() error { return s.Save(t.Context(), anonymous, store.Base{}) }, map[string]int{"evalsha": 1}},
		{"its next one", func() error { return s.Save(t.Context(), next(anonymous), anonymous.Base()) }, map[string]int{"evalsha": 1}},
		{"a load", func() error { _, err := s.Load(t.Context(), anonymous.ID); return err }, map[string]int{"get": 1}},
		{"a touch", func() error { return s.Touch(t.Context(), anonymous.ID, time.Now(), time.Now()) }, map[string]int{"evalsha": 1}},
		{"the first save of a user's session, with its index entry", func() error { return s.Save(t.Context(), login, store.Base{}) }, map[string]int{"evalsha": 2}},
		{"its next one", func() error { return s.Save(t.Context(), followed, login.Base()) }, map[string]int{"evalsha": 1}},
		{"one that moves it to another user", func() error { return s.Save(t.Context(), moved, followed.Base()) }, map[string]int{"evalsha": 3}},
		{"one that lets it last longer", func() error { return s.Save(t.Context(), longer, moved.Base()) }, map[string]int{"evalsha": 3}},
		{"its end", func() error { return s.Save(t.Context(), mark, longer.Base()) }, map[string]int{"evalsha": 2, "hdel": 1}},
		{"a login with a limit", func() error { limited(t, s, session(carl), upTo(2)); return nil }, map[string]int{"evalsha": 2, "hkeys": 2}},
		{"one that ends another session", func() error { _, err := s.SaveLimited(t.Context(), session(carl), upTo(2)); return err }, map[string]int{"evalsha": 4, "hkeys": 2, "hdel": 1}},
		{"what has ended", func() error { _, err := s.Ends(t.Context(), cursor, 100); return err }, map[string]int{"evalsha": 1}},
		{"that of an anonymous one", func() error { return s.Delete(t.Context(), anonymous.ID, time.Now().Add(time.Hour)) }, map[string]int{"evalsha": 2}},
	} {
		server.RedisCommand("CONFIG", "RESETSTAT")
		must(t, c.call())
		got := calls(server)
		maps.DeleteFunc(got, func(name string, _ int) bool {
			return !slices.Contains([]string{"evalsha", "eval", "get", "hdel", "hkeys", "script|load"}, name)
		})
		if !maps.Equal(got, c.want) {
			t.Errorf("%s took %v, want %v", c.what, got, c.want)
		}
	}
}

func TestATouchDoesNotRewriteTheData(t *testing.T) {
	server, s := single(t)
	rec := session(store.UserHash{})
	rec.Data = bytes.Repeat([]byte("x"), 1<<20)
	inserted(t, s, rec)
	must(t, s.Touch(t.Context(), rec.ID, rec.Seen, rec.Deadline)) // teaches the script
	written := func() int {
		n, err := strconv.Atoi(infoField(server.RedisCommand("INFO", "replication"), "master_repl_offset"))
		must(t, err)
		return n
	}
	// A replica is what makes the server count.
	replica := servers.Redis(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(server.Port))
	eventually(t, "the replica is in sync", func() bool {
		return infoField(replica.RedisCommand("INFO", "replication"), "master_link_status") == "up"
	})
	before := written()
	must(t, s.Touch(t.Context(), rec.ID, rec.Seen.Add(time.Minute), rec.Deadline.Add(time.Minute)))
	if n := written() - before; n == 0 || n > 1000 {
		t.Errorf("a touch of a record of a MiB writes %d bytes to replicas and the append-only file", n)
	}
	rec.Seen, rec.Deadline = rec.Seen.Add(time.Minute), rec.Deadline.Add(time.Minute)
	if got, err := s.Load(t.Context(), rec.ID); err != nil || !got.Seen.Equal(rec.Seen) || !got.Deadline.Equal(rec.Deadline) || !bytes.Equal(got.Data, rec.Data) {
		t.Errorf("the record after the touch: %v, Seen %v, Deadline %v", err, got.Seen, got.Deadline)
	}
}

func TestScriptsAreTaughtAgain(t *testing.T) {
	server, s := single(t)
	rec := inserted(t, s, session(store.UserHash{1}))
	for what, call := range map[string]func() error{
		"touch":  func() error { return s.Touch(t.Context(), rec.ID, rec.Seen, rec.Deadline) },
		"save":   func() error { return s.Save(t.Context(), session(store.UserHash{2}), store.Base{}) },
		"delete": func() error { return s.Delete(t.Context(), newID(), time.Now().Add(time.Hour)) },
	} {
		server.RedisCommand("SCRIPT", "FLUSH", "SYNC")
		must(t, call())
		server.RedisCommand("CONFIG", "RESETSTAT")
		must(t, call())
		if n := calls(server)["eval"]; n != 0 {
			t.Errorf("%s still sends its script", what)
		}
	}
}

func TestPrefixesAreApart(t *testing.T) {
	server := servers.Redis(t)
	id, user := newID(), store.UserHash{1}
	stores := map[string]*Store{}
	for _, prefix := range []string{"", "a*:", "ab:", "[a]?\\", "a", "söß "} {
		o := at(server)
		o.Prefix = prefix
		stores[prefix] = opened(t, o)
		rec := session(user)
		rec.ID, rec.Data = id, []byte(prefix+"!")
		inserted(t, stores[prefix], rec)
	}
	for prefix, s := range stores {
		want := prefix + "!"
		if rec, err := s.Load(t.Context(), id); err != nil || string(rec.Data) != want {
			t.Errorf("prefix %q: loaded %q, %v", prefix, rec.Data, err)
		}
		recs, err := s.ByUser(t.Context(), user)
		if err != nil || len(recs) != 1 || string(recs[0].Data) != want {
			t.Errorf("prefix %q: the user has %d sessions, %v", prefix, len(recs), err)
		}
		if recs := scanAll(t, s); len(recs) != 1 || string(recs[0].Data) != want {
			t.Errorf("prefix %q: a scan returns %d records", prefix, len(recs))
		}
	}
}

func scanAll(t testing.TB, s *Store) (all []store.Record) {
	t.Helper()
	for cursor := ""; ; {
		recs, next, err := s.Scan(context.Background(), cursor, 100)
		must(t, err)
		all = append(all, recs...)
		if cursor = next; cursor == "" {
			return all
		}
	}
}

func TestAServerThatEvictsIsRefused(t *testing.T) {
	server := servers.Redis(t)
	for _, policy := range []string{"allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"} {
		server.RedisCommand("CONFIG", "SET", "maxmemory-policy", policy)
		if _, err := Open(t.Context(), at(server)); !errors.Is(err, ErrEviction) {
			t.Errorf("%s: %v, want ErrEviction", policy, err)
		}
		lossy := at(server)
		lossy.AllowEviction = true
		opened(t, lossy)
	}
	server.RedisCommand("CONFIG", "SET", "maxmemory-policy", "noeviction")
	opened(t, at(server))
}

func TestAFullServerRefusesSavesAndStillEndsSessions(t *testing.T) {
	server, s := single(t)
	byMark, byDelete := inserted(t, s, session(store.UserHash{1})), inserted(t, s, session(store.UserHash{1}))
	again, unknown := inserted(t, s, session(store.UserHash{})), newID()
	must(t, s.Delete(t.Context(), again.ID, time.Now().Add(time.Minute)))
	server.RedisCommand("CONFIG", "SET", "maxmemory", "1")

	rec := session(store.UserHash{})
	err := s.Save(t.Context(), rec, store.Base{})
	if err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrTooLarge) {
		t.Errorf("a save to a full server: %v, want an error that says that it could not", err)
	}
	if _, err := s.Load(t.Context(), rec.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a refused save left something: %v", err)
	}
	must(t, s.Save(t.Context(), ended(byMark, time.Hour), byMark.Base()))
	must(t, s.Touch(t.Context(), byDelete.ID, time.Now(), byDelete.Deadline.Add(time.Minute)))
	for _, id := range []store.ID{byDelete.ID, again.ID, unknown} {
		must(t, s.Delete(t.Context(), id, time.Now().Add(time.Hour)))
	}
	for _, id := range []store.ID{byMark.ID, byDelete.ID, again.ID, unknown} {
		if mark, err := s.Load(t.Context(), id); err != nil || !mark.IsEnd() {
			t.Errorf("the session has not ended: %v", err)
		}
	}
	server.RedisCommand("CONFIG", "SET", "maxmemory", "0")
	inserted(t, s, rec)
}

func TestAnotherFormatIsLeftAlone(t *testing.T) {
	server, s := single(t)
	for _, text := range []string{"\x02 a newer release's", "\x1f", "\x01", "\x01\xff" + strings.Repeat("x", 54), strings.Repeat("\x01", 57)} {
		id := newID()
		if got := server.RedisCommand("SET", s.key(id), text); got != "OK\n" {
			t.Fatalf("SET: %s", got)
		}
		if _, err := s.Load(t.Context(), id); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("load of %q: %v, want an error that is no answer", text, err)
		}
		if text[0] == format {
			continue // damaged; the scripts do not look that closely
		}
		rec := session(store.UserHash{})
		rec.ID = id
		for what, err := range map[string]error{
			"insert": s.Save(t.Context(), rec, store.Base{}),
			"save":   s.Save(t.Context(), next(rec), rec.Base()),
			"touch":  s.Touch(t.Context(), id, time.Now(), time.Now().Add(time.Hour)),
			"delete": s.Delete(t.Context(), id, time.Now().Add(time.Hour)),
		} {
			if err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s on %q: %v, want an error that is no answer", what, text, err)
			}
		}
		if got := server.RedisCommand("GET", s.key(id)); got != text+"\n" {
			t.Errorf("%q has become %q", text, got)
		}
	}
}

func TestErrorsNameNoSession(t *testing.T) {
	server, s := single(t)
	rec := session(store.UserHash{})
	rec.Data = []byte("secret")
	server.RedisCommand("LPUSH", s.key(rec.ID), "a list")
	_, err := s.Load(t.Context(), rec.ID)
	for _, err := range []error{err, s.Save(t.Context(), rec, store.Base{}), s.Delete(t.Context(), rec.ID, time.Now()), s.Touch(t.Context(), rec.ID, time.Now(), time.Now())} {
		if err == nil || strings.Contains(err.Error(), rec.ID.String()) || strings.Contains(err.Error(), "secret") {
			t.Errorf("the error is %v", err)
		}
	}
}
