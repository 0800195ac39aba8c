// Package autonomy is the node API: one endpoint on every node that the node's parts, its pods and its operator use instead of the server. While
// the server can be reached it shares one watch for each resource among them and passes everything else on; while it cannot, the node goes on with
// what it knows, over restarts of kedge and of the machine.
// It is a feature: agent wires it. Packages below it that are not its own rooms, such as health, do not import it.
package autonomy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kedge-io/kedge/pkg/autonomy/cache"
	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/identity"
	"github.com/kedge-io/kedge/pkg/autonomy/link"
	"github.com/kedge-io/kedge/pkg/autonomy/proxy"
	"github.com/kedge-io/kedge/pkg/certs"
)

// Ports of the node API.
const (
	// Port is served with TLS, on loopback and on the node's addresses, there for this machine and its pods only.
	Port = 6445
	// PlainPort is served without, on loopback, to read only.
	PlainPort = 10550
)

// URL is where the node's parts find the node API.
func URL() string { return "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(Port)) }

// Config is what the node API needs to know.
type Config struct {
	DataDir  string
	NodeName string
	NodeIPs  []netip.Addr
	// Server is the URL of the way to the server. With ServerHere, the server is started by the same process.
	Server     string
	ServerHere bool
	// Reach, when set, says at little cost whether there is any use in asking the server.
	Reach func(context.Context) error
	// Alone says that no server answered a moment ago: nothing waits for one.
	Alone bool
	// ServiceIPs are the addresses of the Service kubernetes, ClusterDomain is where its name lives, PodCIDRs are where pods come from.
	ServiceIPs    []netip.Addr
	ClusterDomain string
	PodCIDRs      []netip.Prefix
	// Filters change what the node's parts see, after the node API's own.
	Filters []filter.Filter
	Log     *slog.Logger
}

// NodeAPI is the component "node-api".
type NodeAPI struct {
	cfg     Config
	paths   identity.Paths
	nodes   certs.NodePaths
	local   *identity.Authority
	chain   *filter.Chain
	link    *link.Link
	cache   *cache.Cache
	proxy   *proxy.Proxy
	tls     *tls.Config
	serving atomic.Bool
	met     atomic.Bool // the server was reached since the start
}

// Authority makes the node's own authority, before the certificates of the node exist, and returns the file with its certificate: what consumers of
// the node API trust.
func Authority(dataDir, node string) (string, error) {
	p := identity.NewPaths(dataDir)
	if err := os.MkdirAll(filepath.Dir(p.Authority), 0o700); err != nil {
		return "", fmt.Errorf("make authority of the node API: %w", err)
	}
	_, err := identity.EnsureAuthority(p, node)
	return p.Authority, err
}

// LocalKubeconfig is the file with which root on this machine uses the node API.
func LocalKubeconfig(dataDir string) string { return identity.NewPaths(dataDir).Kubeconfig }

// New reads what the node knew when it stopped. The node's certificates must exist. It starts nothing.
func New(cfg Config) (*NodeAPI, error) {
	n := &NodeAPI{cfg: cfg, paths: identity.NewPaths(cfg.DataDir), nodes: certs.NewNodePaths(cfg.DataDir)}
	var err error
	if n.local, err = identity.EnsureAuthority(n.paths, cfg.NodeName); err != nil {
		return nil, err
	}
	operator, err := n.local.EnsureOperator(n.paths, URL())
	if err != nil {
		return nil, err
	}
	if err := n.local.WriteClientCA(n.paths, n.nodes.ClientCA); err != nil {
		return nil, err
	}
	if err := n.serveAs(); err != nil {
		return nil, err
	}
	n.chain = filter.NewChain(append(n.ownFilters(), cfg.Filters...)...)
	if err := n.connect(); err != nil {
		return nil, err
	}
	roots, err := n.serverRoots()
	if err != nil {
		return nil, err
	}
	tokens := &identity.Tokens{
		Keys: n.keys, Local: n.local, Now: time.Now,
		Alive: func(namespace, name, uid string) bool {
			return proxy.PodAlive(n.cache, cfg.NodeName, namespace, name, uid)
		},
	}
	n.proxy = proxy.New(proxy.Config{
		NodeName: cfg.NodeName, Cache: n.cache, Link: n.link, Tokens: tokens, Chain: n.chain, Log: cfg.Log,
		Gate:      &identity.Gate{Own: n.own(), ClientCA: n.nodes.ClientCA, Local: n.local},
		Audiences: []string{"https://kubernetes.default.svc." + cfg.ClusterDomain, "kedge"},
		Kubelet:   credential(n.nodes.ClientKubelet), KubeletAddress: "127.0.0.1:10250",
		KubeletTLS: &tls.Config{Certificates: []tls.Certificate{operator}, RootCAs: roots, ServerName: cfg.NodeName, MinVersion: tls.VersionTLS12},
	})
	return n, nil
}

// serverRoots is the authority that certified the kubelet's own API, as the servers.
func (n *NodeAPI) serverRoots() (*x509.CertPool, error) {
	data, err := os.ReadFile(n.nodes.ServerCA)
	if err != nil {
		return nil, fmt.Errorf("read the server's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate", n.nodes.ServerCA)
	}
	return roots, nil
}

// connect opens the store and prepares the link.
func (n *NodeAPI) connect() error {
	patience := 2 * time.Second
	if n.cfg.ServerHere {
		patience = 2 * time.Minute
	}
	if n.cfg.Alone {
		patience = 0
	}
	var err error
	n.link, err = link.New(link.Config{
		Server: n.cfg.Server, CA: n.nodes.ServerCA, Probe: credential(n.nodes.ClientKubelet), Reach: n.cfg.Reach, Patience: patience, Log: n.cfg.Log,
	})
	if err != nil {
		return err
	}
	key, err := identity.StoreKey(n.nodes.ClientKubelet.Key)
	if err != nil {
		return err
	}
	n.cache, err = cache.Open(cache.Config{
		Path: n.paths.Store, StoreKey: key, Link: n.link, Shared: credential(n.nodes.Controller), NodeName: n.cfg.NodeName, Log: n.cfg.Log,
	})
	if err == nil && n.cfg.Alone && n.cache.Lost() != "" {
		n.cfg.Log.Warn("this node starts without its server and without all that it knew", "store", n.cache.Lost())
	}
	return err
}

func credential(p certs.KeyPair) link.Credential { return link.Credential{Cert: p.Cert, Key: p.Key} }

// own are the identities of this node.
func (n *NodeAPI) own() []identity.Own {
	return []identity.Own{
		{Name: "system:node:" + n.cfg.NodeName, Asker: filter.Kubelet, Credential: credential(n.nodes.ClientKubelet)},
		{Name: "system:kube-proxy", Asker: filter.KubeProxy, Credential: credential(n.nodes.KubeProxy)},
		{Name: "system:kedge-controller:" + n.cfg.NodeName, Asker: filter.Controllers, Credential: credential(n.nodes.Controller)},
	}
}

// serveAs makes the certificate of the node API: for loopback, and for the names and addresses that pods know the API by.
func (n *NodeAPI) serveAs() error {
	ips := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	for _, a := range slices.Concat(n.cfg.NodeIPs, n.cfg.ServiceIPs) {
		ips = append(ips, a.AsSlice())
	}
	const service = "kubernetes.default.svc"
	names := []string{"localhost", "kubernetes", "kubernetes.default", service, service + "." + n.cfg.ClusterDomain}
	pair, err := n.local.Serving(names, ips)
	if err != nil {
		return err
	}
	n.tls = &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
	}
	return nil
}

