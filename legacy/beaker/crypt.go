package beaker

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/reason"
)

// Cipher is Beaker's encryption. It depends on which library was installed, and
// the data does not identify it.
type Cipher int

const (
	// AnyCipher tries GCM, CBC, CTR and ECB on reading. A session is written
	// with the cipher it was read with; new sessions cannot be written.
	AnyCipher Cipher = iota
	// GCM is AES-256-GCM: crypto_type "cryptography".
	GCM
	// CTR is AES-256-CTR: PyCrypto and pycryptodome since Beaker 1.6.4.
	CTR
	// CBC is AES-256-CBC without a random start: crypto_type "nss".
	CBC
	// ECB is AES-256-ECB: PyCrypto with Beaker 1.5.2 to 1.6.3.
	ECB
	// NoCipher is the silent fallback of Beaker's server-side sessions without
	// an installed library: a nonce, and unencrypted data.
	NoCipher
)

// all lists the ciphers that AnyCipher tries. GCM is first, because it alone is
// authenticated. Trying is safe, because the value is signed.
func all() []Cipher { return []Cipher{GCM, CBC, CTR, ECB} }

// nonceLen is the length of a nonce's base64 text.
func nonceLen(bits int) int { return base64.StdEncoding.EncodedLen(bits / 8) }

// key derives the key for one nonce; the nonce's text goes into the salt.
func (f *Format) key(nonce string) ([]byte, error) {
	salt := append(bytes.Clone(f.c.ValidateKey), nonce...)
	key, err := pbkdf2.Key(sha1.New, string(f.c.EncryptKey), salt, 1, 32)
	if err != nil {
		return nil, fmt.Errorf("%w: deriving the key: %w", reason.Decrypt, err)
	}
	return key, nil
}

// encrypt returns nonce and base64.
func (f *Format) encrypt(c Cipher, plain []byte) (string, error) {
	random := make([]byte, f.c.NonceBits/8)
	_, _ = rand.Read(random) // never fails
	nonce := base64.StdEncoding.EncodeToString(random)
	key, err := f.key(nonce)
	if err != nil {
		return "", err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", err
	}
	var out []byte
	switch c {
	case GCM:
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return "", err
		}
		iv := make([]byte, aead.NonceSize())
		_, _ = rand.Read(iv)
		sealed := aead.Seal(nil, iv, plain, nil)
		body, tag := sealed[:len(plain)], sealed[len(plain):]
		out = append(append(append(out, iv...), tag...), body...)
	case CTR:
		out = make([]byte, len(plain))
		cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(out, plain)
	case CBC:
		pad := aes.BlockSize - len(plain)%aes.BlockSize
		out = append(bytes.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)
		cipher.NewCBCEncrypter(block, make([]byte, aes.BlockSize)).CryptBlocks(out, out)
	case ECB:
		pad := aes.BlockSize - len(plain)%aes.BlockSize
		out = append(bytes.Clone(plain), bytes.Repeat([]byte{' '}, pad)...)
		for b := out; len(b) > 0; b = b[aes.BlockSize:] {
			block.Encrypt(b, b)
		}
	case NoCipher:
		out = plain
	default:
		return "", errors.New("beaker: a new session needs a definite Cipher")
	}
	return nonce + base64.StdEncoding.EncodeToString(out), nil
}

// decrypt undoes encrypt with one cipher. Only the result of GCM is
// authenticated.
func (f *Format) decrypt(c Cipher, text string) ([]byte, error) {
	n := nonceLen(f.c.NonceBits)
	if len(text) < n {
		return nil, fmt.Errorf("%w: shorter than its nonce", reason.Decrypt)
	}
	body, ok := cookies.Base64(text[n:])
	if !ok {
		return nil, fmt.Errorf("%w: not base64", reason.Decrypt)
	}
	key, err := f.key(text[:n])
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	switch c {
	case GCM:
		const ivLen, tagLen = 12, 16
		if len(body) < ivLen+tagLen {
			return nil, fmt.Errorf("%w: too short", reason.Decrypt)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		iv, tag, sealed := body[:ivLen], body[ivLen:ivLen+tagLen], body[ivLen+tagLen:]
		plain, err := aead.Open(nil, iv, append(bytes.Clone(sealed), tag...), nil)
		if err != nil {
			return nil, fmt.Errorf("%w: wrong tag", reason.Decrypt)
		}
		return plain, nil
	case CTR:
		cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(body, body)
		return body, nil
	case NoCipher:
		return body, nil
	}
	if len(body) == 0 || len(body)%aes.BlockSize != 0 {
		return nil, fmt.Errorf("%w: not whole blocks", reason.Decrypt)
	}
	if c == ECB {
		for b := body; len(b) > 0; b = b[aes.BlockSize:] {
			block.Decrypt(b, b)
		}
		return bytes.TrimRight(body, " \t\n\r\v\f"), nil
	}
	cipher.NewCBCDecrypter(block, make([]byte, aes.BlockSize)).CryptBlocks(body, body)
	pad := int(body[len(body)-1])
	if pad < 1 || pad > aes.BlockSize || !bytes.Equal(body[len(body)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, fmt.Errorf("%w: wrong padding", reason.Decrypt)
	}
	return body[:len(body)-pad], nil
}
