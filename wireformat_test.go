package sojourn_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

// docs/wire-format.md says what is written, testdata/wire-format.json has it in
// bytes, made by a program in another language. The tests here hold the code to
// both: it reads the vectors, and what it writes is what the vectors say.
//
// The vectors are never made again. A format that differs is another version.

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

type wireVectors struct {
	Keys       string
	Name       string
	Identifier hexBytes
	RowKey     hexBytes `json:"row_key"`
	Handle     string
	Users      []struct {
		Name, User string
		Hash       hexBytes
	}
	Reference, Retired, Floor wireCookie
	Token                     struct {
		wireCookie
		Token string
	}
	Inline struct {
		wireCookie
		Identifier hexBytes
		Expires    int64
	}
	Numbered struct {
		wireCookie
		Letters int
		SHA256  hexBytes
	}
	Values []struct {
		Name string
		CBOR hexBytes
	}
	Records []wireRecord
	Cut     struct {
		wireRecord
		Chunks []hexBytes
	}
}

type wireCookie struct {
	Plaintext      hexBytes
	AdditionalData hexBytes `json:"additional_data"`
	Sealed         hexBytes
	Cookie         string // the Cookie header
}

type wireRecord struct {
	ID, User                                hexBytes
	Version                                 uint64
	SaveIDs                                 []hexBytes
	Created, Seen, Deadline, Expires, Ended int64
	Plaintext                               hexBytes
	AdditionalData                          hexBytes `json:"additional_data"`
	Sealed                                  hexBytes
	Blob                                    hexBytes
}

func (r *wireRecord) record() store.Record {
	at := func(ms int64) time.Time {
		if ms == 0 {
			return time.Time{}
		}
		return time.UnixMilli(ms).UTC()
	}
	rec := store.Record{
		ID: store.ID(r.ID), User: store.UserHash(r.User), Version: r.Version, Data: r.Sealed,
		Created: at(r.Created), Seen: at(r.Seen), Deadline: at(r.Deadline), Expires: at(r.Expires), Ended: at(r.Ended),
	}
	for _, saveID := range r.SaveIDs {
		rec.SaveIDs = append(rec.SaveIDs, store.SaveID(binary.BigEndian.Uint64(saveID)))
	}
	return rec
}

// wireCart is what the records' field "cart" decodes into.
type wireCart struct {
	Items []string `cbor:"items"`
	Total int      `cbor:"total"`
}

var (
	wireTheme    = sojourn.NewKey[string]("theme")
	wireLastPage = sojourn.NewKey[string]("last_page", sojourn.Volatile)
	wireCode     = sojourn.NewKey[int]("code", sojourn.TTL(10*time.Minute))
	wireCarts    = sojourn.NewKey[wireCart]("cart", sojourn.ServerSide)
	wireLetters  = sojourn.NewKey[string]("letters")
)

// wireFormat is what each test needs. Its clock stands at the instant that the
// vectors name, which is where synctest starts.
type wireFormat struct {
	*testing.T
	wireVectors
	ring  *seal.Ring
	store *memory.Store
}

func wireFormatTest(t *testing.T, f func(t *wireFormat)) {
	synctest.Test(t, func(t *testing.T) {
		w := &wireFormat{T: t, store: memory.New()}
		text, err := os.ReadFile("testdata/wire-format.json")
		if err == nil {
			err = json.Unmarshal(text, &w.wireVectors)
		}
		if err == nil {
			w.ring, err = seal.ParseKeys(w.Keys)
		}
		if err != nil {
			t.Fatal(err)
		}
		f(w)
	})
}

