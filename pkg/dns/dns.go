// Package dns runs CoreDNS inside the kedge process on every node: cluster names from the API, outside names
// through the host's own resolvers, custom configuration from the ConfigMap kube-system/coredns-custom.
// Only the agent mode may import it; it imports no other feature.
//
// It listens on the cluster DNS address, which it puts on the dummy interface kedge-dns, so a pod's query never
// leaves the node and there is no DNS pod. The interface stays when kedge stops: a pod that asks then gets
// "connection refused" at once, and no cluster name leaks to the default gateway.
//
// Names outside the cluster go to the servers of the host's resolv.conf and to nothing else. A host without a usable
// server gets SERVFAIL at once for outside names; a public resolver is never a fallback.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	miekg "github.com/miekg/dns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kedge-io/kedge/pkg/kube"
)

const (
	// checkEvery is how often the host's resolv.conf and the listen addresses are compared with what is in use.
	checkEvery = 10 * time.Second
	// probeTimeout bounds the query that Ready sends to this server.
	probeTimeout = time.Second
)

// Config says what the DNS server of one node answers and where.
type Config struct {
	// Kubeconfig is the path of the kubeconfig file used to read Services, EndpointSlices and Namespaces.
	Kubeconfig string
	// NodeName is the source of the Events written about a broken coredns-custom.
	NodeName string
	// ClusterDomain is the zone of cluster names, such as cluster.local.
	ClusterDomain string
	// Listen are the cluster DNS addresses, one for each IP family.
	Listen []netip.Addr
	// Port is the UDP and TCP port; 0 means 53.
	Port int
	// Interface is the dummy interface that carries Listen; empty means kedge-dns.
	Interface string
	// ResolvConf is the host's resolver configuration; empty means /etc/resolv.conf.
	ResolvConf string
	// Log receives what an operator should know; nothing is logged at info level while nothing changes.
	Log *slog.Logger
}

// DNS is the component "dns".
type DNS struct {
	cfg     Config
	client  kubernetes.Interface
	cluster *clusterZone
	engine  *engine
	guard   *loopGuard
	changed chan struct{}
	every   time.Duration // how often the host is compared with what is in use

	mu     sync.Mutex
	custom custom
	looped map[string]bool
}

// New checks cfg, connects nothing and starts nothing. CoreDNS keeps its plugin registry per process, so New must
// not be called while another DNS of the same process is running.
func New(cfg Config) (*DNS, error) {
	if err := complete(&cfg); err != nil {
		return nil, err
	}
	rc, err := clientcmd.BuildConfigFromFlags("", cfg.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("load dns kubeconfig: %w", err)
	}
	rc.ContentType = "application/vnd.kubernetes.protobuf"
	rc.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	rc.UserAgent = "kedge-dns"
	client, err := kubernetes.NewForConfig(rest.CopyConfig(rc))
	if err != nil {
		return nil, fmt.Errorf("make dns client: %w", err)
	}
	zone, err := newClusterZone(cfg.ClusterDomain, rc)
	if err != nil {
		return nil, fmt.Errorf("prepare cluster zone: %w", err)
	}
	d := &DNS{
		cfg: cfg, client: client, cluster: zone, guard: newLoopGuard(),
		changed: make(chan struct{}, 1), every: checkEvery, looped: map[string]bool{},
	}
	d.engine = newEngine(d.guard, zone, cfg.Log)
	return d, nil
}

// complete fills the defaults of cfg and names the first field that cannot work.
func complete(cfg *Config) error {
	if cfg.Port == 0 {
		cfg.Port = 53
	}
	if cfg.Interface == "" {
		cfg.Interface = "kedge-dns"
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.Kubeconfig == "":
		return errors.New("dns: Kubeconfig is empty: give the path of a kubeconfig file")
	case len(cfg.Listen) == 0:
		return errors.New("dns: Listen is empty: give the cluster DNS address, such as 10.43.0.10")
	case cfg.ClusterDomain == "":
		return errors.New("dns: ClusterDomain is empty: give the cluster's zone, such as cluster.local")
	}
	if _, ok := miekg.IsDomainName(cfg.ClusterDomain); !ok {
		return fmt.Errorf("dns: ClusterDomain %q is not a domain name: use letters, digits, dashes and dots", cfg.ClusterDomain)
	}
	for _, a := range cfg.Listen {
		if !a.IsValid() || a.IsUnspecified() {
			return fmt.Errorf("dns: Listen %q is not an address of one host: give the cluster DNS address", a)
		}
	}
	return nil
}

// Name returns "dns".
func (d *DNS) Name() string { return "dns" }

