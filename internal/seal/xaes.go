package seal

import (
	"crypto/aes"
	"crypto/cipher"
)

// A prefix is the first half of an XAES-256-GCM nonce, from which the message
// key is derived.
type prefix [12]byte

// xaes is the key derivation of XAES-256-GCM (https://c2sp.org/XAES-256-GCM):
// the first 12 of 24 nonce bytes choose an AES-256-GCM key, the last 12 are
// that cipher's nonce. It is NIST SP 800-108r1's counter KDF over CMAC with one
// block of input each, so that two AES calls give one key.
type xaes struct {
	block cipher.Block
	k1    [aes.BlockSize]byte // CMAC's subkey for complete blocks
}

// newXAES prepares a 32-byte key.
func newXAES(key []byte) (*xaes, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	x := &xaes{block: block}
	block.Encrypt(x.k1[:], x.k1[:])

	// Doubling in GF(2^128), in constant time.
	var carry byte
	for i := len(x.k1) - 1; i >= 0; i-- {
		x.k1[i], carry = x.k1[i]<<1|carry, x.k1[i]>>7
	}
	x.k1[len(x.k1)-1] ^= carry * 0x87
	return x, nil
}

// derive returns the AES-256-GCM for all nonces that start with p.
func (x *xaes) derive(p prefix) (cipher.AEAD, error) {
	key := make([]byte, 2*aes.BlockSize)
	for i := range 2 {
		m := key[i*aes.BlockSize:][:aes.BlockSize]
		m[1], m[2] = byte(i+1), 'X'
		copy(m[4:], p[:])
		for j := range m {
			m[j] ^= x.k1[j]
		}
		x.block.Encrypt(m, m)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