// visit sends a request with those cookies, or that token, through a manager of that
// configuration and returns the cookies of the response, by name.
func (t *wireFormat) visit(cfg sojourn.Config, cookies string, f func(*sojourn.Session)) map[string]string {
	t.Helper()
	keys, err := sojourn.ParseKeys(t.Keys)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Keys = keys
	if cfg.Store == nil && cfg.Mode != sojourn.CookieOnly {
		cfg.Store = t.store
	}
	m, err := sojourn.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()

	r := httptest.NewRequest(http.MethodGet, "https://shop.example/", nil)
	r.RemoteAddr = "192.0.2.7:50000"
	r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)")
	switch {
	case strings.HasPrefix(cookies, "sjn_"):
		r.Header.Set("Authorization", "Bearer "+cookies)
	case cookies != "":
		r.Header.Set("Cookie", cookies)
	}
	w := httptest.NewRecorder()
	m.Handler(func(w http.ResponseWriter, _ *http.Request, s *sojourn.Session) { f(s) }).ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	set := map[string]string{}
	for _, c := range w.Result().Cookies() {
		set[c.Name] = c.Value
	}
	return set
}

// open returns the plain text of a cookie value, the way the document says.
func (t *wireFormat) open(p seal.Purpose, value string, like wireCookie) []byte {
	t.Helper()
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sealed[:4], t.Reference.Sealed[:4]) {
		t.Errorf("sealed with the key %x, want the newest active one, %x", sealed[:4], t.Reference.Sealed[:4])
	}
	if want := []byte{1, byte(p)}; !bytes.HasPrefix(like.AdditionalData, want) {
		t.Fatalf("additional data %x, want it to start with %x", like.AdditionalData, want)
	}
	plain, _, err := t.ring.Open(nil, p, sealed, like.AdditionalData[2:])
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func (t *wireFormat) want(what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %x\nwant %x", what, got, want)
	}
}

// load returns a record and its plain text.
func (t *wireFormat) load(r wireRecord, version uint64) (store.Record, []byte) {
	t.Helper()
	rec, err := t.store.Load(context.Background(), store.ID(r.ID))
	if err != nil {
		t.Fatal(err)
	}
	aad := slices.Clone(r.AdditionalData[2:])
	binary.BigEndian.PutUint64(aad[len(aad)-32:], version) // version, user hash, expires
	plain, _, err := t.ring.Open(nil, seal.Record, rec.Data, aad)
	if err != nil {
		t.Fatal(err)
	}
	return rec, plain
}

func (t *wireFormat) keep(r wireRecord) {
	t.Helper()
	if err := t.store.Save(context.Background(), r.record(), store.Base{}); err != nil {
		t.Fatal(err)
	}
}

func TestWireFormatOfNamesAndHashes(t *testing.T) {
	wireFormatTest(t, func(t *wireFormat) {
		id := store.HashIdentifier(t.Identifier)
		t.want("row key", id[:], t.RowKey)
		if id.String() != t.Handle {
			t.Errorf("handle %s, want %s", id, t.Handle)
		}
		for _, u := range t.Users {
			hash := t.ring.UserHash(u.Name, u.User)
			t.want("user hash of "+u.User, hash[:], u.Hash)
		}
	})
}

func TestWireFormatOfInlineSessions(t *testing.T) {
	wireFormatTest(t, func(t *wireFormat) {
		t.visit(sojourn.Config{}, t.Inline.Cookie, func(s *sojourn.Session) {
			info := s.Info()
			if info.Placement != sojourn.PlacementInline || info.Expires.UnixMilli() != t.Inline.Expires {
				t.Errorf("read as %+v", info)
			}
			if wireTheme.Get(s) != "dark" || wireLastPage.Get(s) != "/tea" || wireCode.Get(s) != 271828 {
				t.Errorf("the values are %q, %q, %d", wireTheme.Get(s), wireLastPage.Get(s), wireCode.Get(s))
			}
			if flashes := s.Flashes(); !slices.Equal(flashes, []sojourn.Flash{{Level: "info", Text: "Grüß Gott"}}) {
				t.Errorf("the flash messages are %v", flashes)
			}
			s.Discard()
		})

		// The same session, made by two requests.
		first := t.visit(sojourn.Config{}, "", func(s *sojourn.Session) { wireTheme.Set(s, "dark") })
		second := t.visit(sojourn.Config{}, "__Host-session-state="+first["__Host-session-state"], func(s *sojourn.Session) {
			wireLastPage.Set(s, "/tea")
			wireCode.Set(s, 271828)
			s.Flash("info", "Grüß Gott")
		})
		got := t.open(seal.State, second["__Host-session-state"], t.Inline.wireCookie)
		want := slices.Clone(t.Inline.Plaintext)
		// The identifier and the message's number are random.
		copyAfter(t.T, want, got, "0120")
		copyAfter(t.T, want, got, "81831b")
		t.want("inline session", got, want)
	})
}

