package beaker_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/beaker"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

var (
	ctx     = context.Background()
	signKey = []byte("validate key")
	encKey  = []byte("encrypt key")
	moment  = time.Date(2014, 5, 14, 4, 0, 0, 250_000_000, time.UTC)
)

func format(t testing.TB, c beaker.Config) *beaker.Format {
	t.Helper()
	f, err := beaker.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func session(pairs ...any) *legacy.Session {
	d := value.NewDict()
	for i := 0; i < len(pairs); i += 2 {
		d.Set(pairs[i].(string), pairs[i+1])
	}
	return &legacy.Session{Data: d}
}

func write(t testing.TB, f *beaker.Format, s *legacy.Session, now time.Time) http.Header {
	t.Helper()
	fields, err := f.Write(ctx, s, now)
	if err != nil {
		t.Fatal(err)
	}
	return legacytest.Header(fields...)
}

func TestEachCipherOpensWhatItSealed(t *testing.T) {
	for name, cipher := range map[string]beaker.Cipher{"GCM": beaker.GCM, "CTR": beaker.CTR, "CBC": beaker.CBC, "ECB": beaker.ECB} {
		for _, json := range []bool{false, true} {
			if json && cipher == beaker.ECB {
				continue // Beaker had JSON only after ECB
			}
			for _, bits := range []int{48, 128} {
				c := beaker.Config{ValidateKey: signKey, EncryptKey: encKey, Cipher: cipher, NonceBits: bits, JSON: json}
				for size := range 17 { // all lengths of padding
					s := session("v", strings.Repeat("x", size))
					header := write(t, format(t, c), s, moment)
					for _, reading := range []beaker.Cipher{cipher, beaker.AnyCipher} {
						c := c
						c.Cipher = reading
						got, err := format(t, c).Read(ctx, header, moment)
						if err != nil || !value.Equal(got.Data, s.Data) || got.ID != s.ID || got.Detail.(*beaker.Detail).Cipher != cipher {
							t.Fatalf("%s, JSON %v, %d bits, size %d, read with %d: %v", name, json, bits, size, reading, err)
						}
					}
				}
			}
		}
	}
}

func TestASessionIsWrittenBackWithTheCipherItCameWith(t *testing.T) {
	c := beaker.Config{ValidateKey: signKey, EncryptKey: encKey, Cipher: beaker.CTR}
	header := write(t, format(t, c), session("a", 1), moment)
	c.Cipher = beaker.AnyCipher
	anyCipher := format(t, c)
	s, err := anyCipher.Read(ctx, header, moment)
	if err != nil {
		t.Fatal(err)
	}
	header = write(t, anyCipher, s, moment)
	c.Cipher = beaker.CTR
	if _, err := format(t, c).Read(ctx, header, moment); err != nil {
		t.Error(err)
	}
	if _, err := anyCipher.Write(ctx, session("a", 1), moment); err == nil {
		t.Error("a new session was written with no definite cipher")
	}
}

// places are the server-side types, each with the key under which the session
// is found.
func places() map[string]struct {
	t   beaker.Type
	key func(id string) string
} {
	type place = struct {
		t   beaker.Type
		key func(id string) string
	}
	return map[string]place{
		"file":      {beaker.File, func(id string) string { return "container_file/" + id[:1] + "/" + id[:2] + "/" + id + ".cache" }},
		"memcached": {beaker.Memcached, func(id string) string { return id + "_session" }},
		"redis":     {beaker.Redis, func(id string) string { return "beaker_cache:" + id + ":session" }},
		"database":  {beaker.Database, func(id string) string { return id }},
	}
}

func TestServerSideSessionsAreKeptInEachPlaceAndForm(t *testing.T) {
	for name, place := range places() {
		for _, plain := range []bool{false, true} {
			store := &legacytest.Store{}
			f := format(t, beaker.Config{Type: place.t, Secret: []byte("s"), Store: store, PlainStored: plain, Timeout: time.Hour})
			s := session("a", int64(1), "_id", "the application's own")
			header := write(t, f, s, moment)
			e, err := store.Get(ctx, place.key(s.ID))
			if err != nil {
				t.Fatalf("%s: not where Beaker looks", name)
			}
			if want := moment.Add(time.Hour + 2*time.Minute); place.t == beaker.Redis && !e.Expires.Equal(want) || place.t != beaker.Redis && !e.Expires.IsZero() {
				t.Errorf("%s: expires %s", name, e.Expires)
			}
			wantFlags := map[bool]uint32{false: 16, true: 1}[plain]
			if place.t != beaker.Memcached {
				wantFlags = 0
			}
			if e.Flags != wantFlags {
				t.Errorf("%s: flags %d", name, e.Flags)
			}
			got, err := f.Read(ctx, header, moment)
			if err != nil {
				t.Fatal(err)
			}
			if !value.Equal(got.Data, s.Data) || got.Detail.(*beaker.Detail).Plain != plain {
				t.Errorf("%s: read %s, %+v", name, value.MarshalTagged(got.Data), got.Detail)
			}
			// This session keeps its form, regardless of the form of new sessions.
			other := format(t, beaker.Config{Type: place.t, Secret: []byte("s"), Store: store, PlainStored: !plain})
			write(t, other, got, moment)
			if got, err = f.Read(ctx, header, moment); err != nil || got.Detail.(*beaker.Detail).Plain != plain {
				t.Errorf("%s: the form changed: %v", name, err)
			}
			if _, err := f.End(ctx, got); err != nil || store.Len() != 0 {
				t.Errorf("%s: ending: %v", name, err)
			}
			if _, err := f.Read(ctx, header, moment); !errors.Is(err, reason.NotFound) {
				t.Errorf("%s: after the end: %v", name, err)
			}
		}
	}
}

func TestTheDatastoreHoldsSessionsUnderP(t *testing.T) {
	datastore := &legacytest.Datastore{}
	f := format(t, beaker.Config{Type: beaker.Google, Secret: []byte("s"), Datastore: datastore, Kind: "my_sessions", PlainStored: true})
	s := session("a", int64(1))
	header := write(t, f, s, moment)
	e, err := datastore.Get(ctx, "my_sessions", "p"+s.ID)
	if err != nil || e.Get("created") == nil || e.Get("accessed") == nil {
		t.Fatalf("%v, %v", e, err)
	}
	got, err := f.Read(ctx, header, moment)
	if err != nil || !value.Equal(got.Data, s.Data) {
		t.Error(err)
	}
	if _, err := f.End(ctx, got); err != nil || datastore.Len() != 0 {
		t.Errorf("ending: %v", err)
	}
	_ = datastore.Put(ctx, "my_sessions", "p"+s.ID, appengine.Entity{{Name: "data", Value: "text"}})
	if _, err := f.Read(ctx, header, moment); !errors.Is(err, reason.Decode) {
		t.Errorf("an entity without a blob: %v", err)
	}
}

func TestEncryptedSessionsAreNotAcceptedUnencrypted(t *testing.T) {
	store := &legacytest.Store{}
	open := beaker.Config{Type: beaker.File, Secret: []byte("s"), Store: store, PlainStored: true}
	s := session("admin", true)
	header := write(t, format(t, open), s, moment)
	sealed := open
	sealed.ValidateKey, sealed.EncryptKey, sealed.Cipher = signKey, encKey, beaker.GCM
	if _, err := format(t, sealed).Read(ctx, header, moment); !errors.Is(err, reason.Decrypt) {
		t.Errorf("got %v", err)
	}
	// With a key, sessions are encrypted even if PlainStored is set.
	header = write(t, format(t, sealed), session("a", "findme"), moment)
	got, err := format(t, sealed).Read(ctx, header, moment)
	if err != nil || got.Detail.(*beaker.Detail).Plain {
		t.Errorf("%v", err)
	}
}

func TestTheCipherThatIsNoneIsReadOnServersOnly(t *testing.T) {
	store := &legacytest.Store{}
	c := beaker.Config{Type: beaker.File, Secret: []byte("s"), Store: store, ValidateKey: signKey, EncryptKey: encKey, Cipher: beaker.NoCipher}
	header := write(t, format(t, c), session("a", int64(1)), moment)
	c.Cipher = beaker.AnyCipher
	if _, err := format(t, c).Read(ctx, header, moment); err != nil {
		t.Error(err)
	}
	c.Cipher = beaker.GCM
	if _, err := format(t, c).Read(ctx, header, moment); !errors.Is(err, reason.Decrypt) {
		t.Errorf("with a definite cipher: %v", err)
	}
	if _, err := beaker.New(beaker.Config{ValidateKey: signKey, EncryptKey: encKey, Cipher: beaker.NoCipher}); err == nil {
		t.Error("cookie-only sessions may have no cipher")
	}
}

func TestTimeoutCountsFromTheLastUse(t *testing.T) {
	f := format(t, beaker.Config{ValidateKey: signKey, Timeout: 10 * time.Minute})
	s := session("a", 1)
	header := write(t, f, s, moment)
	got, err := f.Read(ctx, header, moment.Add(10*time.Minute))
	if err != nil || !got.Expires.Equal(moment.Add(10*time.Minute)) || !got.Issued.Equal(moment) {
		t.Errorf("in the last instant: %v", err)
	}
	if _, err := f.Read(ctx, header, moment.Add(10*time.Minute+time.Millisecond)); !errors.Is(err, reason.Expired) {
		t.Errorf("after it: %v", err)
	}
	// Writing is a use, and keeps identifier and time of creation.
	later := moment.Add(5 * time.Minute)
	header = write(t, f, got, later)
	again, err := f.Read(ctx, header, moment.Add(14*time.Minute))
	if err != nil || again.ID != s.ID || again.Detail.(*beaker.Detail).Meta.Get("_creation_time") != 1400040000.25 {
		t.Errorf("after another use: %v", err)
	}
}

func TestIdentifiersThatBeakerNeverMakesAreNotLookedFor(t *testing.T) {
	store := &legacytest.Store{Err: errors.New("asked")}
	f := format(t, beaker.Config{Type: beaker.File, Unsigned: true, Store: store})
	for _, id := range []string{"../../etc/passwd", "a", "a/b", "a b", "é", ".", strings.Repeat("a", 65), "a\x00b"} {
		if _, err := f.Read(ctx, http.Header{"Cookie": {"beaker.session.id=" + id}}, moment); !errors.Is(err, reason.NotFound) {
			t.Errorf("%q: %v", id, err)
		}
		bad := session("a", 1)
		bad.ID = id
		if _, err := f.Write(ctx, bad, moment); !errors.Is(err, reason.BadSID) {
			t.Errorf("writing %q: %v", id, err)
		}
	}
	if _, err := f.Read(ctx, http.Header{"Cookie": {"beaker.session.id=0123456789abcdef0123456789abcdef"}}, moment); reason.Of(err) != "" {
		t.Errorf("a good one: %v", err)
	}
}

// signed makes a cookie with anything inside.
func signed(payload []byte) http.Header {
	val := base64.StdEncoding.EncodeToString(payload)
	mac := hmac.New(sha1.New, signKey)
	mac.Write([]byte(val))
	return http.Header{"Cookie": {"beaker.session.id=" + hex.EncodeToString(mac.Sum(nil)) + val}}
}

func TestCompressedBombsAreRefused(t *testing.T) {
	var bomb bytes.Buffer
	z, _ := zlib.NewWriterLevel(&bomb, zlib.BestCompression)
	zeros := make([]byte, 1<<20)
	for i := range zeros {
		zeros[i] = ' '
	}
	for range 16 {
		_, _ = z.Write(zeros)
	}
	_ = z.Close()
	f := format(t, beaker.Config{ValidateKey: signKey, JSON: true})
	header := signed(bomb.Bytes())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := f.Read(ctx, header, moment)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, reason.ResourceLimit) {
		t.Errorf("got %v", err)
	}
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 24<<20 {
		t.Errorf("%d MiB allocated for a cookie of %d KiB", spent>>20, len(header.Get("Cookie"))>>10)
	}
}

