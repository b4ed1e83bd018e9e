package gorilla_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/gob"
	"errors"
	"hash"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/filestore"
	"github.com/sojourn-go/sojourn/legacy/gorilla"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

var (
	hashKey  = []byte("public-hash-key-of-32-bytes-0123")
	blockKey = []byte("public-block-key-32-bytes-012345")
	oldHash  = []byte("an older hash key")
	moment   = time.Date(2021, 2, 3, 4, 5, 6, 7000, time.UTC)
)

// values are of the types that need no registration with gob.
func values() map[any]any {
	return map[any]any{
		"user": "ada", "id": 42, "wide": int64(1) << 40, "ratio": 1.5, "ok": true,
		"raw": []byte{0, 255}, "tags": []string{"a", "é😀"}, 7: "an int key",
	}
}

func check(t *testing.T, got *value.Dict, want map[any]any) {
	t.Helper()
	if got.Len() != len(want) {
		t.Fatalf("%d values, want %d: %s", got.Len(), len(want), value.MarshalTagged(got))
	}
	for k, v := range want {
		if have, ok := got.Lookup(k); !ok || !value.Equal(have, v) {
			t.Errorf("%v is %#v, want %#v", k, have, v)
		}
	}
}

func dict(t *testing.T, m map[any]any) *value.Dict {
	t.Helper()
	d := value.NewDict()
	for k, v := range m {
		if err := d.SetKey(k, v); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// setup is one configuration of both libraries.
type setup struct {
	name  string
	pairs [][]byte // as gorilla takes them
	keys  []gorilla.KeyPair
	hash  func() hash.Hash
}

func setups() []setup {
	return []setup{
		{"signed", [][]byte{hashKey}, []gorilla.KeyPair{{Hash: hashKey}}, nil},
		{"encrypted", [][]byte{hashKey, blockKey}, []gorilla.KeyPair{{Hash: hashKey, Block: blockKey}}, nil},
		{"AES-128", [][]byte{hashKey, blockKey[:16]}, []gorilla.KeyPair{{Hash: hashKey, Block: blockKey[:16]}}, nil},
		{"two pairs", [][]byte{hashKey, blockKey, oldHash, nil}, []gorilla.KeyPair{{Hash: hashKey, Block: blockKey}, {Hash: oldHash}}, nil},
		{"SHA-512", [][]byte{hashKey}, []gorilla.KeyPair{{Hash: hashKey}}, sha512.New},
	}
}

func (s setup) configure(codecs []securecookie.Codec) {
	if s.hash == nil {
		return
	}
	for _, c := range codecs {
		c.(*securecookie.SecureCookie).HashFunc(s.hash)
	}
}

// gorillaSaves lets the real library write a session and returns the cookie.
func gorillaSaves(t *testing.T, store sessions.Store, m map[any]any) string {
	t.Helper()
	r := httptest.NewRequest("GET", "/", nil)
	w := httptest.NewRecorder()
	s, err := store.New(r, "app")
	if err != nil {
		t.Fatal(err)
	}
	s.Values = m
	if err := store.Save(r, w, s); err != nil {
		t.Fatal(err)
	}
	return w.Header().Get("Set-Cookie")
}

// gorillaLoads lets the real library read a session.
func gorillaLoads(t *testing.T, store sessions.Store, header http.Header) *sessions.Session {
	t.Helper()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header = header
	s, err := store.New(r, "app")
	if err != nil {
		t.Fatal(err)
	}
	if s.IsNew {
		t.Fatal("gorilla found no session")
	}
	return s
}

func TestCookieStoreIsReadAndWrittenAsGorillaDoes(t *testing.T) {
	for _, s := range setups() {
		t.Run(s.name, func(t *testing.T) {
			real := sessions.NewCookieStore(s.pairs...)
			s.configure(real.Codecs)
			ours, err := gorilla.New(gorilla.Config{Name: "app", Keys: s.keys, HashFunc: s.hash})
			if err != nil {
				t.Fatal(err)
			}
			got, err := ours.Read(context.Background(), legacytest.Header(gorillaSaves(t, real, values())), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			check(t, got.Data, values())

			fields, err := ours.Write(context.Background(), &legacy.Session{Data: dict(t, values())}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			check(t, dict(t, gorillaLoads(t, real, legacytest.Header(fields...)).Values), values())
		})
	}
}

func TestFilesystemStoreIsReadAndWrittenAsGorillaDoes(t *testing.T) {
	for _, s := range setups() {
		t.Run(s.name, func(t *testing.T) {
			dir := t.TempDir()
			real := sessions.NewFilesystemStore(dir, s.pairs...)
			s.configure(real.Codecs)
			files, err := filestore.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer files.Close()
			ours, err := gorilla.New(gorilla.Config{
				Name: "app", Keys: s.keys, HashFunc: s.hash, Backend: gorilla.FilesystemStore, Store: files,
			})
			if err != nil {
				t.Fatal(err)
			}
			cookie := gorillaSaves(t, real, values())
			got, err := ours.Read(context.Background(), legacytest.Header(cookie), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			check(t, got.Data, values())

			got.Data.Set("user", "grace")
			fields, err := ours.Write(context.Background(), got, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			back := gorillaLoads(t, real, legacytest.Header(fields...))
			if back.ID != got.ID || back.Values["user"] != "grace" || back.Values["id"] != 42 {
				t.Errorf("gorilla sees %v", back.Values)
			}
			if _, err := ours.End(context.Background(), got); err != nil {
				t.Fatal(err)
			}
			if _, err := ours.Read(context.Background(), legacytest.Header(cookie), time.Now()); !errors.Is(err, reason.NotFound) {
				t.Errorf("after End: %v", err)
			}
		})
	}
}

func TestRedisStoreIsReadAndWrittenAsRedistoreDoes(t *testing.T) {
	// What redistore does: the identifier in a securecookie, session.Values as
	// gob or JSON under "session_<identifier>".
	const id = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567ABCDEFGHIJKLMNOPQRST"
	for _, jsonValues := range []bool{false, true} {
		for _, jsonCodec := range []bool{false, true} {
			codec := securecookie.New(hashKey, blockKey)
			if jsonCodec {
				codec.SetSerializer(securecookie.JSONEncoder{})
			}
			cookie, err := codec.Encode("app", id)
			if err != nil {
				t.Fatal(err)
			}
			var stored bytes.Buffer
			want := map[any]any{"user": "ada", "n": 42}
			if jsonValues {
				stored.WriteString(`{"user":"ada","n":42}`)
				want["n"] = int64(42)
			} else if err := gob.NewEncoder(&stored).Encode(want); err != nil {
				t.Fatal(err)
			}
			store := &legacytest.Store{}
			_ = store.Set(context.Background(), "session_"+id, legacy.Entry{Value: stored.Bytes()})
			ours, err := gorilla.New(gorilla.Config{
				Name: "app", Keys: []gorilla.KeyPair{{Hash: hashKey, Block: blockKey}}, JSON: jsonCodec,
				Backend: gorilla.RedisStore, Store: store, JSONValues: jsonValues,
			})
			if err != nil {
				t.Fatal(err)
			}
			got, err := ours.Read(context.Background(), legacytest.Header("app="+cookie), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			check(t, got.Data, want)

			fields, err := ours.Write(context.Background(), got, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			var back string
			_, sealed, _ := strings.Cut(legacytest.Header(fields...).Get("Cookie"), "=")
			if err := codec.Decode("app", sealed, &back); err != nil || back != id {
				t.Errorf("securecookie reads %q, %v", back, err)
			}
			e, _ := store.Get(context.Background(), "session_"+id)
			if e.Expires.IsZero() {
				t.Error("the entry never expires")
			}
		}
	}
}

func TestCookiesAreRefusedForTheRightReason(t *testing.T) {
	pairs := []gorilla.KeyPair{{Hash: hashKey, Block: blockKey}}
	real := sessions.NewCookieStore(hashKey, blockKey)
	good := legacytest.Header(gorillaSaves(t, real, map[any]any{"a": 1})).Get("Cookie")
	_, sealed, _ := strings.Cut(good, "=")
	flipped := []byte(sealed) // one letter, by another one of base64
	if flipped[30]++; flipped[30] == 'Z'+1 || flipped[30] == 'z'+1 || flipped[30] == '9'+1 || flipped[30] < '0' {
		flipped[30] = 'A'
	}
	for _, c := range []struct {
		name   string
		header string
		config gorilla.Config
		later  time.Duration
		want   reason.Reason
	}{
		{"no cookie", "x=y", gorilla.Config{Name: "app", Keys: pairs}, 0, reason.Missing},
		{"empty", "app=", gorilla.Config{Name: "app", Keys: pairs}, 0, reason.Missing},
		{"not base64", "app=%%%", gorilla.Config{Name: "app", Keys: pairs}, 0, reason.Malformed},
		{"no parts", "app=aGVsbG8=", gorilla.Config{Name: "app", Keys: pairs}, 0, reason.Malformed},
		{"one letter changed", "app=" + string(flipped), gorilla.Config{Name: "app", Keys: pairs}, 0, reason.BadSignature},
		{"other key", good, gorilla.Config{Name: "app", Keys: []gorilla.KeyPair{{Hash: oldHash}}}, 0, reason.BadSignature},
		{"other name", "other=" + sealed, gorilla.Config{Name: "other", Keys: pairs}, 0, reason.BadSignature},
		{"too old", good, gorilla.Config{Name: "app", Keys: pairs, MaxAge: time.Minute}, 62 * time.Second, reason.Expired},
		{"too long", good, gorilla.Config{Name: "app", Keys: pairs, MaxLength: 50}, 0, reason.Malformed},
		{"wrong block key", good, gorilla.Config{Name: "app", Keys: []gorilla.KeyPair{{Hash: hashKey, Block: blockKey[:16]}}}, 0, reason.Decode},
	} {
		t.Run(c.name, func(t *testing.T) {
			ours, err := gorilla.New(c.config)
			if err != nil {
				t.Fatal(err)
			}
			_, err = ours.Read(context.Background(), http.Header{"Cookie": {c.header}}, time.Now().Add(c.later))
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

func TestTheLastSecondOfMaxAgeCounts(t *testing.T) {
	ours, err := gorilla.New(gorilla.Config{Name: "app", Keys: []gorilla.KeyPair{{Hash: hashKey}}, MaxAge: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	s := &legacy.Session{Data: value.NewDict()}
	fields, err := ours.Write(context.Background(), s, moment)
	if err != nil {
		t.Fatal(err)
	}
	header := legacytest.Header(fields...)
	if _, err := ours.Read(context.Background(), header, moment.Truncate(time.Second).Add(time.Minute)); err != nil {
		t.Error(err)
	}
	if _, err := ours.Read(context.Background(), header, moment.Add(time.Minute+time.Second)); !errors.Is(err, reason.Expired) {
		t.Errorf("a second later: %v", err)
	}
}

func TestACookieThatBrowsersWouldDropIsNotWritten(t *testing.T) {
	for _, limit := range []int{0, -1} {
		ours, err := gorilla.New(gorilla.Config{Name: "app", Keys: []gorilla.KeyPair{{Hash: hashKey}}, MaxLength: limit})
		if err != nil {
			t.Fatal(err)
		}
		d := value.NewDict()
		d.Set("blob", strings.Repeat("x", 4000))
		if _, err := ours.Write(context.Background(), &legacy.Session{Data: d}, moment); !errors.Is(err, legacy.ErrTooLarge) {
			t.Errorf("MaxLength %d: %v", limit, err)
		}
	}
}

func TestAStoreThatDoesNotAnswerIsNoRefusal(t *testing.T) {
	store := &legacytest.Store{}
	ours, err := gorilla.New(gorilla.Config{
		Name: "app", Keys: []gorilla.KeyPair{{Hash: hashKey}}, Backend: gorilla.RedisStore, Store: store,
	})
	if err != nil {
		t.Fatal(err)
	}
	fields, err := ours.Write(context.Background(), &legacy.Session{Data: value.NewDict()}, moment)
	if err != nil {
		t.Fatal(err)
	}
	store.Err = errors.New("down")
	_, err = ours.Read(context.Background(), legacytest.Header(fields...), moment)
	if err == nil || reason.Of(err) != "" {
		t.Errorf("got %v", err)
	}
}

func TestMistakesInTheConfigurationAreAllReported(t *testing.T) {
	_, err := gorilla.New(gorilla.Config{Backend: gorilla.RedisStore, Keys: []gorilla.KeyPair{{Block: []byte("short")}}})
	for _, want := range []string{"no Name", "needs Store", "without a Hash key"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
