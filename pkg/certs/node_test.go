package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/golden"
)

func nodeConfig(t *testing.T, s *Server, dataDir string) NodeConfig {
	t.Helper()
	node := NodeIdentity{Name: "edge1", IPs: []net.IP{net.IPv4(192, 168, 7, 2)}}
	signer, err := s.NodeSigner(node)
	if err != nil {
		t.Fatal(err)
	}
	serverCA, clientCA, err := s.CABundles()
	if err != nil {
		t.Fatal(err)
	}
	return NodeConfig{DataDir: dataDir, NodeName: node.Name, NodeIPs: node.IPs, ServerURL: "https://127.0.0.1:6443",
		ServerCA: serverCA, ClientCA: clientCA, Signer: signer}
}

type brokenSigner struct{}

func (brokenSigner) Sign(context.Context, []byte, Kind) ([]byte, error) {
	return nil, errors.New("server is far away")
}

func TestEnsureNodeMakesEverythingOnce(t *testing.T) {
	s := ensureServer(t, serverConfig(t.TempDir()))
	cfg := nodeConfig(t, s, t.TempDir())
	n, err := EnsureNode(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	first := snapshot(t, cfg.DataDir)
	if _, err := EnsureNode(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if got := changedFiles(first, snapshot(t, cfg.DataDir)); len(got) > 0 {
		t.Errorf("a second start changed %v", got)
	}
	for pair, want := range map[KeyPair]string{
		n.ClientKubelet:  "CN=system:node:edge1,O=system:nodes",
		n.ServingKubelet: "CN=system:node:edge1,O=system:nodes",
		n.KubeProxy:      "CN=system:kube-proxy",
		n.Controller:     "CN=system:kedge-controller:edge1,O=system:kedge-controllers",
	} {
		loaded, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := loaded.Leaf.Subject.String(); got != want {
			t.Errorf("%s names %s, want %s", pair.Cert, got, want)
		}
		if info, err := os.Stat(pair.Key); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", pair.Key, info.Mode(), err)
		}
	}
	golden.Check(t, "kubelet.kubeconfig", strings.ReplaceAll(first["agent/kubelet.kubeconfig"], cfg.DataDir, "/var/lib/kedge"))
}

func TestNodeStartsWithoutItsServer(t *testing.T) {
	s := ensureServer(t, serverConfig(t.TempDir()))
	cfg := nodeConfig(t, s, t.TempDir())
	if _, err := EnsureNode(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, cfg.DataDir)
	away := cfg
	away.ServerCA, away.ClientCA, away.Signer = nil, nil, brokenSigner{}
	for name, change := range map[string]func(*NodeConfig){
		"nothing new":   func(*NodeConfig) {},
		"renewal due":   func(c *NodeConfig) { c.Clock = func() time.Time { return time.Now().Add(LeafLife * 3 / 4) } },
		"other address": func(c *NodeConfig) { c.NodeIPs = []net.IP{net.IPv4(192, 168, 7, 9)} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := away
			change(&cfg)
			if _, err := EnsureNode(t.Context(), cfg); err != nil {
				t.Error(err)
			}
			if got := changedFiles(before, snapshot(t, cfg.DataDir)); len(got) > 0 {
				t.Errorf("changed %v", got)
			}
		})
	}
	for name, change := range map[string]func(*NodeConfig){
		"ended":      func(c *NodeConfig) { c.Clock = func() time.Time { return time.Now().Add(LeafLife * 2) } },
		"other name": func(c *NodeConfig) { c.NodeName = "edge2" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := away
			change(&cfg)
			if _, err := EnsureNode(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "server is far away") {
				t.Errorf("got %v", err)
			}
		})
	}
	fresh := away
	fresh.DataDir = t.TempDir()
	if _, err := EnsureNode(t.Context(), fresh); err == nil || !strings.Contains(err.Error(), "join the server once") {
		t.Errorf("fresh node: got %v", err)
	}
}

func TestRenewedNodeKeepsItsKey(t *testing.T) {
	clock := time.Now()
	serverCfg := serverConfig(t.TempDir())
	serverCfg.Clock = func() time.Time { return clock }
	s := ensureServer(t, serverCfg)
	cfg := nodeConfig(t, s, t.TempDir())
	cfg.Clock = serverCfg.Clock
	n, err := EnsureNode(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, cfg.DataDir)
	clock = clock.Add(2 * LeafLife) // powered off past the end
	changed, err := n.Renew(t.Context())
	if err != nil || len(changed) != 4 {
		t.Fatalf("renewed %v, %v", changed, err)
	}
	for _, name := range changedFiles(before, snapshot(t, cfg.DataDir)) {
		if filepath.Ext(name) != ".crt" {
			t.Errorf("%s changed", name)
		}
	}
}

