package dns

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	corekube "github.com/coredns/coredns/plugin/kubernetes"
	miekg "github.com/miekg/dns"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// clusterZone answers cluster names. The knowledge lives as long as the process and is shared by every rebuilt
// server, so a configuration change while the API is out of reach forgets nothing. It uses the parts of CoreDNS's
// kubernetes plugin below its setup function, because that one takes over the log of the whole process.
type clusterZone struct {
	shared *corekube.Kubernetes
}

// restClientConfig hands a finished client configuration to the kubernetes plugin.
type restClientConfig struct {
	noFile
	config *rest.Config
}

// noFile stands for the methods of a client configuration that nobody calls here.
type noFile interface {
	clientcmd.ClientConfig
}

// ClientConfig returns the configuration.
func (c restClientConfig) ClientConfig() (*rest.Config, error) { return rest.CopyConfig(c.config), nil }

func newClusterZone(domain string, config *rest.Config) (*clusterZone, error) {
	c := caddy.NewTestController("dns", "cluster "+domain)
	c.Next()
	k, err := corekube.ParseStanza(c)
	if err != nil {
		return nil, err
	}
	k.ClientConfig = restClientConfig{config: config}
	if _, _, err := k.InitKubeCache(context.Background()); err != nil {
		return nil, err
	}
	return &clusterZone{shared: k}, nil
}

// run keeps the knowledge current until ctx is done.
func (z *clusterZone) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = z.shared.APIConn.Stop() }) // it fails only when called twice
	defer stop()
	z.shared.APIConn.Run()
}

// setup is called by CoreDNS for the line of the Corefile that carries our plugin's name.
func (z *clusterZone) setup(c *caddy.Controller) error {
	c.Next()
	k, err := corekube.ParseStanza(c)
	if err != nil {
		return plugin.Error("cluster", err)
	}
	k.APIConn = z.shared.APIConn
	addPlugin(c, func(next plugin.Handler) plugin.Handler {
		if next == nil {
			next = plugin.HandlerFunc(serverFailure)
		}
		k.Next = next
		return k
	})
	return nil
}

// serverFailure ends the chain of a node without upstreams: "ask again later" is the truth, and it is quick.
func serverFailure(context.Context, miekg.ResponseWriter, *miekg.Msg) (int, error) {
	return miekg.RcodeServerFailure, nil
}

// loopGuard finds upstreams on this host that forward to this server. It asks them for a name nobody else knows and
// waits for its own question to come in. CoreDNS has the plugin loop for this, which ends the process.
type loopGuard struct {
	zone string
	mu   sync.Mutex
	seen map[string]bool
}

func newLoopGuard() *loopGuard {
	return &loopGuard{zone: strings.ToLower(rand.Text()) + ".loop.kedge.invalid.", seen: map[string]bool{}}
}

func (g *loopGuard) setup(c *caddy.Controller) error {
	addPlugin(c, func(next plugin.Handler) plugin.Handler { return guardHandler{guard: g, next: next} })
	return nil
}

// guardHandler is the guard's place in one server's plugin chain.
type guardHandler struct {
	guard *loopGuard
	next  plugin.Handler
}

// Name identifies the plugin to CoreDNS.
func (h guardHandler) Name() string { return "kedge-guard" }

// ServeDNS notes questions of the guard and passes all others on.
func (h guardHandler) ServeDNS(ctx context.Context, w miekg.ResponseWriter, r *miekg.Msg) (int, error) {
	if len(r.Question) == 1 && strings.HasSuffix(strings.ToLower(r.Question[0].Name), h.guard.zone) {
		h.guard.mu.Lock()
		h.guard.seen[strings.ToLower(r.Question[0].Name)] = true
		h.guard.mu.Unlock()
		return miekg.RcodeRefused, nil
	}
	return plugin.NextOrFailure(h.Name(), h.next, ctx, w, r)
}

// find returns those of the upstreams on this host that lead back here.
func (g *loopGuard) find(ctx context.Context, upstreams []string) []string {
	var looped []string
	for _, u := range upstreams {
		if !isLocal(u) {
			continue
		}
		name := strings.ToLower(rand.Text()) + "." + g.zone
		q := new(miekg.Msg)
		q.SetQuestion(name, miekg.TypeA)
		ask, cancel := context.WithTimeout(ctx, 2*time.Second)
		// Only the question coming back counts; the answer says nothing.
		_, _ = miekg.ExchangeContext(ask, q, net.JoinHostPort(u, "53"))
		cancel()
		g.mu.Lock()
		if g.seen[name] {
			looped = append(looped, u)
		}
		delete(g.seen, name)
		g.mu.Unlock()
	}
	return looped
}

// isLocal says whether the server at address runs on this host.
func isLocal(address string) bool {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	if a.IsLoopback() {
		return true
	}
	local, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, l := range local {
		if p, err := netip.ParsePrefix(l.String()); err == nil && p.Addr() == a {
			return true
		}
	}
	return false
}
