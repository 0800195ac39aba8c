package join_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/certs"
)

func TestJoinWithEveryKindOfToken(t *testing.T) {
	s := newSite(t)
	boot, err := s.bootstrap().Create(context.Background(), time.Hour, "")
	if err != nil {
		t.Fatal(err)
	}
	agent, server := s.token("agent-token"), s.token("node-token")
	hash, _, _ := strings.Cut(agent, "::")
	for i, token := range []string{
		agent, server, server[strings.LastIndex(server, ":")+1:], agent[strings.LastIndex(agent, ":")+1:],
		boot.ID + "." + boot.Secret, hash + "::" + boot.ID + "." + boot.Secret, " " + agent + "\n",
	} {
		m := s.machine(fmt.Sprint("n", i), token)
		m.mustStart()
		onTrust := strings.Contains(m.log.String(), "taken on trust")
		if onTrust == strings.HasPrefix(strings.TrimSpace(token), "K10") {
			t.Errorf("token %d: log %q", i, m.log.String())
		}
	}
}

func TestNodeStartsWithoutItsServer(t *testing.T) {
	s := newSite(t)
	m := s.machine("a", s.token("agent-token"))
	m.mustStart()
	s.listen.Close()
	m.cfg.Token = ""
	m.mustStart()
	wantIn(t, m.log.String(), "starting without the server", "nothing listens at "+s.listen.URL)
}

