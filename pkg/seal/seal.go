// Package seal encrypts small values that lie where others can read or change them: in a datastore, or in a backup. It is a foundation.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
)

// KeySize is that of a key, in bytes.
const KeySize = 32

// ErrOther says that a value was sealed with another key or for another place, or that it is not whole.
var ErrOther = errors.New("it does not open")

// Box seals with AES-256-GCM (NIST SP 800-38D): a random nonce of 12 bytes, what is sealed, and 16 bytes that show a change. It is safe for
// concurrent use.
type Box struct{ aead cipher.AEAD }

// New makes a box with a key of KeySize bytes.
func New(key []byte) (*Box, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("sealing key has %d bytes, want %d", len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	return &Box{aead}, nil
}

// Derive makes a box with a key of its own for this purpose, derived from a secret that cannot be guessed (HKDF-SHA256, RFC 5869).
func Derive(secret []byte, purpose string) (*Box, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, purpose, KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive sealing key: %w", err)
	}
	return New(key)
}

// Seal encrypts a value for one place: it cannot be moved to another.
func (b *Box) Seal(plain []byte, place string) []byte {
	return b.aead.Seal(nil, nil, plain, []byte(place))
}

// Open decrypts what Seal made for this place; it fails with ErrOther.
func (b *Box) Open(sealed []byte, place string) ([]byte, error) {
	plain, err := b.aead.Open(nil, nil, sealed, []byte(place))
	if err != nil {
		return nil, ErrOther
	}
	return plain, nil
}
