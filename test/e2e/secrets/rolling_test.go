package secrets

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

// TestServersLearnTheKeyBeforeItIsUsed turns encryption on for two servers that run, one after the other.
func TestServersLearnTheKeyBeforeItIsUsed(t *testing.T) {
	l := lab.New(t)
	site := l.AddSite("one")
	s1 := site.AddNode("s1", lab.Server("--disable-agent", "--token", token, "--cluster-init"))
	s2 := site.AddNode("s2", lab.Server("--disable-agent", "--token", token, "--server", s1.URL()))
	for _, s := range []*lab.Node{s1, s2} {
		s.Start()
		s.AwaitReady()
	}
	secret(s1, "early", "EARLY-VALUE")
	s1.Stop()
	s1.SetRole(lab.Server("--disable-agent", "--token", token, "--secrets-encryption"))
	s1.Start()
	s1.AwaitReady()
	l.Await("the first server to wait for the second", 2*time.Minute, func() error {
		r := report{}
		out, err := s1.TryKedge("secrets-encrypt", "status", "-o", "json")
		if err == nil {
			err = json.Unmarshal([]byte(out), &r)
		}
		if err == nil && (r.HashMatch || !strings.Contains(r.HashError, s2.IP()+":6443 was started before secrets encryption")) {
			err = fmt.Errorf("%+v", r)
		}
		return err
	})
	secret(s1, "meanwhile", "MEANWHILE-VALUE")
	says(t, s2, "meanwhile", "MEANWHILE-VALUE") // it has no key
	s2.Stop()
	s2.Start()
	s2.AwaitReady()
	settled(l, s2, true)
	secret(s2, "later", "LATER-VALUE")
	for name, value := range map[string]string{"early": "EARLY-VALUE", "meanwhile": "MEANWHILE-VALUE", "later": "LATER-VALUE"} {
		says(t, s1, name, value)
		says(t, s2, name, value)
	}
	if stored(s1, "LATER-VALUE") {
		t.Error("a Secret is stored in clear")
	}
}