// Run serves until ctx is done. It starts with or without a reachable API: what it has not learned yet is answered
// with SERVFAIL, everything else is answered.
func (d *DNS) Run(ctx context.Context) error {
	if err := ensureAddresses(d.cfg.Interface, d.cfg.Listen); err != nil {
		return fmt.Errorf("set up dns addresses: %w", err)
	}
	if err := bypassConntrack(ctx, d.cfg.Listen, d.cfg.Port); err != nil {
		d.cfg.Log.Warn("dns packets stay in connection tracking", "reason", err)
	}
	upstreams := d.upstreams()
	if err := d.engine.apply(d.corefile(upstreams, custom{})); err != nil {
		return fmt.Errorf("start dns server on port %d (is another DNS server bound to all addresses?): %w", d.cfg.Port, err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	wg.Go(func() {
		if kube.AwaitAccess(ctx, d.ask) {
			wg.Go(func() { watchCustom(ctx, d.client, d.setCustom) })
			d.cluster.run(ctx)
		}
	})
	d.maintain(ctx, upstreams)
	cancel()
	err := d.engine.stop()
	wg.Wait()
	return err
}

// maintain applies changes of the custom configuration, the host's resolvers and the addresses until ctx is done.
func (d *DNS) maintain(ctx context.Context, upstreams []string) {
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	var probes sync.WaitGroup
	defer probes.Wait()
	probes.Go(func() { d.findLoops(ctx, upstreams) })
	var seen, good custom
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := ensureAddresses(d.cfg.Interface, d.cfg.Listen); err != nil {
				d.cfg.Log.Warn("dns address could not be restored", "reason", err)
			}
		case <-d.changed:
		}
		nextUp, next, candidate := d.upstreams(), d.currentCustom(), good
		if next.version != seen.version {
			seen, candidate = next, next
		} else if slices.Equal(nextUp, upstreams) {
			continue
		}
		if !slices.Equal(nextUp, upstreams) {
			probes.Go(func() { d.findLoops(ctx, nextUp) })
		}
		good = d.adopt(ctx, nextUp, candidate, good)
		upstreams = nextUp
	}
}

// adopt rebuilds the server with next and returns what is in use then. A configuration that does not work is
// reported, and good stays, with the upstreams as they are now.
func (d *DNS) adopt(ctx context.Context, upstreams []string, next, good custom) custom {
	err := next.err
	if err == nil {
		err = d.engine.apply(d.corefile(upstreams, next))
	}
	if err == nil {
		d.cfg.Log.Info("dns configuration applied", "upstreams", upstreams, "custom", next.version, "ignored", next.ignored)
		return next
	}
	d.cfg.Log.Warn("dns configuration refused, the last good one stays",
		"configmap", customNamespace+"/"+customName, "reason", err)
	if next.version != good.version {
		reportBroken(ctx, d.client, d.cfg.NodeName, next, err)
		if err := d.engine.apply(d.corefile(upstreams, good)); err != nil {
			d.cfg.Log.Warn("dns upstreams could not be changed", "upstreams", upstreams, "reason", err)
		}
	}
	return good
}

// ask is the first question to the API.
func (d *DNS) ask(ctx context.Context) error {
	_, err := d.client.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	return err
}

// corefile renders the configuration for the given upstreams and custom configuration.
func (d *DNS) corefile(upstreams []string, c custom) string {
	return renderCorefile(corefileSpec{
		guard: d.engine.guardName, cluster: d.engine.clusterName, domain: d.cfg.ClusterDomain,
		listen: d.cfg.Listen, port: d.cfg.Port, upstreams: upstreams, custom: c,
	})
}

// upstreams reads the host's resolver files and leaves out servers that were seen to ask us back.
func (d *DNS) upstreams() []string {
	all := chooseUpstreams(readHostResolvers(d.cfg.ResolvConf), d.cfg.Listen)
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, u := range all {
		if !d.looped[u] {
			out = append(out, u)
		}
	}
	return out
}

// findLoops drops every local upstream that forwards our own question back to us.
func (d *DNS) findLoops(ctx context.Context, upstreams []string) {
	for _, u := range d.guard.find(ctx, upstreams) {
		d.mu.Lock()
		d.looped[u] = true
		d.mu.Unlock()
		d.cfg.Log.Warn("dns upstream sends questions back to this node and is not used", "upstream", u)
		d.wake()
	}
}

// setCustom takes over a new custom configuration.
func (d *DNS) setCustom(c custom) {
	d.mu.Lock()
	d.custom = c
	d.mu.Unlock()
	d.wake()
}

func (d *DNS) currentCustom() custom {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.custom
}

func (d *DNS) wake() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// Ready asks this server for the kubernetes Service. Any answer counts: without the API it is SERVFAIL, and pods must
// start all the same.
func (d *DNS) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	q := new(miekg.Msg)
	q.SetQuestion(miekg.Fqdn("kubernetes.default.svc."+d.cfg.ClusterDomain), miekg.TypeA)
	for _, a := range d.cfg.Listen {
		server := net.JoinHostPort(a.String(), strconv.Itoa(d.cfg.Port))
		if _, err := miekg.ExchangeContext(ctx, q, server); err != nil {
			return fmt.Errorf("ask dns server %s: %w", server, err)
		}
	}
	return nil
}
