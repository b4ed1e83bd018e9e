package seal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

var epoch = time.Date(2026, 11, 20, 13, 15, 0, 0, time.UTC)

// newKey returns the key with the n-th secret, made n hours after the epoch.
func newKey(t testing.TB, n uint32, state KeyState) Key {
	t.Helper()
	var secret [SecretSize]byte
	binary.BigEndian.PutUint32(secret[:], n)
	k, err := NewKey(secret, state, epoch.Add(time.Duration(n)*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newRing(t testing.TB, keys ...Key) *Ring {
	t.Helper()
	r, err := NewRing(keys, [SecretSize]byte{'i'})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustSeal(t testing.TB, r *Ring, p Purpose, plaintext, aad string) []byte {
	t.Helper()
	sealed, err := r.Seal(nil, p, []byte(plaintext), []byte(aad))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// wantOpen checks that sealed opens to plaintext, and returns whether it is
// stale.
func wantOpen(t testing.TB, r *Ring, p Purpose, sealed []byte, aad, plaintext string) (stale bool) {
	t.Helper()
	got, stale, err := r.Open(nil, p, sealed, []byte(aad))
	if err != nil || string(got) != plaintext {
		t.Fatalf("Open = %q, %v; want %q", got, err, plaintext)
	}
	return stale
}

// wantRefused checks that sealed does not open, for the given reason.
func wantRefused(t testing.TB, r *Ring, p Purpose, sealed []byte, aad string, reason error) {
	t.Helper()
	got, stale, err := r.Open(nil, p, sealed, []byte(aad))
	if got != nil || stale || !errors.Is(err, reason) {
		t.Fatalf("Open = %q, %v, %v; want %v", got, stale, err, reason)
	}
}

// vectors are values from an independent implementation, for authors of further
// ones.
type vectors struct {
	Text   string   // of the ring
	Keys   []string // ids
	Sealed []struct {
		Key, Purpose, Plaintext, AAD, Sealed string // in hex, but for the purpose
	}
	Users        []userVector
	WithoutIndex struct {
		Text  string
		Users []userVector
	} `json:"without_index"`
}

type userVector struct{ Name, User, Hash string }

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func purposeNamed(t testing.TB, name string) Purpose {
	t.Helper()
	for p := range purposes {
		if p.String() == name {
			return p
		}
	}
	t.Fatalf("no purpose %q", name)
	return 0
}

func TestWireFormatIsThatOfTheVectors(t *testing.T) {
	v := readVectors(t)
	r, err := ParseKeys(v.Text)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range r.keys {
		if id := hex.EncodeToString(k.id[:]); id != v.Keys[i] {
			t.Errorf("key %d has the id %s, want %s", i, id, v.Keys[i])
		}
	}
	for i, s := range v.Sealed {
		got, _, err := r.Open(nil, purposeNamed(t, s.Purpose), unhex(t, s.Sealed), unhex(t, s.AAD))
		if err != nil || hex.EncodeToString(got) != s.Plaintext {
			t.Errorf("sealed %d: got %x, %v; want %s", i, got, err, s.Plaintext)
		}
	}
	checkUsers := func(r *Ring, users []userVector) {
		for _, u := range users {
			if h := r.UserHash(u.Name, u.User); hex.EncodeToString(h[:]) != u.Hash {
				t.Errorf("user %q of %q: got %x, want %s", u.User, u.Name, h, u.Hash)
			}
		}
	}
	checkUsers(r, v.Users)
	if r, err = ParseKeys(v.WithoutIndex.Text); err != nil {
		t.Fatal(err)
	}
	checkUsers(r, v.WithoutIndex.Users)
}

func TestWhatIsSealedOpens(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	for p := range purposes {
		for _, n := range []int{0, 1, 15, 16, 17, 200, 1 << 20} {
			plaintext := strings.Repeat("x", n)
			sealed := mustSeal(t, r, p, plaintext, "aad")
			if len(sealed) != n+Overhead {
				t.Errorf("%v: %d bytes became %d, want %d more", p, n, len(sealed), Overhead)
			}
			wantOpen(t, r, p, sealed, "aad", plaintext)
		}
	}
}

func TestSealAndOpenAppend(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	sealed, err := r.Seal([]byte("before "), State, []byte("text"), nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed, ok := bytes.CutPrefix(sealed, []byte("before "))
	if !ok {
		t.Fatalf("Seal did not append: %q", sealed)
	}
	got, _, err := r.Open([]byte("before "), State, sealed, nil)
	if err != nil || string(got) != "before text" {
		t.Fatalf("Open = %q, %v", got, err)
	}
}

func TestOpenCanDecryptInPlace(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	sealed := mustSeal(t, r, State, "text", "aad")
	got, _, err := r.Open(sealed[28:28], State, sealed, []byte("aad"))
	if err != nil || string(got) != "text" || &got[0] != &sealed[28] {
		t.Fatalf("Open = %q, %v", got, err)
	}
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	sealed := mustSeal(t, r, State, "some text", "aad")
	for i := range len(sealed) * 8 {
		sealed[i/8] ^= 1 << (i % 8)
		reason := ErrOpen
		if i/8 < idSize {
			reason = ErrUnknownKey
		}
		wantRefused(t, r, State, sealed, "aad", reason)
		sealed[i/8] ^= 1 << (i % 8)
	}
	wantOpen(t, r, State, sealed, "aad", "some text")
}

func TestEveryOtherLengthIsRefused(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	sealed := mustSeal(t, r, State, "some text", "aad")
	for n := range sealed {
		wantRefused(t, r, State, sealed[:n], "aad", ErrOpen)
	}
	wantRefused(t, r, State, append(sealed, 0), "aad", ErrOpen)
}

func TestAValueOpensOnlyForItsPurpose(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	for p := range purposes {
		sealed := mustSeal(t, r, p, "text", "aad")
		for other := range purposes {
			if other != p {
				wantRefused(t, r, other, sealed, "aad", ErrOpen)
			}
		}
	}
}

func TestAValueOpensOnlyWithItsAdditionalData(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	sealed := mustSeal(t, r, State, "text", "aad")
	for _, other := range []string{"", "aa", "aadd", "Aad", "\x01\x01aad"} {
		wantRefused(t, r, State, sealed, other, ErrOpen)
	}
}

func TestAnUnknownKeyCostsNoCryptography(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	sealed := mustSeal(t, newRing(t, newKey(t, 2, Active)), State, "text", "")
	for p := range r.keys[0].derived {
		r.keys[0].derived[p].xaes = nil // deriving a cipher panics
	}
	wantRefused(t, r, State, sealed, "", ErrUnknownKey)
}

func TestTheNewestActiveKeySeals(t *testing.T) {
	for _, c := range []struct {
		name string
		keys []Key
		want int
	}{
		{"the only one", []Key{newKey(t, 1, Active)}, 0},
		{"the newer of two", []Key{newKey(t, 1, Active), newKey(t, 2, Active)}, 1},
		{"in any order", []Key{newKey(t, 2, Active), newKey(t, 1, Active)}, 0},
		{"not a newer published one", []Key{newKey(t, 1, Active), newKey(t, 2, Published)}, 0},
		{"not a newer retired one", []Key{newKey(t, 1, Active), newKey(t, 2, Retired)}, 0},
		{"of two that are equally new, the one listed later", []Key{at(newKey(t, 2, Active), epoch), at(newKey(t, 1, Active), epoch)}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			sealed := mustSeal(t, newRing(t, c.keys...), State, "", "")
			if id := c.keys[c.want].id; !bytes.HasPrefix(sealed, id[:]) {
				t.Errorf("sealed by %x, want %x", sealed[:idSize], id)
			}
		})
	}
}

func at(k Key, created time.Time) Key {
	k.Created = created
	return k
}

func in(k Key, state KeyState) Key {
	k.State = state
	return k
}

func TestOnlyWhatAnOlderOrRetiredKeySealedIsStale(t *testing.T) {
	for _, c := range []struct {
		name  string
		other Key // beside the key that seals, number 5
		stale bool
	}{
		{"an older active key", newKey(t, 1, Active), true},
		{"an older published key", newKey(t, 1, Published), true},
		{"an older retired key", newKey(t, 1, Retired), true},
		{"a newer published key", newKey(t, 9, Published), false},
		{"a newer retired key", newKey(t, 9, Retired), true},
		{"an equally new active key listed before", at(newKey(t, 1, Active), newKey(t, 5, Active).Created), true},
		{"an equally new published key listed before", at(newKey(t, 1, Published), newKey(t, 5, Active).Created), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRing(t, c.other, newKey(t, 5, Active))
			sealed := mustSeal(t, newRing(t, in(c.other, Active)), State, "text", "")
			if stale := wantOpen(t, r, State, sealed, "", "text"); stale != c.stale {
				t.Errorf("stale = %v, want %v", stale, c.stale)
			}
			if wantOpen(t, r, State, mustSeal(t, r, State, "text", ""), "", "text") {
				t.Error("what the sealing key sealed is stale")
			}
		})
	}
	t.Run("an equally new key listed after", func(t *testing.T) {
		other := at(newKey(t, 1, Published), newKey(t, 5, Active).Created)
		r := newRing(t, newKey(t, 5, Active), other)
		if wantOpen(t, r, State, mustSeal(t, newRing(t, in(other, Active)), State, "text", ""), "", "text") {
			t.Error("stale")
		}
	})
}

// A new key goes through published, active, retired and out, one process after
// the other. At each step every process opens the values of every other, and no
// two processes both find the other's values stale.
func TestAStagedRolloutOpensEverywhereAndSettles(t *testing.T) {
	old, next := newKey(t, 1, Active), newKey(t, 2, Active)
	steps := []*Ring{
		newRing(t, old),
		newRing(t, old, in(next, Published)),
		newRing(t, old, next),
		newRing(t, in(old, Retired), next),
		newRing(t, next),
	}
	for i, a := range steps[:len(steps)-1] {
		b := steps[i+1]
		fromA, fromB := mustSeal(t, a, State, "a", ""), mustSeal(t, b, State, "b", "")
		if i < 3 { // the last step removes what is no longer in use
			staleInB := wantOpen(t, b, State, fromA, "", "a")
			staleInA := wantOpen(t, a, State, fromB, "", "b")
			if staleInA && staleInB {
				t.Errorf("step %d: each process seals anew what the other sealed", i)
			}
		}
	}
}

func TestNewRingRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		keys []Key
	}{
		{"no keys", nil},
		{"no active key", []Key{newKey(t, 1, Published), newKey(t, 2, Retired)}},
		{"a key twice", []Key{newKey(t, 1, Active), newKey(t, 1, Published)}},
		// Two secrets found by trying.
		{"different keys of one id", []Key{newKey(t, 3378, Active), newKey(t, 13760, Active)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := NewRing(c.keys, [SecretSize]byte{}); err == nil {
				t.Error("no error")
			}
		})
	}
}

// The test runs itself in a process that must not use the cryptography.
func TestNewRingRefusesWhereItCannotSeal(t *testing.T) {
	if strings.Contains(os.Getenv("GODEBUG"), "fips140=only") {
		if _, err := NewRing([]Key{newKey(t, 1, Active)}, [SecretSize]byte{}); err == nil {
			t.Error("no error")
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNoncesHaveAStableAndAFreshHalf(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	first := map[string]bool{}
	second := map[string]bool{}
	for range 1000 {
		nonce := mustSeal(t, r, State, "", "")[idSize:][:nonceSize]
		first[string(nonce[:12])] = true
		second[string(nonce[12:])] = true
	}
	if len(first) != 1 || len(second) != 1000 {
		t.Errorf("1000 nonces have %d first and %d second halves, want 1 and 1000", len(first), len(second))
	}
	for _, p := range []Purpose{Reference, Record} {
		first[string(mustSeal(t, r, p, "", "")[idSize:][:12])] = true
	}
	if len(first) != 3 {
		t.Errorf("3 purposes have %d first halves", len(first))
	}
}

func TestTheFirstHalfIsRenewedInTime(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	before := mustSeal(t, r, State, "before", "")
	s := r.sealing.derived[State].current.Load()
	s.used.Store(maxSealed - 1)
	last := mustSeal(t, r, State, "last", "")
	next := mustSeal(t, r, State, "next", "")
	after := mustSeal(t, r, State, "after", "")
	if prefix(last[idSize:]) != prefix(before[idSize:]) {
		t.Error("renewed too early")
	}
	if prefix(next[idSize:]) == prefix(before[idSize:]) {
		t.Error("not renewed after the limit")
	}
	if prefix(after[idSize:]) != prefix(next[idSize:]) {
		t.Error("renewed again at once")
	}
	wantOpen(t, r, State, before, "", "before")
	wantOpen(t, r, State, next, "", "next")
}

// cacheLen counts the ciphers that a key keeps for opening.
func cacheLen(k *purposeKey) (n int) {
	for i := range k.cache {
		for j := range k.cache[i] {
			if k.cache[i][j].Load() != nil {
				n++
			}
		}
	}
	return n
}

// sealedElsewhere returns a value with a new prefix, as from a process that has
// just started.
func sealedElsewhere(t testing.TB, plaintext string) []byte {
	t.Helper()
	return mustSeal(t, newRing(t, newKey(t, 1, Active)), State, plaintext, "")
}

func TestGarbageDoesNotEnterTheCache(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	k := &r.sealing.derived[State]
	kept := sealedElsewhere(t, "kept")
	wantOpen(t, r, State, kept, "", "kept")
	cipher := k.cached(prefix(kept[idSize:]))
	for range 10 * cacheSets * cacheWays {
		forged := sealedElsewhere(t, "forged")
		forged[len(forged)-1] ^= 1
		wantRefused(t, r, State, forged, "", ErrOpen)
	}
	if n := cacheLen(k); n != 1 || cipher == nil || k.cached(prefix(kept[idSize:])) != cipher {
		t.Errorf("the cache has %d ciphers, want the one that opened something", n)
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	k := &r.sealing.derived[State]
	var all [][]byte
	for range 4 * cacheSets * cacheWays {
		sealed := sealedElsewhere(t, "text")
		all = append(all, sealed)
		wantOpen(t, r, State, sealed, "", "text")
		if k.cached(prefix(sealed[idSize:])) == nil {
			t.Fatal("what has just opened something is not in the cache")
		}
	}
	if n := cacheLen(k); n > cacheSets*cacheWays || n < cacheSets*cacheWays/2 {
		t.Errorf("the cache has %d ciphers, want about %d", n, cacheSets*cacheWays)
	}
	for _, sealed := range all {
		wantOpen(t, r, State, sealed, "", "text")
	}
}

func TestAPrefixIsCachedOnce(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	sealed := sealedElsewhere(t, "text")
	k := &r.sealing.derived[State]
	d, err := k.cipher(prefix(sealed[idSize:]))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // as with several concurrent requests with a new prefix
		k.remember(&derived{d.prefix, d.aead})
	}
	if n := cacheLen(k); n != 1 {
		t.Errorf("the cache has %d ciphers for one prefix", n)
	}
}

func TestAKeyKeepsItsCachesInANewRing(t *testing.T) {
	old := newKey(t, 1, Active)
	r := newRing(t, old)
	mine, other := mustSeal(t, r, State, "text", ""), sealedElsewhere(t, "text")
	wantOpen(t, r, State, other, "", "text")

	r = newRing(t, in(old, Retired), newKey(t, 2, Active))
	for p := range old.derived {
		old.derived[p].xaes = nil // deriving a cipher panics
	}
	wantOpen(t, r, State, mine, "", "text")
	wantOpen(t, r, State, other, "", "text")
}

func TestARingServesManyGoroutines(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active), newKey(t, 2, Published))
	var elsewhere [][]byte
	for range 50 {
		elsewhere = append(elsewhere, sealedElsewhere(t, "elsewhere"))
	}
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 200 {
				if i%50 == 49 { // exhaust the prefix now and then
					r.sealing.derived[State].current.Load().used.Store(maxSealed)
				}
				text := fmt.Sprint("text ", g, i)
				sealed, err := r.Seal(nil, State, []byte(text), []byte(text))
				if err != nil {
					t.Error(err)
					return
				}
				got, _, err := r.Open(nil, State, sealed, []byte(text))
				if err != nil || string(got) != text {
					t.Errorf("Open = %q, %v; want %q", got, err, text)
				}
				got, _, err = r.Open(nil, State, elsewhere[i%len(elsewhere)], nil)
				if err != nil || string(got) != "elsewhere" {
					t.Errorf("Open = %q, %v; want elsewhere", got, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestUserHashSeparatesUsersAndNames(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	seen := map[store.UserHash][2]string{}
	for _, u := range [][2]string{{"session", "alice"}, {"session", "alicia"}, {"admin", "alice"}, {"sessiona", "lice"}, {"sessio", "nalice"}, {"", "sessionalice"}} {
		h := r.UserHash(u[0], u[1])
		if h != r.UserHash(u[0], u[1]) {
			t.Errorf("%q has two hashes", u)
		}
		if other, ok := seen[h]; ok {
			t.Errorf("%q and %q have one hash", u, other)
		}
		seen[h] = u
	}
}

func TestLegacyIdentifiersSeparateTheirPartsAndDependOnTheIndexKeyAlone(t *testing.T) {
	r := newRing(t, newKey(t, 1, Active))
	seen := map[string]bool{}
	for _, parts := range [][]string{{"session", "s", "a", "b"}, {"spent", "s", "a", "b"}, {"session", "s", "ab", ""}, {"session", "sa", "b"}, {"session", "s", "a"}} {
		id := string(r.Legacy(parts...))
		if len(id) != 32 || seen[id] {
			t.Errorf("%q: %x", parts, id)
		}
		seen[id] = true
	}
	if !bytes.Equal(newRing(t, newKey(t, 2, Active)).Legacy("session"), r.Legacy("session")) {
		t.Error("it changes with the keys")
	}
	if user := r.UserHash("name", "user"); bytes.HasPrefix(r.Legacy("name", "user"), user[:]) {
		t.Error("it has the key of the user index")
	}
	other, err := NewRing([]Key{newKey(t, 1, Active)}, [SecretSize]byte{'j'})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(other.Legacy("session"), r.Legacy("session")) {
		t.Error("it does not depend on the index key")
	}
}

func TestUserHashOfNobodyIsZero(t *testing.T) {
	if h := newRing(t, newKey(t, 1, Active)).UserHash("session", ""); h != (store.UserHash{}) {
		t.Errorf("got %x", h)
	}
}

func TestUserHashDependsOnTheIndexKeyAlone(t *testing.T) {
	a, b := newKey(t, 1, Active), newKey(t, 2, Active)
	hash := newRing(t, a).UserHash("session", "alice")
	if newRing(t, b).UserHash("session", "alice") != hash {
		t.Error("it changes with the keys")
	}
	other, err := NewRing([]Key{a}, [SecretSize]byte{'j'})
	if err != nil {
		t.Fatal(err)
	}
	if other.UserHash("session", "alice") == hash {
		t.Error("it does not change with the index key")
	}
}

func TestPrintingShowsNoSecrets(t *testing.T) {
	secret := [SecretSize]byte(bytes.Repeat([]byte("K"), SecretSize))
	index := [SecretSize]byte(bytes.Repeat([]byte("I"), SecretSize))
	k, err := NewKey(secret, Active, epoch)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRing([]Key{k}, index)
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{r, &r, []*Ring{r}, k, &k, []Key{k}} {
			out := fmt.Sprintf(verb, v)
			for _, s := range [][]byte{secret[:4], index[:4], r.index[:4]} {
				for _, spelling := range []string{
					string(s),
					fmt.Sprintf("%x", s),
					fmt.Sprintf("%d %d %d %d", s[0], s[1], s[2], s[3]),
					fmt.Sprintf("%#x, %#x, %#x, %#x", s[0], s[1], s[2], s[3]),
				} {
					if strings.Contains(out, spelling) {
						t.Errorf("%s of %T shows a secret", verb, v)
					}
				}
			}
		}
	}
	if got, want := fmt.Sprint(r), fmt.Sprintf("1 key, %x", k.id); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := fmt.Sprint(newRing(t, newKey(t, 1, Retired), k)), fmt.Sprintf("2 keys, sealing with %x", k.id); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// FuzzOpen looks for a value that opens although it was not sealed.
func FuzzOpen(f *testing.F) {
	v := readVectors(f)
	r, err := ParseKeys(v.Text)
	if err != nil {
		f.Fatal(err)
	}
	type input struct {
		purpose     Purpose
		sealed, aad string
	}
	known := map[input]string{}
	for _, s := range v.Sealed {
		in := input{purposeNamed(f, s.Purpose), string(unhex(f, s.Sealed)), string(unhex(f, s.AAD))}
		known[in] = string(unhex(f, s.Plaintext))
		f.Add(byte(in.purpose), []byte(in.sealed), []byte(in.aad))
	}
	f.Add(byte(Record), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, purpose byte, sealed, aad []byte) {
		p := Purpose(purpose % byte(purposes))
		plaintext, ok := known[input{p, string(sealed), string(aad)}]
		before := slices.Clone(sealed)
		got, _, err := r.Open(nil, p, sealed, aad)
		switch {
		case !bytes.Equal(sealed, before):
			t.Error("Open changed the value")
		case ok && (err != nil || string(got) != plaintext):
			t.Errorf("Open = %q, %v; want %q", got, err, plaintext)
		case !ok && err == nil:
			t.Errorf("a forgery opens as %q", got)
		case !ok && !errors.Is(err, ErrOpen) && !errors.Is(err, ErrUnknownKey):
			t.Errorf("unexpected error %v", err)
		}
	})
}
