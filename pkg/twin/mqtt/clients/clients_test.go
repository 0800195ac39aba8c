package clients

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestClients(t *testing.T) {
	f := &File{Path: filepath.Join(t.TempDir(), "sub", "bus.json")}
	if s, err := f.Load(); err != nil || len(s.Clients) != 0 || Exposed(s.Addresses()[0]) || s.Addresses()[0] != defaultListen || s.Somebody() {
		t.Errorf("%+v, %v", s, err)
	}
	password, err := f.Add("one", []string{"default/d"})
	if err != nil {
		t.Fatal(err)
	}
	other := &File{Path: f.Path} // as another process has it
	s, err := other.Load()
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := s.Authenticate("one", password, false); !ok || len(c.Devices) != 1 {
		t.Error("the password is refused")
	}
	for _, wrong := range []string{"", password + "x", s.Clients[0].Digest} {
		if _, ok := s.Authenticate("one", wrong, true); ok {
			t.Errorf("%q is taken", wrong)
		}
	}
	if strings.Contains(s.Clients[0].Salt+s.Clients[0].Digest, password) {
		t.Error("the password is in the file")
	}
	again, err := f.Add("one", nil)
	if s, _ = f.Load(); err != nil || again == password || len(s.Clients) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, name := range []string{"", "a b", "a/b", strings.Repeat("x", 65)} {
		if _, err := f.Add(name, nil); err == nil {
			t.Errorf("client %q was added", name)
		}
	}
	for address, exposed := range map[string]bool{"127.0.0.1:1": false, "[::1]:5": false, "0.0.0.0:8883": true, "10.0.0.1:8883": true} {
		if err := f.Listen(address); err != nil {
			t.Fatal(err)
		}
		if s, _ = f.Load(); Exposed(s.Addresses()[0]) != exposed {
			t.Errorf("%s: %v", address, s.Addresses())
		}
	}
	if err := f.Listen("somewhere"); err == nil {
		t.Error("a bad address was taken")
	}
	if found, err := f.Remove("one"); !found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
	if found, err := f.Remove("one"); found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
}
