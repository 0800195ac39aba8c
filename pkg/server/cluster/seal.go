package cluster

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// The sealed form is a version, a salt, a nonce and AES-256-GCM over the rest; the key is PBKDF2-HMAC-SHA256 of the token's secret, with the
// number of rounds that OWASP's Password Storage Cheat Sheet asks for.
const (
	sealVersion = 1
	saltSize    = 16
	rounds      = 600_000
)

// errSealed says that a token does not open what is sealed.
var errSealed = errors.New("the token does not open it")

func sealer(secret string, salt []byte) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha256.New, secret, salt, rounds, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// seal encrypts data with a key derived from a token's secret.
func seal(data []byte, secret string) ([]byte, error) {
	head := make([]byte, 1+saltSize)
	if _, err := rand.Read(head[1:]); err != nil {
		return nil, err
	}
	head[0] = sealVersion
	box, err := sealer(secret, head[1:])
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	nonce := make([]byte, box.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return box.Seal(append(head, nonce...), nonce, data, head), nil
}

// open decrypts what seal made; errSealed when the secret is another.
func open(sealed []byte, secret string) ([]byte, error) {
	if len(sealed) < 1+saltSize || sealed[0] != sealVersion {
		return nil, errors.New("it was sealed by another version of kedge")
	}
	head, rest := sealed[:1+saltSize], sealed[1+saltSize:]
	box, err := sealer(secret, head[1:])
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if len(rest) < box.NonceSize() {
		return nil, errSealed
	}
	data, err := box.Open(nil, rest[:box.NonceSize()], rest[box.NonceSize():], head)
	if err != nil {
		return nil, errSealed
	}
	return data, nil
}
