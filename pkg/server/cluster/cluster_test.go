package cluster

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/config"
)

func TestOnlyTheTokenOpens(t *testing.T) {
	data := []byte("keys of the cluster")
	sealed, err := lock(data, "secret")
	if err != nil || bytes.Contains(sealed, data) {
		t.Fatal(err)
	}
	if got, err := unlock(sealed, "secret"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := unlock(sealed, "Secret"); !errors.Is(err, errSealed) {
		t.Error(err)
	}
	for _, i := range []int{1, len(sealed) / 2, len(sealed) - 1} {
		bad := slices.Clone(sealed)
		bad[i] ^= 1
		if _, err := unlock(bad, "secret"); !errors.Is(err, errSealed) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	for _, bad := range [][]byte{nil, {2}, sealed[:20]} {
		if _, err := unlock(bad, "secret"); err == nil {
			t.Errorf("%d bytes were opened", len(bad))
		}
	}
}

func server(t *testing.T, dir string) config.Server {
	t.Helper()
	return config.Server{Agent: config.Agent{DataDir: dir, NodeName: "s1"}, ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}}
}

func TestServersShareTheirAuthorities(t *testing.T) {
	first, second := server(t, t.TempDir()), server(t, t.TempDir())
	ensure := func(cfg config.Server) {
		t.Helper()
		if _, err := certs.EnsureServer(certs.ServerConfig{
			DataDir: cfg.DataDir, APIServerURL: "https://127.0.0.1:6443", PeerIPs: []net.IP{net.IPv4(127, 0, 0, 1)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	ensure(first)
	m, err := collect(first)
	if err != nil {
		t.Fatal(err)
	}
	m.Files["../../etc/passwd"] = []byte("nothing")
	if err := m.put(second.DataDir); err != nil {
		t.Fatal(err)
	}
	if err := m.put(second.DataDir); err != nil {
		t.Errorf("a second time: %v", err)
	}
	ensure(second)
	for _, path := range certs.NewServerPaths("/").Shared() {
		a, errA := os.ReadFile(filepath.Join(first.DataDir, path))
		b, errB := os.ReadFile(filepath.Join(second.DataDir, path))
		info, errC := os.Stat(filepath.Join(second.DataDir, path))
		if err := errors.Join(errA, errB, errC); err != nil || !bytes.Equal(a, b) || strings.HasSuffix(path, ".key") && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", path, err)
		}
	}
	third := server(t, t.TempDir())
	ensure(third)
	if err := m.put(third.DataDir); err == nil || !strings.Contains(err.Error(), "a cluster of its own") {
		t.Error(err)
	}
	third.ClusterCIDRs = []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}
	if err := m.differs(third); err == nil || !strings.Contains(err.Error(), `--cluster-cidr is "10.99.0.0/16" here and "10.42.0.0/16"`) {
		t.Error(err)
	}
}

func TestServerThatHasDataDoesNotJoin(t *testing.T) {
	cfg := server(t, t.TempDir())
	cfg.Servers = []string{"https://127.0.0.1:1"}
	log := slog.New(slog.DiscardHandler)
	for _, c := range []struct{ token, want string }{
		{"", "--token is not set"}, {"abcdef.0123456789abcdef", "are for agents"}, {"K10" + strings.Repeat("0", 64) + "::node:x", "agent token"},
	} {
		cfg.Token = c.token
		if _, err := Prepare(t.Context(), cfg, log); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.token, err)
		}
	}
	if err := os.MkdirAll(dbDir(cfg.DataDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dbDir(cfg.DataDir), "state.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Prepare(t.Context(), cfg, log); err == nil || !strings.Contains(err.Error(), "--cluster-init") {
		t.Error(err)
	}
}

func TestCompare(t *testing.T) {
	added, gone := compare([]string{"a", "b"}, []string{"b", "c"})
	if !slices.Equal(added, []string{"c"}) || !slices.Equal(gone, []string{"a"}) {
		t.Errorf("%v, %v", added, gone)
	}
}

func TestLeaderTimes(t *testing.T) {
	for text, want := range map[string]Times{
		"":                                    {30 * time.Second, 20 * time.Second, 4 * time.Second},
		"v=2 leader-elect-lease-duration=15s": {15 * time.Second, 10 * time.Second, 2 * time.Second},
		"--leader-elect-lease-duration=15s leader-elect-renew-deadline=12s leader-elect-retry-period=1s leader-elect-resource-name=x": {15 * time.Second, 12 * time.Second, time.Second},
	} {
		if got, err := LeaderTimes(strings.Fields(text)); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{
		"leader-elect-lease-duration=15", "leader-elect-lease-duration", "leader-elect-lease-duration=500ms", "leader-elect-renew-deadline=40s",
		"leader-elect-retry-period=20s", "leader-elect-retry-period=-1s",
	} {
		if got, err := LeaderTimes([]string{bad}); err == nil || !strings.Contains(err.Error(), "leader-elect-") {
			t.Errorf("%s: %v, %v", bad, got, err)
		}
	}
}
