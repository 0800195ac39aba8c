package encryption

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func must(t *testing.T) func(State, error) State {
	return func(s State, err error) State {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// run takes a state forward as the servers do, and checks at each step that what was written before can be read.
func run(t *testing.T, s State) State {
	t.Helper()
	for s.moves() {
		after, moves := s.next()
		if !moves {
			after = s.finished()
		} else if !s.Plain && !knows(after, s.Keys[0]) {
			t.Errorf("after %s nobody knows the key %s", s.Stage, s.Keys[0].Name)
		}
		if !after.Plain && !knows(s, after.Keys[0]) {
			t.Errorf("%s uses the key %s before all servers know it", after.Stage, after.Keys[0].Name)
		}
		s = after
	}
	return s
}

func knows(s State, k Key) bool {
	for _, one := range s.Keys {
		if reflect.DeepEqual(one, k) {
			return true
		}
	}
	return false
}

func TestLifeOfKeys(t *testing.T) {
	ok, now := must(t), time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	fresh := ok(first("", nil, false))
	if fresh.Plain || !fresh.Resting() || fresh.Keys[0].Type != AESCBC || fresh.prefix() != "k8s:enc:aescbc:v1:aescbckey:" {
		t.Errorf("%+v", fresh)
	}
	old := ok(first(Secretbox, nil, true))
	if !old.Plain || old.prefix() != "" {
		t.Errorf("a cluster with Secrets encrypts before all servers know the key: %+v", old)
	}
	old = run(t, old)
	if old.Plain || old.Stage != ReencryptFinished || old.prefix() != "k8s:enc:secretbox:v1:secretboxkey:" {
		t.Errorf("%+v", old)
	}
	rotated := run(t, ok(old.withKey("", now, true, false)))
	if len(rotated.Keys) != 1 || rotated.Keys[0].Name != "secretboxkey-2026-05-01T12-00-00Z" || rotated.Stage != ReencryptFinished {
		t.Errorf("%+v", rotated)
	}
	off, changed, err := rotated.wanted(false)
	if off = run(t, off); err != nil || !changed || !off.Plain || off.prefix() != "" || len(off.Keys) != 1 {
		t.Errorf("%+v %v", off, err)
	}
	if _, err := off.withKey("", now, true, true); err == nil {
		t.Error("a key was added while encryption is off")
	}
	on, changed, err := off.wanted(true)
	if on = run(t, on); err != nil || !changed || on.Plain || on.Keys[0].Name != rotated.Keys[0].Name {
		t.Errorf("%+v %v", on, err)
	}
}

func TestThreeSteps(t *testing.T) {
	ok, now := must(t), time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	s := ok(first(AESCBC, nil, false))
	if _, err := s.rotate(true); err == nil {
		t.Error("one key was rotated")
	}
	if _, err := s.reencrypt(false, false); err == nil {
		t.Error("reencrypted out of turn")
	}
	s = ok(s.withKey(AESCBC, now, false, false))
	if s.moves() || s.Stage != Prepared || s.Keys[0].Name != "aescbckey" {
		t.Errorf("%+v", s)
	}
	if _, err := s.withKey(AESCBC, now.Add(time.Second), false, false); err == nil {
		t.Error("prepared twice")
	}
	if _, _, err := s.wanted(false); err == nil {
		t.Error("disabled in the middle of a change")
	}
	s = ok(s.rotate(false))
	if s.moves() || s.Stage != Rotated || s.Keys[1].Name != "aescbckey" {
		t.Errorf("%+v", s)
	}
	if kept := run(t, ok(s.reencrypt(false, true))); len(kept.Keys) != 2 {
		t.Errorf("%+v", kept)
	}
	if s = run(t, ok(s.reencrypt(false, false))); len(s.Keys) != 1 || s.Stage != ReencryptFinished {
		t.Errorf("%+v", s)
	}
}

func TestConfigurationIsReadAgain(t *testing.T) {
	s := State{Enabled: true, Stage: Start, Keys: []Key{{Secretbox, "b", bytes.Repeat([]byte{2}, 32)}, {AESCBC, "a", bytes.Repeat([]byte{1}, 32)}}}
	data, err := s.Configuration()
	if err != nil || !strings.HasSuffix(string(data), `{"identity":{}}]}]}`) || !strings.HasPrefix(string(data), `{"kind":"EncryptionConfiguration","apiVersion":"apiserver.config.k8s.io/v1"`) {
		t.Errorf("%s %v", data, err)
	}
	if keys, err := keysOf(data); err != nil || !reflect.DeepEqual(keys, s.Keys) {
		t.Errorf("%+v %v", keys, err)
	}
	s.Plain = true
	if data, err = s.Configuration(); err != nil || !strings.Contains(string(data), `"providers":[{"identity":{}},{"secretbox"`) {
		t.Errorf("%s %v", data, err)
	}
	if _, err := keysOf([]byte(`{"resources":[{"providers":[{"aescbc":{"keys":[{"name":"a","secret":"?"}]}}]}]}`)); err == nil {
		t.Error("a broken key was read")
	}
}

func TestSeal(t *testing.T) {
	box, err := sealer([]byte("authority"))
	if err != nil {
		t.Fatal(err)
	}
	s := must(t)(first("", nil, false))
	sealed, err := enclose(box, s)
	if err != nil || bytes.Contains(sealed, s.Keys[0].Secret) || bytes.Contains(sealed, []byte("aescbckey")) {
		t.Fatalf("%q %v", sealed, err)
	}
	if got, err := disclose(box, sealed); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%+v %v", got, err)
	}
	other, err := sealer([]byte("another"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disclose(other, sealed); err == nil || !strings.Contains(err.Error(), "another authority") {
		t.Errorf("%v", err)
	}
	if _, err := disclose(box, sealed[:5]); err == nil {
		t.Error("half a state was read")
	}
}

func TestFindHash(t *testing.T) {
	metrics := "# TYPE x gauge\nother 1\n" + metricLoaded + `{apiserver_id_hash="sha256:aa",hash="sha256:bb"} 1` + "\nlast 2\n"
	if got, err := findHash(strings.NewReader(metrics)); err != nil || got != "sha256:bb" {
		t.Errorf("%q %v", got, err)
	}
	if got, err := findHash(strings.NewReader("other 1\n")); err != nil || got != "" {
		t.Errorf("%q %v", got, err)
	}
}

func TestMissingServer(t *testing.T) {
	node := func(name, address string) corev1.Node {
		return corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}}}
	}
	one, two, three := node("s1", "10.0.0.1"), node("s2", "10.0.0.2"), node("s3", "fd00::3")
	for name, c := range map[string]struct {
		found []string
		nodes []corev1.Node
		want  string
	}{
		"all":                          {[]string{"10.0.0.1:6443", "10.0.0.2:6443", "[fd00::3]:6443"}, []corev1.Node{one, two, three}, ""},
		"one is off":                   {[]string{"10.0.0.1:6443", "[fd00::3]:6443"}, []corev1.Node{one, two, three}, "s2"},
		"IPv6 is off":                  {[]string{"10.0.0.1:6443", "10.0.0.2:6443"}, []corev1.Node{one, two, three}, "s3"},
		"a server without a node":      {[]string{"10.0.0.1:6443", "10.0.0.9:6443"}, []corev1.Node{one}, ""},
		"alone, at another address":    {[]string{"203.0.113.1:6443"}, []corev1.Node{one}, ""},
		"addresses are other than API": {[]string{"203.0.113.1:6443", "203.0.113.2:6443"}, []corev1.Node{one, two}, ""},
	} {
		if got := missing(c.found, c.nodes); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestMissingMember(t *testing.T) {
	hosts := []string{"10.0.0.1", "10.0.0.2", "fd00::3"}
	if got := missingHost([]string{"10.0.0.2:6443"}, hosts[:2]); got != "10.0.0.1" {
		t.Errorf("%q", got)
	}
	if got := missingHost([]string{"10.0.0.1:6443", "10.0.0.2:6443"}, hosts); got != "fd00::3" {
		t.Errorf("%q", got)
	}
	if got := missingHost([]string{"10.0.0.1:6443", "10.0.0.2:6443", "[fd00::3]:6443"}, hosts); got != "" {
		t.Errorf("%q", got)
	}
}
