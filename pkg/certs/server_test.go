package certs

import (
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/golden"
)

const killedChild = "KEDGE_TEST_CERTS_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killedChild); dir != "" {
		if _, err := EnsureServer(serverConfig(dir)); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serverConfig(dataDir string) ServerConfig {
	return ServerConfig{
		DataDir:      dataDir,
		APIServerURL: "https://127.0.0.1:6443",
		ServiceIPs:   []net.IP{net.IPv4(10, 43, 0, 1)},
		ServingNames: []string{"edge1"},
		ServingIPs:   []net.IP{net.IPv4(192, 168, 7, 2), net.IPv4(127, 0, 0, 1)},
		NodeName:     "edge1",
	}
}

func ensureServer(t *testing.T, cfg ServerConfig) *Server {
	t.Helper()
	s, err := EnsureServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// snapshot maps every file below dir to its content.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		out[strings.TrimPrefix(path, dir+"/")] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func changedFiles(before, after map[string]string) []string {
	var out []string
	for name, data := range after {
		if before[name] != data {
			out = append(out, name)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			out = append(out, name+" removed")
		}
	}
	slices.Sort(out)
	return out
}

func TestEnsureServerMakesEverythingOnce(t *testing.T) {
	cfg := serverConfig(t.TempDir())
	cfg.Kubeconfig = UserKubeconfig{Path: filepath.Join(cfg.DataDir, "etc", "kedge.yaml"), Mode: 0o640}
	ensureServer(t, cfg)
	first := snapshot(t, cfg.DataDir)
	ensureServer(t, cfg)
	if got := changedFiles(first, snapshot(t, cfg.DataDir)); len(got) > 0 {
		t.Errorf("a second start changed %v", got)
	}
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range first {
			info, err := os.Stat(filepath.Join(cfg.DataDir, name))
			if err != nil {
				t.Fatal(err)
			}
			if !yield(name + " " + info.Mode().String()) {
				return
			}
		}
	})
	golden.Check(t, "server-files.txt", strings.Join(names, "\n")+"\n")
	golden.Check(t, "controller.kubeconfig", strings.ReplaceAll(first["server/cred/controller.kubeconfig"], cfg.DataDir, "/var/lib/kedge"))
}

func TestServingAndClientCertificatesWorkOverTLS(t *testing.T) {
	s := ensureServer(t, serverConfig(t.TempDir()))
	serving, err := tls.LoadX509KeyPair(s.ServingAPIServer.Cert, s.ServingAPIServer.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots, clients := x509.NewCertPool(), x509.NewCertPool()
	serverCA, clientCA, err := s.CABundles()
	if err != nil || !roots.AppendCertsFromPEM(serverCA) || !clients.AppendCertsFromPEM(clientCA) {
		t.Fatalf("bundles: %v", err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		subject := r.TLS.PeerCertificates[0].Subject
		_, _ = w.Write([]byte(subject.CommonName + " " + strings.Join(subject.Organization, ",")))
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{serving}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	server.StartTLS()
	defer server.Close()
	for _, tc := range []struct {
		pair KeyPair
		want string
	}{
		{s.KubeletClient, "system:kube-apiserver "},
		{s.Admin, "system:admin system:masters"},
		{s.Controller, "system:kube-controller-manager "},
		{s.Scheduler, "system:kube-scheduler "},
		{s.Supervisor, "system:kedge-supervisor system:masters"},
	} {
		for _, name := range []string{"kubernetes.default.svc.cluster.local", "edge1", "localhost", "10.43.0.1", "192.168.7.2", "::1"} {
			cert, err := tls.LoadX509KeyPair(tc.pair.Cert, tc.pair.Key)
			if err != nil {
				t.Fatal(err)
			}
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
				TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, ServerName: name}}}
			if got := get(t, client, server.URL); got != tc.want {
				t.Errorf("%s via %s: got %q, want %q", tc.pair.Cert, name, got, tc.want)
			}
		}
	}
}

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	data := make([]byte, 200)
	n, _ := resp.Body.Read(data)
	return string(data[:n])
}