func TestWhatDoesNotFitIsNotWritten(t *testing.T) {
	inCookie := beaker.Config{ValidateKey: signKey}
	unlimited := beaker.Config{ValidateKey: signKey, CookieLimit: -1}
	store := &legacytest.Store{}
	server := beaker.Config{Type: beaker.Redis, Secret: []byte("s"), Store: store}
	inJSON := beaker.Config{ValidateKey: signKey, JSON: true}
	for _, c := range []struct {
		name   string
		config beaker.Config
		key    string
		v      any
		want   error
	}{
		{"over the browsers' limit", inCookie, "v", strings.Repeat("x", 2890), legacy.ErrTooLarge},
		{"over Beaker's limit", unlimited, "v", strings.Repeat("x", 3000), legacy.ErrTooLarge},
		{"a date in JSON", inJSON, "v", moment, value.ErrUnsupported},
		{"a channel", server, "v", make(chan int), value.ErrUnsupported},
		{"one of Beaker's own keys", server, "_accessed_time", 5, value.ErrUnsupported},
	} {
		if _, err := format(t, c.config).Write(ctx, session(c.key, c.v), moment); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if store.Len() != 0 {
		t.Error("something was stored")
	}
}

func TestAStoreThatDoesNotAnswerIsNoRefusal(t *testing.T) {
	down := errors.New("down")
	store := &legacytest.Store{}
	f := format(t, beaker.Config{Type: beaker.Database, Secret: []byte("s"), Store: store})
	s := session("a", 1)
	header := write(t, f, s, moment)
	store.Err = down
	if _, err := f.Read(ctx, header, moment); !errors.Is(err, down) || reason.Of(err) != "" {
		t.Errorf("reading: %v", err)
	}
	if _, err := f.Write(ctx, s, moment); !errors.Is(err, down) {
		t.Errorf("writing: %v", err)
	}
	if _, err := f.End(ctx, s); !errors.Is(err, down) {
		t.Errorf("ending: %v", err)
	}
}

func TestMistakesInTheConfigurationAreReported(t *testing.T) {
	store := &legacytest.Store{}
	for want, c := range map[string]beaker.Config{
		"need ValidateKey":             {},
		"unknown Type":                 {Type: 99},
		"needs Store":                  {Type: beaker.Redis, Secret: []byte("s")},
		"needs Datastore":              {Type: beaker.Google, Secret: []byte("s")},
		"either Secret or Unsigned":    {Type: beaker.File, Store: store},
		"EncryptKey needs ValidateKey": {Type: beaker.File, Store: store, Unsigned: true, EncryptKey: encKey},
		"unknown Cipher":               {ValidateKey: signKey, Cipher: 99},
		"NonceBits must be a multiple": {ValidateKey: signKey, NonceBits: 7},
		"negative Timeout":             {ValidateKey: signKey, Timeout: -1},
	} {
		if _, err := beaker.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
