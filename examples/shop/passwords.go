package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Argon2id with the minimum cost of OWASP's password storage cheat sheet: 19
// MiB, two passes, one lane.
const (
	argonMemory = 19 * 1024 // KiB
	argonPasses = 2
	argonLanes  = 1
	saltLength  = 16 // bytes
	hashLength  = 32 // bytes
)

var errBadHash = errors.New("not a password hash of this shop")

// hashing limits how many passwords are hashed at once, and so the memory that
// many logins can take.
var hashing = make(chan struct{}, 4)

// hashPassword returns a salted hash in the PHC string format. It fails only
// when ctx ends first.
func hashPassword(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltLength)
	rand.Read(salt)
	sum, err := argon(ctx, password, salt, argonPasses, argonMemory, argonLanes, hashLength)
	if err != nil {
		return "", err
	}
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, argonMemory, argonPasses, argonLanes, b64.EncodeToString(salt), b64.EncodeToString(sum)), nil
}

// checkPassword reports whether password belongs to hash. For an empty hash it
// takes as long and reports false.
func checkPassword(ctx context.Context, hash, password string) (bool, error) {
	if hash == "" {
		_, err := argon(ctx, password, make([]byte, saltLength), argonPasses, argonMemory, argonLanes, hashLength)
		return false, err
	}
	var (
		version      int
		memory, time uint32
		lanes        uint8
	)
	part := strings.Split(hash, "$")
	if len(part) != 6 || part[1] != "argon2id" {
		return false, errBadHash
	}
	if _, err := fmt.Sscanf(part[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false, errBadHash
	}
	if _, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &memory, &time, &lanes); err != nil {
		return false, errBadHash
	}
	salt, err := base64.RawStdEncoding.DecodeString(part[4])
	if err != nil {
		return false, errBadHash
	}
	want, err := base64.RawStdEncoding.DecodeString(part[5])
	if err != nil {
		return false, errBadHash
	}
	got, err := argon(ctx, password, salt, time, memory, lanes, uint32(len(want)))
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1, err
}

func argon(ctx context.Context, password string, salt []byte, time, memory uint32, lanes uint8, length uint32) ([]byte, error) {
	select {
	case hashing <- struct{}{}:
		defer func() { <-hashing }()
	case <-ctx.Done():
		return nil, fmt.Errorf("hashing a password: %w", ctx.Err())
	}
	return argon2.IDKey([]byte(password), salt, time, memory, lanes, length), nil
}
