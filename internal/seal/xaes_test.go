package seal

import (
	"bytes"
	"crypto/sha3"
	"encoding/hex"
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/race"
)

// sealXAES is XAES-256-GCM as its specification has it: one key, one nonce, one
// message.
func sealXAES(t *testing.T, key, nonce, plaintext, aad []byte) []byte {
	t.Helper()
	x, err := newXAES(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := x.derive(prefix(nonce))
	if err != nil {
		t.Fatal(err)
	}
	return aead.Seal(nil, nonce[len(prefix{}):], plaintext, aad)
}

// The vectors are those of https://c2sp.org/XAES-256-GCM.
func TestXAESMatchesThePublishedVectors(t *testing.T) {
	for _, v := range []struct {
		name       string
		key        byte // 32 times
		aad        string
		ciphertext string
	}{
		{"low top bit", 1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{"high top bit", 3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		t.Run(v.name, func(t *testing.T) {
			key := bytes.Repeat([]byte{v.key}, 32)
			got := sealXAES(t, key, []byte("ABCDEFGHIJKLMNOPQRSTUVWX"), []byte("XAES-256-GCM"), []byte(v.aad))
			if hex.EncodeToString(got) != v.ciphertext {
				t.Errorf("got %x, want %s", got, v.ciphertext)
			}
		})
	}
}

func TestXAESMatchesTheAccumulatedVectors(t *testing.T) {
	for _, v := range []struct {
		name       string
		iterations int
		sum        string
	}{
		{"10 000", 10_000, "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"},
		{"1 000 000", 1_000_000, "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15"},
	} {
		if (race.Enabled || testing.Short()) && v.iterations > 10_000 {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			in, out := sha3.NewSHAKE128(), sha3.NewSHAKE128()
			read := func(n int) []byte {
				b := make([]byte, n)
				_, _ = in.Read(b) // never fails
				return b
			}
			for range v.iterations {
				key, nonce := read(32), read(24)
				plaintext := read(int(read(1)[0]))
				aad := read(int(read(1)[0]))
				out.Write(sealXAES(t, key, nonce, plaintext, aad))
			}
			var sum [32]byte
			_, _ = out.Read(sum[:]) // never fails
			if hex.EncodeToString(sum[:]) != v.sum {
				t.Errorf("got %x, want %s", sum, v.sum)
			}
		})
	}
}
