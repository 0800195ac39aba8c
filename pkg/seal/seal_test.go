package seal

import (
	"bytes"
	"errors"
	"testing"
)

func TestBox(t *testing.T) {
	box, err := Derive([]byte("authority"), "tokens")
	if err != nil {
		t.Fatal(err)
	}
	plain := []byte("hush")
	sealed := box.Seal(plain, "/kedge/tokens")
	if got, err := box.Open(sealed, "/kedge/tokens"); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("opened: %q, %v", got, err)
	}
	if bytes.Contains(sealed, plain) || bytes.Equal(sealed, box.Seal(plain, "/kedge/tokens")) {
		t.Error("what is sealed shows, or repeats")
	}
	changed := bytes.Clone(sealed)
	changed[len(changed)/2] ^= 1
	for what, value := range map[string][]byte{"changed": changed, "cut short": sealed[:5], "nothing": nil} {
		if _, err := box.Open(value, "/kedge/tokens"); !errors.Is(err, ErrOther) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := box.Open(sealed, "/kedge/other"); !errors.Is(err, ErrOther) {
		t.Errorf("at another place: %v", err)
	}
	for _, other := range [][2]string{{"authority", "secrets"}, {"another", "tokens"}} {
		b, err := Derive([]byte(other[0]), other[1])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Open(sealed, "/kedge/tokens"); !errors.Is(err, ErrOther) {
			t.Errorf("%v: %v", other, err)
		}
	}
	if _, err := New(make([]byte, 16)); err == nil {
		t.Error("a short key is taken")
	}
}
