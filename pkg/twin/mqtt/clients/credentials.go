package clients

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	// maxCredentials is the size of the largest credentials file, in bytes.
	maxCredentials = 1 << 20
	// maxRounds bounds what one attempt to log in costs.
	maxRounds = 100_000
)

// secret is a password as a credentials file has it.
type secret struct {
	plain      string
	salt, hash []byte // nil for a plain one
	rounds     int    // 0: one SHA-512
}

func (s *secret) fits(password string) bool {
	if s.hash == nil {
		return subtle.ConstantTimeCompare([]byte(s.plain), []byte(password)) == 1
	}
	if s.rounds == 0 {
		sum := sha512.Sum512(append([]byte(password), s.salt...))
		return subtle.ConstantTimeCompare(sum[:], s.hash) == 1
	}
	sum, err := pbkdf2.Key(sha512.New, password, s.salt, s.rounds, len(s.hash))
	return err == nil && subtle.ConstantTimeCompare(sum, s.hash) == 1
}

// secretOf reads a password: as it is, or as mosquitto_passwd writes it: $7$ROUNDS$SALT$HASH (PBKDF2 with SHA-512) or $6$SALT$HASH (SHA-512).
func secretOf(text string) (*secret, error) {
	fields := strings.Split(text, "$")
	if len(fields) < 4 || fields[0] != "" || fields[1] != "6" && fields[1] != "7" {
		return &secret{plain: text}, nil
	}
	s := &secret{}
	var err error
	if fields[1] == "7" {
		if s.rounds, err = strconv.Atoi(fields[2]); err != nil || s.rounds < 1 || s.rounds > maxRounds {
			return nil, fmt.Errorf("the rounds of the digest are not from 1 to %d", maxRounds)
		}
		fields = fields[1:]
	}
	if len(fields) != 4 {
		return nil, errors.New("the digest of the password is not complete")
	}
	salt, bad := base64.StdEncoding.DecodeString(fields[2])
	hash, worse := base64.StdEncoding.DecodeString(fields[3])
	if bad != nil || worse != nil || len(hash) != sha512.Size {
		return nil, errors.New("the digest of the password is not as mosquitto_passwd writes it")
	}
	s.salt, s.hash = salt, hash
	return s, nil
}

// Credentials reads clients, one a line: a name, a password or the digest of one, and the devices it may use, all of the node when there are
// none. A name and a digest may have a colon between them. Lines that begin with # and empty ones are skipped.
func Credentials(data []byte) (out []Client, err error) {
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		c, err := clientOf(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if out = append(out, c); len(out) > maxClients {
			return nil, fmt.Errorf("there are more than %d clients", maxClients)
		}
	}
	return out, nil
}

func clientOf(line string) (c Client, err error) {
	fields := strings.Fields(line)
	if name, digest, ok := strings.Cut(fields[0], ":"); ok {
		fields = append([]string{name, digest}, fields[1:]...)
	}
	if !namePattern.MatchString(fields[0]) {
		return c, fmt.Errorf("client %q: want 1 to 64 letters, digits and . _ -", fields[0])
	}
	if len(fields) < 2 || fields[1] == "" {
		return c, fmt.Errorf("client %s has no password", fields[0])
	}
	c.Name = fields[0]
	if c.secret, err = secretOf(fields[1]); err != nil {
		return c, fmt.Errorf("client %s: %w", c.Name, err)
	}
	for _, d := range fields[2:] {
		if !strings.Contains(d, "/") {
			d = "default/" + d
		}
		c.Devices = append(c.Devices, d)
	}
	return c, nil
}

// credentials remembers what a credentials file held.
type credentials struct {
	stamp  time.Time
	size   int64
	list   []Client
	broken error
}

// load reads the file when it has changed. It must be there, and be for its owner and group only.
func (k *credentials) load(path string) ([]Client, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read credentials of the message bus: %w", err)
	case info.ModTime().Equal(k.stamp) && info.Size() == k.size:
		return k.list, k.broken
	case info.Size() > maxCredentials:
		return nil, fmt.Errorf("read credentials of the message bus: %s has more than %d bytes", path, maxCredentials)
	case info.Mode().Perm()&0o007 != 0:
		return nil, fmt.Errorf("read credentials of the message bus: everybody may read %s: take the permission from others (chmod o-rwx)", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read credentials of the message bus: %w", err)
	}
	k.stamp, k.size = info.ModTime(), info.Size()
	if k.list, k.broken = Credentials(data); k.broken != nil {
		k.broken = fmt.Errorf("read credentials of the message bus: %s: %w", path, k.broken)
	}
	return k.list, k.broken
}

// Login reads a name and a password from a file with one line, for a broker that others run.
func Login(path string) (name, password string, err error) {
	var k credentials
	list, err := k.load(path)
	if err != nil {
		return "", "", err
	}
	if len(list) != 1 || list[0].secret.hash != nil {
		return "", "", fmt.Errorf("read credentials of the message bus: %s: want one line with a name and a password", path)
	}
	return list[0].Name, list[0].secret.plain, nil
}
