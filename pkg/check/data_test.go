package check

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLockKeepsASecondKedgeOff(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	unlock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); err == nil || !strings.Contains(err.Error(), "another kedge (pid ") || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v", err)
	}
	if pid := holder(dir); pid != 0 {
		t.Errorf("holder %d: this process is no other one", pid)
	}
	write(t, lockFile(dir), "7\n")
	if pid := holder(dir); pid != 7 {
		t.Errorf("holder %d", pid)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if pid := holder(dir); pid != 0 {
		t.Errorf("holder %d of a free directory", pid)
	}
	unlock, err = Lock(dir)
	if err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
}

func TestNewerDataIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		written, current string
		ok               bool
	}{
		{"", "v0.2.0", true},
		{"v0.1.5", "v0.2.0", true},
		{"v0.2.9", "v0.2.0", true},
		{"v0.3.0", "v0.2.9", false},
		{"v1.0.0-rc1", "v0.9.0", false},
		{"v9.0.0", "dev", true},
		{"dev", "v0.1.0", true},
		{"garbage\x00", "v0.1.0", true},
	} {
		if tc.written != "" {
			write(t, filepath.Join(dir, "version"), tc.written+"\n")
		}
		err := CanRead(dir, tc.current)
		if (err == nil) != tc.ok {
			t.Errorf("%s read by %s: %v", tc.written, tc.current, err)
		}
		if err != nil && !strings.Contains(err.Error(), "start "+tc.written+" or newer") {
			t.Errorf("no way out: %v", err)
		}
	}
}

func TestMarkVersion(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []string{"v0.1.0", "v0.1.0", "v0.2.0"} {
		if err := MarkVersion(dir, v); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(filepath.Join(dir, "version")); err != nil || string(data) != v+"\n" {
			t.Errorf("%q, %v", data, err)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

func TestBirthOfTheAuthority(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	born := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: born, NotAfter: born.AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.crt")
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	if got := birth(file); !got.Equal(born) {
		t.Errorf("%s", got)
	}
	write(t, file, "no certificate")
	if got := birth(file); !got.IsZero() {
		t.Errorf("%s", got)
	}
	if got := birth(filepath.Join(t.TempDir(), "none")); !got.IsZero() {
		t.Errorf("%s", got)
	}
}

func TestExistingParent(t *testing.T) {
	dir := t.TempDir()
	if got := existing(filepath.Join(dir, "a", "b")); got != dir {
		t.Errorf("%s", got)
	}
	if got := existing(dir); got != dir {
		t.Errorf("%s", got)
	}
}
