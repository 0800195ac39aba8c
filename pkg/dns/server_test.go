package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
	"github.com/vishvananda/netlink"

	"github.com/kedge-io/kedge/test/output"
	"github.com/kedge-io/kedge/test/plane"
)

// running is a DNS component at work in the test's network namespace.
type running struct {
	*DNS
	log  *output.Buffer
	conf string
	stop func()
}

func startDNS(t *testing.T, kubeconfig, resolvConf string) *running {
	t.Helper()
	r := &running{log: &output.Buffer{}, conf: filepath.Join(t.TempDir(), "resolv.conf")}
	if err := os.WriteFile(r.conf, []byte(resolvConf), 0o644); err != nil {
		t.Fatal(err)
	}
	d, err := New(Config{
		Kubeconfig: kubeconfig, NodeName: "n1", ClusterDomain: "cluster.local", ResolvConf: r.conf,
		Listen: []netip.Addr{netip.MustParseAddr("10.43.0.10"), netip.MustParseAddr("fd43::a")},
		Log:    slog.New(slog.NewTextHandler(r.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	d.every = 100 * time.Millisecond
	r.DNS = d
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	await(t, "the server to be ready", func() bool { return d.Ready(t.Context()) == nil })
	return r
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ask returns the answer's response code and records as text.
func ask(t *testing.T, network, server, name string, qtype uint16) (int, string) {
	t.Helper()
	q := new(miekg.Msg)
	q.SetQuestion(miekg.Fqdn(name), qtype)
	c := miekg.Client{Net: network, Timeout: 8 * time.Second}
	m, _, err := c.Exchange(q, net.JoinHostPort(server, "53"))
	if err != nil {
		return -1, err.Error()
	}
	var out []string
	for _, rr := range m.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return m.Rcode, strings.Join(out, ",")
}

func awaitAnswer(t *testing.T, name, want string) {
	t.Helper()
	await(t, name+" to be "+want, func() bool {
		_, got := ask(t, "udp", "10.43.0.10", name, miekg.TypeA)
		return got == want
	})
}

func TestServesClusterAndOutsideNames(t *testing.T) {
	if !plane.Isolated(t) {
		return
	}
	api := newSmallAPI(t)
	api.put("namespaces", namespace("default"))
	api.put("services", service("default", "kubernetes", "10.43.0.1"))
	api.put("services", service("default", "db", "None"))
	api.put("endpointslices", slice("default", "db", "db-0", "10.42.0.7"))
	outside(t, "127.0.0.9:53", "10.9.9.9")
	d := startDNS(t, api.kubeconfig(t), "nameserver 127.0.0.9\n")

	awaitAnswer(t, "kubernetes.default.svc.cluster.local", "10.43.0.1")
	awaitAnswer(t, "db-0.db.default.svc.cluster.local", "10.42.0.7")
	for _, c := range []struct {
		network, server, name string
		qtype                 uint16
		rcode                 int
		want                  string
	}{
		{"tcp", "10.43.0.10", "kubernetes.default.svc.cluster.local", miekg.TypeA, miekg.RcodeSuccess, "10.43.0.1"},
		{"udp", "fd43::a", "db.default.svc.cluster.local", miekg.TypeA, miekg.RcodeSuccess, "10.42.0.7"},
		{"udp", "10.43.0.10", "_web._tcp.kubernetes.default.svc.cluster.local", miekg.TypeSRV, miekg.RcodeSuccess, "0 100 80 kubernetes.default.svc.cluster.local."},
		{"udp", "10.43.0.10", "1.0.43.10.in-addr.arpa", miekg.TypePTR, miekg.RcodeSuccess, "kubernetes.default.svc.cluster.local."},
		{"udp", "10.43.0.10", "10-42-0-9.default.pod.cluster.local", miekg.TypeA, miekg.RcodeSuccess, "10.42.0.9"},
		{"udp", "10.43.0.10", "nothing.default.svc.cluster.local", miekg.TypeA, miekg.RcodeNameError, ""},
		{"udp", "10.43.0.10", "kubernetes.default.svc.cluster.local", miekg.TypeAAAA, miekg.RcodeSuccess, ""},
		{"udp", "10.43.0.10", "www.example.org", miekg.TypeA, miekg.RcodeSuccess, "10.9.9.9"},
	} {
		rcode, got := ask(t, c.network, c.server, c.name, c.qtype)
		if rcode != c.rcode || got != c.want {
			t.Errorf("%s %s at %s: %s %q, want %s %q", c.network, c.name, c.server,
				miekg.RcodeToString[rcode], got, miekg.RcodeToString[c.rcode], c.want)
		}
	}
	api.put("services", service("default", "later", "10.43.0.77"))
	awaitAnswer(t, "later.default.svc.cluster.local", "10.43.0.77")
	if log := d.log.String(); log != "" {
		t.Errorf("a healthy server logged:\n%s", log)
	}
	d.stop()
	if link, err := netlink.LinkByName("kedge-dns"); err != nil || len(mustAddrs(t, link)) < 2 {
		t.Errorf("the interface did not stay: %v", err)
	}
	startDNS(t, api.kubeconfig(t), "")
	awaitAnswer(t, "kubernetes.default.svc.cluster.local", "10.43.0.1")
}

func mustAddrs(t *testing.T, link netlink.Link) []netlink.Addr {
	t.Helper()
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	return addrs
}

func TestStartsWithoutAPIAndWithoutUpstream(t *testing.T) {
	if !plane.Isolated(t) {
		return
	}
	startDNS(t, writeKubeconfig(t, "http://127.0.0.1:1"), "")
	for _, name := range []string{"kubernetes.default.svc.cluster.local", "www.example.org"} {
		begin := time.Now()
		if rcode, got := ask(t, "udp", "10.43.0.10", name, miekg.TypeA); rcode != miekg.RcodeServerFailure {
			t.Errorf("%s: %s %q, want SERVFAIL", name, miekg.RcodeToString[rcode], got)
		}
		if took := time.Since(begin); took > 500*time.Millisecond {
			t.Errorf("%s took %v", name, took)
		}
	}
}

func TestCustomConfigurationIsLive(t *testing.T) {
	if !plane.Isolated(t) {
		return
	}
	api := newSmallAPI(t)
	api.put("namespaces", namespace("default"))
	api.put("services", service("default", "plc", "10.43.0.5"))
	d := startDNS(t, api.kubeconfig(t), "")
	awaitAnswer(t, "plc.default.svc.cluster.local", "10.43.0.5")

	api.put("configmaps", customMap(map[string]string{
		"a.override": "hosts {\n 10.0.0.5 camera.site\n fallthrough\n}",
		"b.server":   "factory.example {\n template IN A {\n answer \"{{ .Name }} 60 IN A 10.0.0.6\"\n }\n}",
	}))
	awaitAnswer(t, "camera.site", "10.0.0.5")
	awaitAnswer(t, "any.factory.example", "10.0.0.6")

	for text, reason := range map[string]string{"nonsense": "a.override", "rewrite nonsense": "plugin/rewrite"} {
		api.put("configmaps", customMap(map[string]string{"a.override": text}))
		event := <-api.events
		if event.Reason != "InvalidDNSConfig" || !strings.Contains(event.Message, reason) || event.Source.Host != "n1" {
			t.Errorf("event %q %q from %q, want one about %s", event.Reason, event.Message, event.Source.Host, reason)
		}
		awaitAnswer(t, "camera.site", "10.0.0.5")
		awaitAnswer(t, "plc.default.svc.cluster.local", "10.43.0.5")
	}

	outside(t, "127.0.0.9:53", "10.9.9.9")
	if err := os.WriteFile(d.conf, []byte("nameserver 127.0.0.9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	awaitAnswer(t, "www.example.org", "10.9.9.9")
	awaitAnswer(t, "camera.site", "10.0.0.5")
}

func TestUpstreamThatLoopsIsDropped(t *testing.T) {
	if !plane.Isolated(t) {
		return
	}
	back := func(w miekg.ResponseWriter, r *miekg.Msg) {
		if m, err := miekg.Exchange(r, "10.43.0.10:53"); err == nil {
			_ = w.WriteMsg(m)
		}
	}
	serve(t, "127.0.0.9:53", back)
	d := startDNS(t, writeKubeconfig(t, "http://127.0.0.1:1"), "nameserver 127.0.0.9\n")
	await(t, "the loop to be seen", func() bool { return strings.Contains(d.log.String(), "upstream=127.0.0.9") })
	await(t, "quick failure", func() bool {
		rcode, _ := ask(t, "udp", "10.43.0.10", "www.example.org", miekg.TypeA)
		return rcode == miekg.RcodeServerFailure
	})
}

// outside is a resolver that gives every name the same address.
func outside(t *testing.T, addr, ip string) {
	serve(t, addr, func(w miekg.ResponseWriter, r *miekg.Msg) {
		m := new(miekg.Msg)
		m.SetReply(r)
		m.Answer = []miekg.RR{&miekg.A{
			Hdr: miekg.RR_Header{Name: r.Question[0].Name, Rrtype: miekg.TypeA, Class: miekg.ClassINET, Ttl: 60}, A: net.ParseIP(ip),
		}}
		_ = w.WriteMsg(m)
	})
}

func serve(t *testing.T, addr string, handle miekg.HandlerFunc) {
	t.Helper()
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &miekg.Server{PacketConn: conn, Handler: handle}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
}

func TestAnotherServerOnAllAddresses(t *testing.T) {
	if !plane.Isolated(t) {
		return
	}
	outside(t, "0.0.0.0:53", "10.9.9.9")
	d, err := New(Config{
		Kubeconfig: writeKubeconfig(t, "http://127.0.0.1:1"), ClusterDomain: "cluster.local",
		Listen: []netip.Addr{netip.MustParseAddr("10.43.0.10")},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = d.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "10.43.0.10:53") || !strings.Contains(err.Error(), "another DNS server") {
		t.Errorf("error %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Kubeconfig: "/nowhere", ClusterDomain: "cluster.local", Listen: []netip.Addr{netip.MustParseAddr("10.43.0.10")}}
	for want, change := range map[string]func(*Config){
		"Kubeconfig is empty":         func(c *Config) { c.Kubeconfig = "" },
		"load dns kubeconfig":         func(*Config) {},
		"Listen is empty":             func(c *Config) { c.Listen = nil },
		`Listen "0.0.0.0"`:            func(c *Config) { c.Listen = []netip.Addr{netip.IPv4Unspecified()} },
		"ClusterDomain is empty":      func(c *Config) { c.ClusterDomain = "" },
		`ClusterDomain "a..b" is not`: func(c *Config) { c.ClusterDomain = "a..b" },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