// copyAfter copies what is random from got to want: 32 bytes of an identifier
// or 8 of a message's number, behind the bytes that announce them.
func copyAfter(t *testing.T, want, got []byte, announced string) {
	t.Helper()
	before, _ := hex.DecodeString(announced)
	i := bytes.Index(want, before)
	n := map[string]int{"0120": 32, "81831b": 8}[announced]
	if i < 0 || len(got) < i+len(before)+n {
		t.Fatalf("no %s at the same place", announced)
	}
	i += len(before)
	copy(want[i:i+n], got[i:])
}

func TestWireFormatOfRecordsAndReferences(t *testing.T) {
	wireFormatTest(t, func(t *wireFormat) {
		alice := t.Records[0]
		t.keep(alice)
		set := t.visit(sojourn.Config{}, t.Reference.Cookie, func(s *sojourn.Session) {
			info := s.Info()
			if s.User() != "alice" || s.Handle() != t.Handle || info.Version != 300 || info.IP != "192.0.2.7" || !info.Persistent {
				t.Errorf("read as %+v", info)
			}
			if c := wireCarts.Get(s); !slices.Equal(c.Items, []string{"tea", "mug"}) || c.Total != 1850 {
				t.Errorf("the cart is %+v", c)
			}
			wireTheme.Set(s, "light")
		})
		if len(set) != 0 {
			t.Errorf("the response set %v", set)
		}
		rec, plain := t.load(alice, 301)
		t.want("record", plain, bytes.Replace(alice.Plaintext, []byte("\x05\x64dark"), []byte("\x06\x65light"), 1))
		if rec.Version != 301 || len(rec.SaveIDs) != 3 || !slices.Equal(rec.SaveIDs[1:], alice.record().SaveIDs) {
			t.Errorf("saved as version %d with the save IDs %x", rec.Version, rec.SaveIDs)
		}
		t.want("user hash", rec.User[:], alice.User)

		// A tombstone is no session.
		t.visit(sojourn.Config{}, t.Reference.Cookie, func(s *sojourn.Session) { s.Logout() })
		t.visit(sojourn.Config{}, t.Reference.Cookie, func(s *sojourn.Session) {
			if !s.IsNew() {
				t.Error("the session is still there after its end")
			}
		})
	})
}

func TestWireFormatOfRecordsInChunks(t *testing.T) {
	wireFormatTest(t, func(t *wireFormat) {
		cut := &t.Cut
		t.keep(cut.wireRecord)
		t.visit(sojourn.Config{}, t.Reference.Cookie, func(s *sojourn.Session) {
			if got := wireLetters.Get(s); s.User() != "alice" || got != strings.Repeat("x", 1500) || wireTheme.Get(s) != "dark" {
				t.Errorf("read user %q, %d letters, theme %q", s.User(), len(got), wireTheme.Get(s))
			}
			wireTheme.Set(s, "blue") // as many bytes
		})
		rec, err := t.store.Load(context.Background(), store.ID(cut.ID))
		if err != nil {
			t.Fatal(err)
		}
		aad := slices.Clone(cut.AdditionalData[2:])
		binary.BigEndian.PutUint64(aad[len(aad)-32:], cut.Version+1) // version, user hash, expires
		first, rest, _, err := t.ring.OpenChunks(seal.Record, rec.Data, aad)
		if err != nil {
			t.Fatal(err)
		}
		t.want("first chunk", first, cut.Chunks[0])
		before := 0
		for i, want := range cut.Chunks[1:] {
			want = bytes.Replace(want, []byte("dark"), []byte("blue"), 1)
			got, err := rest.Open(nil, i+1, before, len(want))
			if err != nil {
				t.Fatalf("chunk %d: %v", i+1, err)
			}
			t.want("chunk", got, want)
			before += len(want)
		}
		if len(cut.Chunks) != 3 || !rest.Holds(2, before) {
			t.Error("the record is cut in another way")
		}
	})
}