func TestSignerTakesNothingFromTheRequest(t *testing.T) {
	s := ensureServer(t, serverConfig(t.TempDir()))
	signer, err := s.NodeSigner(NodeIdentity{Name: "edge7", IPs: []net.IP{net.IPv4(192, 168, 7, 7)}})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	greedy := &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: "system:admin", Organization: []string{"system:masters"}},
		DNSNames:    []string{"kubernetes"},
		IPAddresses: []net.IP{net.IPv4(10, 43, 0, 1)},
	}
	for kind, want := range map[Kind]profile{
		KindClientKubelet:  {commonName: "system:node:edge7", usage: x509.ExtKeyUsageClientAuth},
		KindServingKubelet: {commonName: "system:node:edge7", names: []string{"edge7"}, ips: []net.IP{net.IPv4(192, 168, 7, 7)}, usage: x509.ExtKeyUsageServerAuth},
		KindKubeProxy:      {commonName: "system:kube-proxy", usage: x509.ExtKeyUsageClientAuth},
		KindController:     {commonName: "system:kedge-controller:edge7", usage: x509.ExtKeyUsageClientAuth},
	} {
		data, err := signer.Sign(t.Context(), csr(t, greedy, key), kind)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := parseCerts(data)
		if err != nil {
			t.Fatal(err)
		}
		cert := chain[0]
		if cert.Subject.CommonName != want.commonName || slices.Contains(cert.Subject.Organization, "system:masters") || cert.IsCA ||
			!sameSet(cert.DNSNames, want.names) || !sameSet(ipStrings(cert.IPAddresses), ipStrings(want.ips)) ||
			!slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{want.usage}) {
			t.Errorf("%s: %s %v %v %v", kind, cert.Subject, cert.DNSNames, cert.IPAddresses, cert.ExtKeyUsage)
		}
	}
	if _, err := signer.Sign(t.Context(), csr(t, greedy, key), "client-admin"); err == nil || !strings.Contains(err.Error(), "unknown") {
		t.Errorf("client-admin: got %v", err)
	}
}

func csr(t *testing.T, request *x509.CertificateRequest, key any) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, request, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestBadRequestsAreRefused(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good := csr(t, &x509.CertificateRequest{}, key)
	forged, _ := pem.Decode(good)
	forged.Bytes[len(forged.Bytes)-3] ^= 0xff
	for want, data := range map[string][]byte{
		"not PEM":       []byte("rubbish"),
		"hold its key":  pem.EncodeToMemory(forged),
		"2048 bits":     csr(t, &x509.CertificateRequest{}, weak),
		"of type CERTI": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: forged.Bytes}),
	} {
		if _, err := parseRequest(data); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	if _, err := parseRequest(good); err != nil {
		t.Error(err)
	}
}

func TestNodeCannotPoseAsTheServer(t *testing.T) {
	s := ensureServer(t, serverConfig(t.TempDir()))
	for _, tc := range []struct {
		name, ip, problem string
	}{
		{"edge1", "192.168.7.2", ""}, // the server's own node
		{"edge2", "192.168.7.9", ""},
		{"edge2", "192.168.7.2", "belongs to the server"},
		{"edge2", "10.43.0.1", "belongs to the server"},
		{"kubernetes", "192.168.7.9", "belongs to the server"},
		{"kubernetes.default.svc", "192.168.7.9", "belongs to the server"},
		{"localhost", "192.168.7.9", "belongs to the server"},
		{"edge2", "127.0.0.1", "cannot be a node's"},
		{"edge1", "::1", "cannot be a node's"},
		{"edge2", "0.0.0.0", "cannot be a node's"},
		{"Edge2", "192.168.7.9", "lower-case"},
		{"*.svc", "192.168.7.9", "lower-case"},
		{"", "192.168.7.9", "lower-case"},
		{"a,o=system:masters", "192.168.7.9", "lower-case"},
		{strings.Repeat("a", 254), "192.168.7.9", "lower-case"},
	} {
		_, err := s.NodeSigner(NodeIdentity{Name: tc.name, IPs: []net.IP{net.ParseIP(tc.ip)}})
		if tc.problem == "" && err != nil || tc.problem != "" && (err == nil || !strings.Contains(err.Error(), tc.problem)) {
			t.Errorf("%s %s: got %v, want %q", tc.name, tc.ip, err, tc.problem)
		}
	}
}

func TestNodeRefusesAWrongAnswer(t *testing.T) {
	s := ensureServer(t, serverConfig(t.TempDir()))
	other := ensureServer(t, serverConfig(t.TempDir()))
	cfg := nodeConfig(t, s, t.TempDir())
	foreign, err := other.NodeSigner(NodeIdentity{Name: "edge1"})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Signer = foreign
	if _, err := EnsureNode(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "another authority") {
		t.Errorf("foreign signer: got %v", err)
	}
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	s := ensureServer(t, serverConfig(dir))
	if _, err := EnsureNode(t.Context(), nodeConfig(t, s, dir)); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "agent", "broken.crt"), "x")
	infos, err := List(dir)
	if err != nil || len(infos) != 10+7 {
		t.Fatalf("%d certificates, %v", len(infos), err)
	}
	for _, info := range infos {
		if (info.Problem != "") != (info.Name == "broken") || info.Problem == "" && info.RenewAt.IsZero() != info.Authority {
			t.Errorf("%+v", info)
		}
	}
	if infos, err := List(t.TempDir()); len(infos) != 0 || err != nil {
		t.Errorf("empty directory: %v %v", infos, err)
	}
}