func TestDamageToLeavesIsMended(t *testing.T) {
	for name, damage := range map[string]struct {
		do   func(t *testing.T, s *Server)
		want []string
	}{
		"certificate lost": {func(t *testing.T, s *Server) { remove(t, s.Scheduler.Cert) }, []string{"server/tls/client-scheduler.crt"}},
		"key lost": {func(t *testing.T, s *Server) { remove(t, s.Scheduler.Key) },
			[]string{"server/tls/client-scheduler.crt", "server/tls/client-scheduler.key"}},
		"key is rubbish": {func(t *testing.T, s *Server) { put(t, s.Scheduler.Key, "x") },
			[]string{"server/tls/client-scheduler.crt", "server/tls/client-scheduler.key"}},
		"certificate cut short":  {func(t *testing.T, s *Server) { truncate(t, s.Scheduler.Cert) }, []string{"server/tls/client-scheduler.crt"}},
		"certificate of another": {func(t *testing.T, s *Server) { copyFile(t, s.Controller.Cert, s.Scheduler.Cert) }, []string{"server/tls/client-scheduler.crt"}},
		"kubeconfig emptied":     {func(t *testing.T, s *Server) { put(t, s.SchedulerKubeconfig, "") }, nil},
		"leftover of a killed kedge": {func(t *testing.T, s *Server) {
			put(t, filepath.Join(filepath.Dir(s.ServiceKey), tempPrefix+"1"), "half")
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := serverConfig(t.TempDir())
			s := ensureServer(t, cfg)
			before := snapshot(t, cfg.DataDir)
			damage.do(t, s)
			ensureServer(t, cfg)
			after := snapshot(t, cfg.DataDir)
			if got := changedFiles(before, after); !slices.Equal(got, damage.want) {
				t.Errorf("changed %v, want %v", got, damage.want)
			}
			if _, err := tls.LoadX509KeyPair(s.Scheduler.Cert, s.Scheduler.Key); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDamagedAuthorityIsNeverReplaced(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, s *Server) (file string){
		"certificate lost": func(t *testing.T, s *Server) string { return remove(t, s.ServerCA.Cert) },
		"key lost":         func(t *testing.T, s *Server) string { return remove(t, s.ClientCA.Key) },
		"both lost":        func(t *testing.T, s *Server) string { remove(t, s.ClientCA.Key); return remove(t, s.ClientCA.Cert) },
		"cut short":        func(t *testing.T, s *Server) string { return truncate(t, s.RequestHeaderCA.Cert) },
		"other key":        func(t *testing.T, s *Server) string { return copyFile(t, s.ClientCA.Key, s.ServerCA.Key) },
		"a leaf instead": func(t *testing.T, s *Server) string {
			copyFile(t, s.Admin.Key, s.ServerCA.Key)
			return copyFile(t, s.Admin.Cert, s.ServerCA.Cert)
		},
		"service key lost":  func(t *testing.T, s *Server) string { return remove(t, s.ServiceKey) },
		"service key wrong": func(t *testing.T, s *Server) string { return put(t, s.ServiceKey, "rubbish") },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := serverConfig(t.TempDir())
			file := damage(t, ensureServer(t, cfg))
			before := snapshot(t, cfg.DataDir)
			_, err := EnsureServer(cfg)
			if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "restore server/tls from a backup") {
				t.Errorf("error %v must name %s and the way back", err, file)
			}
			if got := changedFiles(before, snapshot(t, cfg.DataDir)); len(got) > 0 {
				t.Errorf("changed %v", got)
			}
		})
	}
}