func TestWireFormatOfPromotedSessions(t *testing.T) {
	wireFormatTest(t, func(t *wireFormat) {
		promoted := t.Records[1]
		set := t.visit(sojourn.Config{}, t.Inline.Cookie, func(s *sojourn.Session) {
			wireCarts.Set(s, wireCart{Items: []string{"tea"}, Total: 650})
		})
		rec, plain := t.load(promoted, 1)
		t.want("record", plain, promoted.Plaintext)
		got, want := rec, promoted.record()
		got.SaveIDs, got.Data, want.SaveIDs, want.Data = nil, nil, nil, nil
		gotBlob, _ := got.MarshalBinary()
		wantBlob, _ := want.MarshalBinary()
		t.want("columns", gotBlob, wantBlob)

		reference := append(slices.Clone(t.Inline.Identifier), 0)
		reference = binary.AppendUvarint(reference, uint64(promoted.Expires))
		t.want("reference", t.open(seal.Reference, set["__Host-session"], t.Reference), reference)
		if v, ok := set["__Host-session-state"]; !ok || v != "" {
			t.Errorf("the inline session stays in the browser: %q", v)
		}
	})
}

func TestWireFormatOfValues(t *testing.T) {
	values := map[string]any{
		"bytes": []byte{1, 2, 3},
		"empty": "",
		"large": uint64(math.MaxUint64),
		"map":   map[string]any{"b": int64(1), "a": []any{"x", false}, "aa": nil, "c": map[string]any{"d": int64(-1)}},
		"minus": int64(-1000),
		"real":  1.5,
		"tenth": 0.1,
		"time":  time.Date(2000, 1, 1, 12, 0, 0, 1, time.UTC),
		"true":  true,
	}
	wireFormatTest(t, func(t *wireFormat) {
		set := t.visit(sojourn.Config{}, "", func(s *sojourn.Session) {
			for name, v := range values {
				s.Set(name, v)
			}
		})
		plain := t.open(seal.State, set["__Host-session-state"], t.Inline.wireCookie)
		t.visit(sojourn.Config{}, "__Host-session-state="+set["__Host-session-state"], func(s *sojourn.Session) {
			for _, v := range t.Values {
				// Name, flags (a stamp follows), stamp, value.
				field := slices.Concat([]byte{byte(len(v.Name))}, []byte(v.Name), []byte{4, 1, byte(len(v.CBOR))}, v.CBOR)
				if !bytes.Contains(plain, field) {
					t.Errorf("%s is not written as %x", v.Name, v.CBOR)
				}
				got := reflect.New(reflect.TypeOf(values[v.Name]))
				if err := s.Get(v.Name, got.Interface()); err != nil || !reflect.DeepEqual(got.Elem().Interface(), values[v.Name]) {
					t.Errorf("%s is read as %v, %v", v.Name, got.Elem(), err)
				}
			}
		})
		if len(t.Values) != len(values) {
			t.Errorf("%d values in the vectors, %d here", len(t.Values), len(values))
		}
	})
}

