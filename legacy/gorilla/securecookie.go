package gorilla

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/reason"
)

// codec seals and opens with one key pair:
//
//	base64url( timestamp "|" base64url(payload) "|" mac )
//	mac = HMAC(hash key, name "|" timestamp "|" base64url(payload))
//
// where payload is iv(16) and AES-CTR ciphertext if there is a block key.
type codec struct {
	c     Config
	hash  []byte
	block cipher.Block // nil = not encrypted
}

func newCodec(c Config, pair KeyPair) (*codec, error) {
	out := &codec{c: c, hash: pair.Hash}
	if out.c.HashFunc == nil {
		out.c.HashFunc = sha256.New
	}
	if len(pair.Hash) == 0 {
		return out, errors.New("gorilla: key pair without a Hash key")
	}
	if len(pair.Block) == 0 {
		return out, nil
	}
	var err error
	if out.block, err = aes.NewCipher(pair.Block); err != nil {
		return out, errors.New("gorilla: a Block key must have 16, 24 or 32 bytes")
	}
	return out, nil
}

// open tries all key pairs.
func (f *Format) open(text string, now time.Time) (payload []byte, issued time.Time, err error) {
	var first error
	for _, c := range f.codecs {
		payload, issued, err := c.open(text, now)
		if err == nil {
			return payload, issued, nil
		}
		// The error after a verified signature is more specific.
		if first == nil || errors.Is(first, reason.BadSignature) {
			first = err
		}
	}
	return nil, time.Time{}, first
}

// seal uses the first key pair.
func (f *Format) seal(payload []byte, now time.Time) (string, error) {
	return f.codecs[0].seal(payload, now)
}

func (c codec) open(text string, now time.Time) (payload []byte, issued time.Time, err error) {
	if c.c.MaxLength > 0 && len(text) > c.c.MaxLength {
		return nil, time.Time{}, fmt.Errorf("%w: %d bytes", reason.Malformed, len(text))
	}
	b, ok := decodeURL(text)
	if !ok {
		return nil, time.Time{}, fmt.Errorf("%w: not base64", reason.Malformed)
	}
	parts := bytes.SplitN(b, []byte("|"), 3)
	if len(parts) != 3 {
		return nil, time.Time{}, reason.Malformed
	}
	if !hmac.Equal(parts[2], c.mac(string(parts[0]), string(parts[1]))) {
		return nil, time.Time{}, reason.BadSignature
	}
	at, err := strconv.ParseInt(string(parts[0]), 10, 64)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("%w: timestamp", reason.Malformed)
	}
	if c.c.MaxAge > 0 && at < now.Unix()-int64(c.c.MaxAge/time.Second) {
		return nil, time.Time{}, reason.Expired
	}
	payload, ok = decodeURL(string(parts[1]))
	if !ok {
		return nil, time.Time{}, fmt.Errorf("%w: payload is not base64", reason.Decode)
	}
	if c.block != nil {
		if len(payload) <= aes.BlockSize {
			return nil, time.Time{}, fmt.Errorf("%w: too short", reason.Decrypt)
		}
		iv, rest := payload[:aes.BlockSize], payload[aes.BlockSize:]
		cipher.NewCTR(c.block, iv).XORKeyStream(rest, rest)
		payload = rest
	}
	return payload, time.Unix(at, 0).UTC(), nil
}

func (c codec) seal(payload []byte, now time.Time) (string, error) {
	if c.block != nil {
		sealed := make([]byte, aes.BlockSize+len(payload))
		_, _ = rand.Read(sealed[:aes.BlockSize]) // never fails
		cipher.NewCTR(c.block, sealed[:aes.BlockSize]).XORKeyStream(sealed[aes.BlockSize:], payload)
		payload = sealed
	}
	at, body := strconv.FormatInt(now.Unix(), 10), base64.URLEncoding.EncodeToString(payload)
	text := base64.URLEncoding.EncodeToString([]byte(at + "|" + body + "|" + string(c.mac(at, body))))
	if c.c.MaxLength > 0 && len(text) > c.c.MaxLength {
		return "", fmt.Errorf("%w: %d bytes", legacy.ErrTooLarge, len(text))
	}
	return text, nil
}

func (c codec) mac(at, body string) []byte {
	h := hmac.New(c.c.HashFunc, c.hash)
	h.Write([]byte(c.c.Name + "|" + at + "|" + body))
	return h.Sum(nil)
}

// decodeURL decodes padded URL-safe base64, strictly.
func decodeURL(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") { // which encoding/base64 would skip
		return nil, false
	}
	b, err := base64.URLEncoding.Strict().DecodeString(s)
	return b, err == nil
}
