package clients

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// digests are lines that mosquitto_passwd 2.0 wrote for the password sesame.
const digests = `press-2:$7$101$sRCoytQZNhGxmPgn$+yzoYV46NcyU0NG5dBEUwegqfFM5cwJHripW+rxCdWHMd3kyibeGE01E216c4lPhs/Lb4enjHK5q3opr60VssQ==
press-3:$6$RZQavT0I7uzsf4aN$1l7xSeOGrmrpEC02Hx9lR1aScGZHbqvpP16W28JzXG4/uVmb1GBBrv6UjA6BfX0T4WA9rhsBGN94xk+NPzRYKQ==
`

func TestCredentials(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	f := &File{Path: filepath.Join(t.TempDir(), "bus.json"), Credentials: path}
	if _, err := f.Load(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a file that is not there: %v", err)
	}
	write("# who may\n\npress-1  open:sesame  oven-1 shop/oven-2\n"+digests, 0o640)
	s, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	for name, password := range map[string]string{"press-1": "open:sesame", "press-2": "sesame", "press-3": "sesame"} {
		if _, ok := s.Authenticate(name, password, false); !ok {
			t.Errorf("%s is not let in", name)
		}
		for _, wrong := range []string{"", "x", password + " ", strings.ToUpper(password)} {
			if _, ok := s.Authenticate(name, wrong, true); ok {
				t.Errorf("%s is let in with %q", name, wrong)
			}
		}
	}
	if c, ok := s.Client("press-1", false); !ok || strings.Join(c.Devices, " ") != "default/oven-1 shop/oven-2" {
		t.Errorf("%+v", c)
	}
	for text, want := range map[string]string{
		"a\n": "line 1: client a has no password", "ok x\nb/c d": "line 2: client \"b/c\"", "a $7$1$x$y": "as mosquitto_passwd writes it",
		"a $7$999999999$x$y": "the rounds of the digest", "a $6$$$$$": "not complete",
	} {
		write(text, 0o600)
		if _, err := f.Load(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	write("a b\n", 0o644)
	if _, err := f.Load(); err == nil || !strings.Contains(err.Error(), "chmod o-rwx") {
		t.Errorf("a file that all may read: %v", err)
	}
}

func TestAnonymous(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(path, []byte("press-1 sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &File{Path: filepath.Join(t.TempDir(), "bus.json"), Credentials: path}
	s, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Authenticate("", "", true); ok {
		t.Error("somebody without a name was let in")
	}
	f.Anonymous = true
	if s, err = f.Load(); err != nil || !s.Somebody() {
		t.Fatal(err)
	}
	if _, ok := s.Authenticate("", "", false); ok {
		t.Error("somebody without a name was let in from far away")
	}
	if _, ok := s.Authenticate("", "", true); !ok {
		t.Error("somebody without a name on this machine was not let in")
	}
	if _, ok := s.Authenticate("press-1", "x", true); ok {
		t.Error("a wrong password was taken for none")
	}
}

func TestLogin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "login")
	for text, good := range map[string]bool{"kedge secret\n": true, "": false, "a b\nc d\n": false, digests: false} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		name, password, err := Login(path)
		if (err == nil) != good || good && (name != "kedge" || password != "secret") {
			t.Errorf("%q: %s, %s, %v", text, name, password, err)
		}
	}
}

// FuzzCredentials expects that what is taken is a list of clients that can log in or not, and nothing that costs much.
func FuzzCredentials(f *testing.F) {
	f.Add([]byte("# who may\npress-1 sesame oven-1\n" + digests))
	f.Add([]byte("a $7$1$$\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := Credentials(data)
		if err != nil {
			return
		}
		for _, c := range list[:min(len(list), 3)] {
			if !namePattern.MatchString(c.Name) || c.secret.rounds > maxRounds {
				t.Errorf("%+v", c)
			}
			if c.secret.hash == nil && !c.secret.fits(c.secret.plain) {
				t.Errorf("the password of %s does not fit", c.Name)
			}
		}
	})
}