func TestWireFormatOfBlobs(t *testing.T) {
	wireFormatTest(t, func(t *wireFormat) {
		for _, r := range t.Records {
			rec := r.record()
			blob, err := rec.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			t.want("blob", blob, r.Blob)
		}
	})
}

func TestWireFormatOfTokens(t *testing.T) {
	wireFormatTest(t, func(t *wireFormat) {
		t.keep(t.Records[0])
		t.visit(sojourn.Config{Bearer: true}, t.Token.Token, func(s *sojourn.Session) {
			if s.User() != "alice" {
				t.Errorf("the user is %q", s.User())
			}
			token, err := s.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.want("token", t.open(seal.Token, strings.TrimPrefix(token, "sjn_"), t.Token.wireCookie), t.Token.Plaintext)
		})
	})
}

func TestWireFormatOfReferencesUnderARetiredKey(t *testing.T) {
	wireFormatTest(t, func(t *wireFormat) {
		t.keep(t.Records[0])
		set := t.visit(sojourn.Config{}, t.Retired.Cookie, func(s *sojourn.Session) {
			if s.User() != "alice" {
				t.Errorf("the user is %q", s.User())
			}
		})
		t.want("reference, sealed anew", t.open(seal.Reference, set["__Host-session"], t.Reference), t.Reference.Plaintext)
	})
}

// laggingStore has copies that may lag behind, and tells which floor was asked
// for.
type laggingStore struct {
	*memory.Store
	floor uint64
}

func (s *laggingStore) LoadFrom(ctx context.Context, id store.ID, floor uint64) (store.Record, error) {
	s.floor = floor
	return s.Load(ctx, id)
}

func TestWireFormatOfFloors(t *testing.T) {
	wireFormatTest(t, func(t *wireFormat) {
		t.keep(t.Records[0])
		lagging := &laggingStore{Store: t.store}
		cookies := t.Reference.Cookie + "; " + t.Floor.Cookie
		set := t.visit(sojourn.Config{Store: lagging}, cookies, func(s *sojourn.Session) {
			if s.User() != "alice" || lagging.floor != 300 {
				t.Errorf("user %q, asked for version %d", s.User(), lagging.floor)
			}
			wireTheme.Set(s, "light")
		})
		want := bytes.Replace(t.Floor.Plaintext, binary.AppendUvarint(nil, 300), binary.AppendUvarint(nil, 301), 1)
		t.want("floor", t.open(seal.State, set["__Host-session-state"], t.Floor), want)
	})
}

func TestWireFormatOfNumberedCookies(t *testing.T) {
	wireFormatTest(t, func(t *wireFormat) {
		cfg := sojourn.Config{Mode: sojourn.CookieOnly, InlineLimit: 15000}
		var letters string
		t.visit(cfg, t.Numbered.Cookie, func(s *sojourn.Session) { letters = wireLetters.Get(s) })
		if sum := sha256.Sum256([]byte(letters)); len(letters) != t.Numbered.Letters || !bytes.Equal(sum[:], t.Numbered.SHA256) {
			t.Fatalf("read %d letters, want %d", len(letters), t.Numbered.Letters)
		}

		set := t.visit(cfg, "", func(s *sojourn.Session) { wireLetters.Set(s, letters) })
		const name = "__Host-session-state"
		for _, pair := range strings.Split(t.Numbered.Cookie, "; ") {
			name, value, _ := strings.Cut(pair, "=")
			if len(set[name]) != len(value) {
				t.Errorf("%s has %d bytes, want %d", name, len(set[name]), len(value))
			}
		}
		count, value, ok := strings.Cut(set[name]+set[name+"-1"]+set[name+"-2"], ".")
		if !ok || count != "3" {
			t.Fatalf("the first piece starts with %q", count)
		}
		want := slices.Clone(t.Numbered.Plaintext)
		got := t.open(seal.State, value, t.Inline.wireCookie)
		copyAfter(t.T, want, got, "0120")
		t.want("inline session", got, want)
	})
}
