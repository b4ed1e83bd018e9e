package appengine_test

import (
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

func TestItemsAreDecodedByTheirFlags(t *testing.T) {
	huge, _ := new(big.Int).SetString("1180591620717411303424", 10)
	for _, c := range []struct {
		flags uint32
		value string
		want  any
	}{
		{appengine.FlagBytes, "text", "text"},
		{appengine.FlagBytes, "\xff", []byte("\xff")},
		{appengine.FlagText, "é😀", "é😀"},
		{appengine.FlagPickle, "\x80\x02]K\x01a.", []any{int64(1)}},
		{appengine.FlagInt, "-7", int64(-7)},
		{appengine.FlagLong, "1180591620717411303424", huge},
		{appengine.FlagBool, "1", true},
		{appengine.FlagBool, "0", false},
		{appengine.FlagInt | 1<<16, "5", int64(5)},
	} {
		got, err := appengine.DecodeItem(appengine.Item{Value: []byte(c.value), Flags: c.flags})
		if err != nil || !value.Equal(got, c.want) {
			t.Errorf("flags %d %q is %#v, %v", c.flags, c.value, got, err)
		}
	}
	for flags, text := range map[uint32]string{6: "x", 7: "x", 8: "x", 8 | appengine.FlagInt: "5", appengine.FlagText: "\xff", appengine.FlagInt: "five", appengine.FlagBool: "2"} {
		if v, err := appengine.DecodeItem(appengine.Item{Value: []byte(text), Flags: flags}); !errors.Is(err, reason.Decode) {
			t.Errorf("flags %d %q is %#v, %v", flags, text, v, err)
		}
	}
	if _, err := appengine.DecodeItem(appengine.Item{Value: []byte("cos\nsystem\n."), Flags: appengine.FlagPickle}); !errors.Is(err, reason.HostilePickle) {
		t.Errorf("a hostile pickle: %v", err)
	}
}

func TestItemsAreEncodedAsThePythonClientDoes(t *testing.T) {
	huge := new(big.Int).Lsh(big.NewInt(1), 70)
	for _, c := range []struct {
		v     any
		flags uint32
		bytes string
	}{
		{"é", appengine.FlagText, "é"},
		{[]byte{0xFF}, appengine.FlagBytes, "\xff"},
		{5, appengine.FlagInt, "5"},
		{huge, appengine.FlagInt, "1180591620717411303424"},
		{true, appengine.FlagBool, "1"},
		{false, appengine.FlagBool, "0"},
		{1.5, appengine.FlagPickle, "\x80\x02G\x3f\xf8\x00\x00\x00\x00\x00\x00."},
		{nil, appengine.FlagPickle, "\x80\x02N."},
	} {
		item, err := appengine.EncodeItem(c.v)
		if err != nil || item.Flags != c.flags || string(item.Value) != c.bytes {
			t.Errorf("%v is %d %q, %v", c.v, item.Flags, item.Value, err)
		}
	}
	if _, err := appengine.EncodeItem(make(chan int)); !errors.Is(err, value.ErrUnsupported) {
		t.Errorf("a channel: %v", err)
	}
}

func TestLongMemcacheKeysAreHashed(t *testing.T) {
	if key := strings.Repeat("k", 250); appengine.MemcacheKey(key) != key {
		t.Error("250 bytes are hashed")
	}
	if got := appengine.MemcacheKey(strings.Repeat("k", 251)); got != "20af0dc46b269b715c7280d0f3bd00443948caf7" {
		t.Errorf("251 bytes are %q", got)
	}
	if got := appengine.MemcacheKey(strings.Repeat("é", 126)); len(got) != 40 {
		t.Errorf("bytes are not what counts: %q", got)
	}
}

func TestDatastoreKeysAreSpelledAsTheSDKDoes(t *testing.T) {
	for text, key := range map[string]appengine.Key{
		"agxzfmxlZ2FjeS1hcHByIwsSB1Nlc3Npb24iFndTZG9mbE9xbXdmcUZlc3hBcTFYVmkM": {
			App: "s~legacy-app", Path: []appengine.Element{{Kind: "Session", Name: "wSdoflOqmwfqFesxAq1XVi"}},
		},
		"agxzfmxlZ2FjeS1hcHByKAsSG19BcHBFbmdpbmVVdGlsaXRpZXNfU2Vzc2lvbhiAgICAgICACgw": {
			App: "s~legacy-app", Path: []appengine.Element{{Kind: "_AppEngineUtilities_Session", ID: 5629499534213120}},
		},
	} {
		if got := key.Encode(); got != text {
			t.Errorf("%+v is %s, want %s", key, got, text)
		}
	}
	deep := appengine.Key{App: "a", Namespace: "tenant", Path: []appengine.Element{{Kind: "A", ID: 1}, {Kind: "B", Name: "é"}}}
	got, err := appengine.ParseKey(deep.Encode())
	if err != nil || got.Namespace != "tenant" || len(got.Path) != 2 || got.Path[1] != deep.Path[1] {
		t.Errorf("%+v comes back as %+v, %v", deep, got, err)
	}
}

func TestWhatIsNoKeyIsRefused(t *testing.T) {
	good := appengine.Key{App: "a", Path: []appengine.Element{{Kind: "A", ID: 1}}}.Encode()
	for _, text := range []string{
		"", "not-a-key", good + "A", good[:len(good)-2], good + "=", "_" + good, strings.Repeat("A", 10_000),
		appengine.Key{App: "a"}.Encode(), appengine.Key{Path: onePath()}.Encode(),
		appengine.Key{App: "a", Path: []appengine.Element{{Kind: "A"}}}.Encode(),
		appengine.Key{App: "a", Path: []appengine.Element{{ID: 1}}}.Encode(),
		appengine.Key{App: "a\xff", Path: onePath()}.Encode(),
	} {
		if k, err := appengine.ParseKey(text); !errors.Is(err, appengine.ErrBadKey) {
			t.Errorf("%.20q is %+v, %v", text, k, err)
		}
	}
}

func onePath() []appengine.Element { return []appengine.Element{{Kind: "A", ID: 1}} }

func FuzzParseKey(f *testing.F) {
	f.Add(appengine.Key{App: "s~a", Namespace: "n", Path: []appengine.Element{{Kind: "A", ID: -1}, {Kind: "B", Name: "x"}}}.Encode())
	f.Add("agxzfmxlZ2FjeS1hcHByIwsSB1Nlc3Npb24iFndTZG9mbE9xbXdmcUZlc3hBcTFYVmkM")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := appengine.ParseKey(text)
		if err == nil && k.Encode() != text {
			t.Errorf("%q is read as %+v and written as %q", text, k, k.Encode())
		}
	})
}