func TestNodeRenewsWithItsCertificateAlone(t *testing.T) {
	s := newSite(t)
	m := s.machine("a", s.token("agent-token"))
	before := m.mustStart()
	old, err := os.ReadFile(before.ClientKubelet.Cert)
	if err != nil {
		t.Fatal(err)
	}
	s.clock.advance(certs.LeafLife * 8 / 10)
	m.cfg.Token = ""
	if _, err := s.certs.Renew(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.listen = s.serve(s.certs.ServingAPIServer)
	after := m.mustStart()
	if renewed, err := os.ReadFile(after.ClientKubelet.Cert); err != nil || bytes.Equal(renewed, old) {
		t.Errorf("not renewed: %v", err)
	}
}

func TestNodeThatWasOffForTooLong(t *testing.T) {
	s := newSite(t)
	m := s.machine("a", s.token("agent-token"))
	m.mustStart()
	s.clock.advance(certs.LeafLife + 30*24*time.Hour)
	if _, err := s.certs.Renew(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.listen = s.serve(s.certs.ServingAPIServer)
	m.cfg.Token = ""
	wantIn(t, m.refused(), "the certificate of this node ended on", "wants a token to renew it", "--token")
	m.cfg.Token = s.token("agent-token")
	m.mustStart() // nothing else to do
}

func TestNameBelongsToAKey(t *testing.T) {
	s := newSite(t)
	first := s.machine("a", s.token("agent-token"))
	first.mustStart()
	thief := s.machine("a", s.token("node-token")) // even with the better token
	wantIn(t, thief.refused(), "node name a belongs to another machine", "kedge node readopt a", "--node-name")
	wantIn(t, s.machine("server", s.token("node-token")).refused(), "node name server belongs to another machine")
	first.mustStart()

	if err := s.identities().Readopt(context.Background(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.identities().Check(context.Background(), "a", publicKey(t, first)); err == nil {
		t.Error("the name still belongs to the old machine")
	}
	// The old machine has a valid certificate, and may not take the name back with it alone.
	problem := ask(t, first, "a", certs.KindKubeProxy, "")
	wantIn(t, problem, "token-needed")
	thief.mustStart()
	wantIn(t, ask(t, first, "a", certs.KindKubeProxy, ""), "node-name-taken")
	for m, holds := range map[*machine]bool{first: false, thief: true} {
		if err := s.identities().Check(context.Background(), "a", publicKey(t, m)); (err == nil) != holds {
			t.Errorf("holds the name: %v, %v", holds, err)
		}
	}
	if err := s.identities().Readopt(context.Background(), "zz"); err == nil {
		t.Error("a node that never was is re-adopted")
	}
}

func publicKey(t *testing.T, m *machine) any {
	t.Helper()
	own := certs.NewNodePaths(m.dir).ClientKubelet
	pair, err := tls.LoadX509KeyPair(own.Cert, own.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf.PublicKey
}

func TestNodeGetsNothingOfAnotherNode(t *testing.T) {
	s := newSite(t)
	a := s.machine("a", s.token("agent-token"))
	a.mustStart()
	s.machine("b", s.token("agent-token")).mustStart()
	for _, kind := range []certs.Kind{certs.KindClientKubelet, certs.KindServingKubelet, certs.KindKubeProxy, certs.KindController} {
		for _, token := range []string{"", s.token("agent-token")} {
			wantIn(t, ask(t, a, "b", kind, token), "not-your-own")
			wantIn(t, ask(t, a, "never-seen", kind, token), "not-your-own")
		}
	}
	wantIn(t, ask(t, a, "a", "admin", ""), "bad-request", "unknown")
	wantIn(t, ask(t, a, "a", certs.KindClientKubelet, ""), "bad-request", "for the key of the connection only")
	wantIn(t, ask(t, a, "kubernetes", certs.KindServingKubelet, ""), "not-your-own")
	wantIn(t, ask(t, s.machine("kubernetes", ""), "kubernetes", certs.KindServingKubelet, s.token("agent-token")), "bad-request")
}

// ask posts a request for a certificate for a key made up on the spot, over a connection that proves the machine's key, and
// returns the status with the answer.
func ask(t *testing.T, m *machine, node string, kind certs.Kind, token string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]any{
		"node": node, "ips": []string{"10.1.1.1"}, "kind": kind,
		"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	settings := &tls.Config{InsecureSkipVerify: true}
	paths := certs.NewNodePaths(m.dir)
	if pair, err := tls.LoadX509KeyPair(paths.ClientKubelet.Cert, paths.ClientKubelet.Key); err == nil {
		settings.Certificates = []tls.Certificate{pair}
	} else {
		pair := selfSigned(t, key)
		settings.Certificates = []tls.Certificate{pair}
	}
	r, err := http.NewRequest(http.MethodPost, m.site.listen.URL+"/v1-kedge/certificate", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.SetBasicAuth("node", token[strings.LastIndex(token, ":")+1:])
	}
	return send(t, settings, r)
}

func send(t *testing.T, settings *tls.Config, r *http.Request) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: settings, DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status + " " + string(data)
}

func selfSigned(t *testing.T, key *ecdsa.PrivateKey) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestEverythingButTwoPathsWantsCredentials(t *testing.T) {
	s := newSite(t)
	for path, want := range map[string]string{
		"/cacerts": "200 OK -----BEGIN CERTIFICATE-----", "/ping": "200 OK pong",
		"/v1-kedge/config": "401", "/v1-kedge/readyz": "401", "/v1-kedge/nothing": "404",
	} {
		r, err := http.NewRequest(http.MethodGet, s.listen.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := send(t, &tls.Config{InsecureSkipVerify: true}, r); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
	m := s.machine("a", "")
	wantIn(t, ask(t, m, "a", certs.KindClientKubelet, ""), "401", "token-needed")
	r, err := http.NewRequest(http.MethodPost, s.listen.URL+"/v1-kedge/certificate", strings.NewReader(strings.Repeat("x", 20<<10)))
	if err != nil {
		t.Fatal(err)
	}
	wantIn(t, send(t, &tls.Config{InsecureSkipVerify: true}, r), "400", "16384")
}

func TestBusyServerSaysSo(t *testing.T) {
	s := newSite(t)
	s.entered, s.gate = make(chan struct{}, 100), make(chan struct{})
	get := func() string {
		r, err := http.NewRequest(http.MethodGet, s.listen.URL+"/v1-kedge/readyz", nil)
		if err != nil {
			t.Error(err)
			return ""
		}
		r.SetBasicAuth("node", agentSecret(s))
		return send(t, &tls.Config{InsecureSkipVerify: true}, r)
	}
	var held sync.WaitGroup
	for range 20 {
		held.Go(func() { wantIn(t, get(), "200") })
	}
	for range 20 {
		<-s.entered
	}
	wantIn(t, get(), "429", "busy")
	close(s.gate)
	held.Wait()
	wantIn(t, get(), "200")
}

func TestFiftyNodesJoinAtOnce(t *testing.T) {
	s := newSite(t)
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range 50 {
		m := s.machine(fmt.Sprint("n", i), s.token("agent-token"))
		wg.Go(func() {
			if _, err := m.start(); err != nil {
				t.Errorf("node %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	t.Logf("50 nodes had their certificates after %s", time.Since(begin).Round(time.Millisecond))
}