// KubeletClientCA is the file with whom the kubelet must trust: the cluster's authority and this node's.
func (n *NodeAPI) KubeletClientCA() string { return n.paths.ClientCA }

// Reevaluate says that a filter would now answer differently for objects of this resource.
func (n *NodeAPI) Reevaluate(resource schema.GroupResource) { n.chain.Reevaluate(resource) }

// State says whether the server can be reached, and since when that is so.
func (n *NodeAPI) State() (reachable bool, since time.Time) {
	state, since, _ := n.link.State()
	return state == link.Up, since
}

// Changed returns a channel that is closed when what State says changes.
func (n *NodeAPI) Changed() <-chan struct{} {
	_, _, changed := n.link.State()
	return changed
}

// FullLists is how many lists of whole resources the server was asked for since the start.
func (n *NodeAPI) FullLists() int64 { return n.cache.FullLists() }

// Name implements supervisor.Component.
func (*NodeAPI) Name() string { return "node-api" }

// Ready implements supervisor.Component: the node API answers. Whether the server does is another question.
func (n *NodeAPI) Ready(context.Context) error {
	if !n.serving.Load() {
		return errors.New("not listening yet")
	}
	return nil
}

// Run implements supervisor.Component.
func (n *NodeAPI) Run(ctx context.Context) error {
	listeners, plain, err := n.listen()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, len(listeners)+2)
	var work sync.WaitGroup
	work.Go(func() { n.link.Run(ctx) })
	work.Go(func() { failed <- n.cache.Run(ctx) })
	work.Go(func() { n.proxy.Replay(ctx) })
	work.Go(func() { n.prepare(ctx) })
	work.Go(func() { n.meet(ctx) })
	servers := make([]*http.Server, 0, len(listeners)+1)
	serve := func(handler http.Handler, l net.Listener) {
		s := n.server(ctx, handler)
		servers = append(servers, s)
		work.Go(func() { failed <- s.Serve(l) })
	}
	for _, l := range listeners {
		serve(n.proxy, tls.NewListener(l, n.tls))
	}
	serve(n.proxy.Plain(), plain)
	n.serving.Store(true)
	defer n.serving.Store(false)
	select {
	case <-ctx.Done():
		err = nil
	case err = <-failed:
	}
	cancel()
	for _, s := range servers {
		_ = s.Close() // watches would hold a graceful end
	}
	work.Wait()
	return err
}

func (n *NodeAPI) server(ctx context.Context, handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(n.cfg.Log.Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return ctx },
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000},
	}
}

// listen opens the ports.
func (n *NodeAPI) listen() (secure []net.Listener, plain net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range secure {
				_ = l.Close() // not used
			}
		}
	}()
	for _, a := range append([]netip.Addr{netip.MustParseAddr("127.0.0.1")}, n.cfg.NodeIPs...) {
		l, err := net.Listen("tcp", netip.AddrPortFrom(a, Port).String())
		if err != nil {
			return secure, nil, fmt.Errorf("listen: %w", err)
		}
		secure = append(secure, &nearby{Listener: l, pods: n.cfg.PodCIDRs})
	}
	if plain, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(PlainPort))); err != nil {
		return secure, nil, fmt.Errorf("listen: %w", err)
	}
	return secure, plain, nil
}

// nearby takes connections of this machine and of pods only.
type nearby struct {
	net.Listener
	pods []netip.Prefix
}

// Accept implements net.Listener.
func (l *nearby) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, to := addressOf(c.RemoteAddr()), addressOf(c.LocalAddr())
		if from.IsLoopback() || from == to || slices.ContainsFunc(l.pods, func(p netip.Prefix) bool { return p.Contains(from) }) {
			return c, nil
		}
		_ = c.Close() // a stranger
	}
}

func addressOf(a net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