func TestDatabaseWithoutAuthorityIsAnError(t *testing.T) {
	cfg := serverConfig(t.TempDir())
	if err := os.MkdirAll(filepath.Join(cfg.DataDir, "server", "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(cfg.DataDir, "server", "db", "state.db"), "rows")
	if _, err := EnsureServer(cfg); err == nil {
		t.Error("an authority was made beside an existing database")
	}
}

func TestChangesReissueInPlace(t *testing.T) {
	cfg := serverConfig(t.TempDir())
	cfg.Kubeconfig = UserKubeconfig{Path: filepath.Join(cfg.DataDir, "kedge.yaml")}
	s := ensureServer(t, cfg)
	before := snapshot(t, cfg.DataDir)

	s.SetAddresses([]string{"edge1", "site.example"}, []net.IP{net.IPv4(192, 168, 7, 3)})
	changed, err := s.Renew(t.Context())
	if err != nil || !slices.Equal(changed, []string{"serving-kube-apiserver.crt"}) {
		t.Errorf("new addresses: %v %v", changed, err)
	}
	chain, err := readCerts(s.ServingAPIServer.Cert)
	if err != nil || chain[0].VerifyHostname("site.example") != nil || chain[0].VerifyHostname("192.168.7.3") != nil || chain[0].VerifyHostname("192.168.7.2") == nil {
		t.Errorf("new certificate: %v %v %v", err, chain[0].DNSNames, chain[0].IPAddresses)
	}

	cfg.ServingNames, cfg.ServingIPs = []string{"edge1", "site.example"}, []net.IP{net.IPv4(192, 168, 7, 3)}
	cfg.Clock = func() time.Time { return time.Now().Add(LeafLife * 3 / 4) }
	ensureServer(t, cfg)
	got := changedFiles(before, snapshot(t, cfg.DataDir))
	want := []string{"kedge.yaml", "server/tls/client-admin.crt", "server/tls/client-auth-proxy.crt", "server/tls/client-controller.crt",
		"server/tls/client-kube-apiserver.crt", "server/tls/client-scheduler.crt", "server/tls/client-supervisor.crt", "server/tls/serving-kube-apiserver.crt"}
	if !slices.Equal(got, want) {
		t.Errorf("after three quarters of a life changed\n%v, want\n%v", got, want)
	}
}

func TestEndedAuthorityIsNamed(t *testing.T) {
	cfg := serverConfig(t.TempDir())
	s := ensureServer(t, cfg)
	cfg.Clock = func() time.Time { return time.Now().Add(AuthorityLife + 24*time.Hour) }
	if _, err := EnsureServer(cfg); err == nil || !strings.Contains(err.Error(), s.ServerCA.Cert+" ended on") {
		t.Errorf("got %v", err)
	}
}

// TestKilledAtAnyMoment kills a first start at random moments; the next start must succeed and the one after change nothing.
func TestKilledAtAnyMoment(t *testing.T) {
	kills, done := 0, 0
	for round := range 40 {
		cfg := serverConfig(filepath.Join(t.TempDir(), "data"))
		for range 2 {
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), killedChild+"="+cfg.DataDir)
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			killer := time.AfterFunc(time.Duration(rand.IntN(40_000))*time.Microsecond, func() { _ = child.Process.Kill() })
			if child.Wait() == nil {
				done++
			} else {
				kills++
			}
			killer.Stop()
		}
		ensureServer(t, cfg)
		before := snapshot(t, cfg.DataDir)
		ensureServer(t, cfg)
		if got := changedFiles(before, snapshot(t, cfg.DataDir)); len(got) > 0 {
			t.Fatalf("round %d: a second start changed %v", round, got)
		}
	}
	t.Logf("%d children killed, %d ran to the end", kills, done)
}

func TestBadServerConfig(t *testing.T) {
	for want, cfg := range map[string]ServerConfig{
		"data-dir":               {APIServerURL: "https://127.0.0.1:6443"},
		"https://127.0.0.1":      {DataDir: t.TempDir(), APIServerURL: "127.0.0.1:6443"},
		"write-kubeconfig-group": {DataDir: t.TempDir(), APIServerURL: "https://127.0.0.1:6443", Kubeconfig: UserKubeconfig{Path: filepath.Join(t.TempDir(), "k"), Group: "no-such-group"}},
	} {
		if _, err := EnsureServer(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

func remove(t *testing.T, path string) string {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func put(t *testing.T, path, data string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func truncate(t *testing.T, path string) string {
	t.Helper()
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	return path
}

func copyFile(t *testing.T, from, to string) string {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	return put(t, to, string(data))
}
