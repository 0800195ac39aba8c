package secrets

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

const (
	token = "the-secret-of-the-servers"
	keys  = "/var/lib/kedge/server/cred/encryption-config.json"
	db    = "/var/lib/kedge/server/db"
)

// report is the part of kedge secrets-encrypt status that is looked at.
type report struct {
	Enable    bool   `json:"enable"`
	Stage     string `json:"stage"`
	ActiveKey string `json:"activekey"`
	HashMatch bool   `json:"hashmatch"`
	HashError string `json:"hasherror"`
	Old       int    `json:"old"`
}

// settled waits until no change is on its way and all servers agree, and returns how things are.
func settled(l *lab.Lab, n *lab.Node, enabled bool) report {
	var r report
	l.Await("secrets encryption of "+n.Name()+" to settle", 2*time.Minute, func() error {
		r = report{}
		out, err := n.TryKedge("secrets-encrypt", "status", "-o", "json")
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			return err
		}
		if r.Enable != enabled || !r.HashMatch || r.Old > 0 || r.Stage != "start" && r.Stage != "reencrypt_finished" {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	return r
}

// secret makes a Secret.
func secret(n *lab.Node, name, value string) {
	n.Kubectl("create", "secret", "generic", name, "--from-literal=v="+value)
}

// says reports whether the Secret can be read as it was made.
func says(t *testing.T, n *lab.Node, name, value string) {
	t.Helper()
	if got := n.Kubectl("get", "secret", name, "-o", "go-template={{.data.v | base64decode}}"); got != value {
		t.Errorf("%s: Secret %s is %q, want %q", n.Name(), name, got, value)
	}
}

// stored reports whether the text is in a file below the datastore's directory.
func stored(n *lab.Node, text string) bool {
	out, _ := n.Run("grep", "-rlaF", text, db) // exit code 1 when there is none
	return strings.TrimSpace(out) != ""
}

func TestSecretsAreEncrypted(t *testing.T) {
	l := lab.New(t)
	site := l.AddSite("one")
	s1 := site.AddNode("s1", lab.Server("--disable-agent", "--token", token))
	s1.Start()
	s1.AwaitReady()
	secret(s1, "early", "EARLY-VALUE")
	if !stored(s1, "EARLY-VALUE") {
		t.Fatal("the test does not find a Secret that is stored in clear")
	}
	if out, err := s1.TryKedge("secrets-encrypt", "enable"); err == nil || !strings.Contains(err.Error()+out, "--secrets-encryption") {
		t.Errorf("%s, %v", out, err)
	}
	s1.Stop()

	s1.SetRole(lab.Server("--disable-agent", "--token", token, "--secrets-encryption"))
	s1.Start()
	s1.AwaitReady()
	before := settled(l, s1, true)
	secret(s1, "later", "LATER-VALUE")
	if stored(s1, "LATER-VALUE") {
		t.Error("a Secret is stored in clear")
	}
	key := s1.Exec("cat", keys)
	if text := s1.Exec("stat", "-c", "%a", keys); text != "600" {
		t.Errorf("the file with keys has mode %s", text)
	}
	s1.Kedge("snapshot", "save", "--name", "first-key")
	s1.Kedge("secrets-encrypt", "rotate-keys")
	if after := settled(l, s1, true); after.ActiveKey == before.ActiveKey || strings.Contains(s1.Exec("cat", keys), material(t, key)) {
		t.Errorf("the key %s is in use after its rotation: %+v", before.ActiveKey, after)
	}
	s1.Stop()
	s1.Kedge("snapshot", "restore", "first-key") // its data have the key of then
	s1.Start()
	s1.AwaitReady()
	if now := settled(l, s1, true); now.ActiveKey != before.ActiveKey {
		t.Errorf("after the restore the key is %s, want %s", now.ActiveKey, before.ActiveKey)
	}
	s1.Stop()

	s1.Exec("sh", "-c", "mv "+db+"/snapshots /var/kept && rm -rf /var/lib/kedge/* && mkdir -p "+db+" && mv /var/kept "+db+"/snapshots") // a new machine
	s1.Kedge("snapshot", "restore", "first-key", "--files")
	s1.SetRole(lab.Server("--disable-agent", "--token", token, "--cluster-init"))
	s1.Start()
	s1.AwaitReady()
	if now := settled(l, s1, true); now.ActiveKey != before.ActiveKey {
		t.Errorf("after the loss of the machine the key is %s, want %s", now.ActiveKey, before.ActiveKey)
	}
	says(t, s1, "early", "EARLY-VALUE")
	says(t, s1, "later", "LATER-VALUE")

	s2 := site.AddNode("s2", lab.Server("--disable-agent", "--server", s1.URL(), "--token", token))
	s2.Start()
	s2.AwaitReady()
	several(t, l, s1, s2)
}

// several changes the key of two servers with an etcd, and turns encryption off.
func several(t *testing.T, l *lab.Lab, s1, s2 *lab.Node) {
	before := settled(l, s2, true)
	says(t, s2, "later", "LATER-VALUE")
	s2.Kedge("secrets-encrypt", "rotate-keys")
	if after := settled(l, s1, true); after.ActiveKey == before.ActiveKey {
		t.Errorf("the key %s is in use after its rotation", before.ActiveKey)
	}
	secret(s1, "common", "COMMON-VALUE")
	says(t, s2, "common", "COMMON-VALUE")
	if one, two := s1.Exec("cat", keys), s2.Exec("cat", keys); one != two {
		t.Errorf("the servers have different keys:\n%s\n%s", one, two)
	}
	if stored(s1, "COMMON-VALUE") || stored(s2, "COMMON-VALUE") {
		t.Error("a Secret is stored in clear")
	}
	s1.Kedge("secrets-encrypt", "disable")
	settled(l, s2, false)
	if !stored(s2, "COMMON-VALUE") {
		t.Error("Secrets are still encrypted")
	}
	says(t, s2, "early", "EARLY-VALUE")
}

// material is the secret of the first key in a configuration.
func material(t *testing.T, configuration string) string {
	t.Helper()
	_, rest, ok := strings.Cut(configuration, `"secret":"`)
	key, _, ended := strings.Cut(rest, `"`)
	if !ok || !ended || len(key) < 40 {
		t.Fatalf("no key in %s", configuration)
	}
	return key
}
