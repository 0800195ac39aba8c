package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kedge-io/kedge/pkg/autonomy/cache"
	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/link"
	"github.com/kedge-io/kedge/pkg/certs"
	joining "github.com/kedge-io/kedge/pkg/join"
	"github.com/kedge-io/kedge/pkg/tunnel"
	"github.com/kedge-io/kedge/pkg/upstream"
)

// node is one of the crowd.
type node struct {
	balancer *upstream.Balancer
	link     *link.Link
	cache    *cache.Cache
	tunnel   *tunnel.Agent
	scopes   []*cache.Scope
	ends     []func()
}

// ping and answer are shorter than usual, so that a line that is cut is found out soon.
const ping, answer = 5 * time.Second, 10 * time.Second

// join gets an identity for a node and prepares its parts; address is where its connections to the server begin.
func join(ctx context.Context, server, token, dir, name, address string, ip net.IP, log *slog.Logger) (*node, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	servers, err := upstream.OpenList(filepath.Join(dir, "servers.json"), []string{server})
	if err != nil {
		return nil, err
	}
	ips := []net.IP{ip}
	client, err := joining.NewClient(joining.ClientConfig{DataDir: dir, Servers: servers.All, Token: token, NodeName: name, NodeIPs: ips, Log: log})
	if err != nil {
		return nil, err
	}
	settings, err := client.Settings(ctx)
	if err != nil {
		return nil, err
	}
	var cluster struct{ ServerCA, ClientCA []byte }
	if err := json.Unmarshal(settings, &cluster); err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	keys, err := certs.EnsureNode(ctx, certs.NodeConfig{
		DataDir: dir, NodeName: name, NodeIPs: ips, ServerURL: server, ServerCA: cluster.ServerCA, ClientCA: cluster.ClientCA, Signer: client,
	})
	if err != nil {
		return nil, err
	}
	n := &node{}
	if n.balancer, err = upstream.NewBalancer(upstream.BalancerConfig{Listen: address, Servers: servers, Log: log}); err != nil {
		return nil, err
	}
	kubelet, controller := credential(keys.ClientKubelet), credential(keys.Controller)
	if n.link, err = link.New(link.Config{Server: "https://" + address, CA: keys.ServerCA, Probe: kubelet, Reach: n.balancer.Reach, Log: log}); err != nil {
		return nil, err
	}
	n.cache, err = cache.Open(cache.Config{
		Path: filepath.Join(dir, "autonomy.db"), StoreKey: make([]byte, 32), Link: n.link, Shared: controller, NodeName: name, Log: log,
	})
	if err != nil {
		return nil, err
	}
	n.tunnel, err = tunnel.NewAgent(tunnel.AgentConfig{
		Servers: servers, TLS: client.TLS, Targets: map[string]string{tunnel.TargetKubelet: "127.0.0.1:1"}, Ping: ping, Answer: answer, Lost: n.balancer.Drop,
		Found: func() <-chan struct{} { _, _, changed := n.link.State(); return changed }, Log: log,
	})
	if err != nil {
		return nil, err
	}
	for key, who := range keysOf(name, kubelet, controller) {
		s := n.cache.Scope(key, true)
		n.scopes, n.ends = append(n.scopes, s), append(n.ends, s.Use(who))
	}
	return n, nil
}

func credential(p certs.KeyPair) link.Credential { return link.Credential{Cert: p.Cert, Key: p.Key} }

// keysOf are the watches of a node without pods, as a kedge agent has them.
func keysOf(name string, kubelet, controller link.Credential) map[cache.Key]link.Credential {
	of := func(asker filter.Asker, group, version, resource string) cache.Key {
		return cache.Key{Asker: asker, Resource: schema.GroupVersionResource{Group: group, Version: version, Resource: resource}}
	}
	keys := map[cache.Key]link.Credential{
		cache.PodsKey(name): kubelet,
		of(filter.Kubelet, "storage.k8s.io", "v1", "csidrivers"):  kubelet,
		of(filter.Kubelet, "node.k8s.io", "v1", "runtimeclasses"): kubelet,
	}
	own := of("", "", "v1", "nodes")
	own.Fields = "metadata.name=" + name
	keys[own] = kubelet
	for _, k := range []cache.Key{
		of("", "", "v1", "services"), of("", "discovery.k8s.io", "v1", "endpointslices"), of("", "", "v1", "namespaces"),
		of(filter.Controllers, "networking.k8s.io", "v1", "networkpolicies"), of(filter.KubeProxy, "networking.k8s.io", "v1", "servicecidrs"),
	} {
		keys[k] = controller
	}
	for _, resource := range []string{"roles", "rolebindings", "clusterroles", "clusterrolebindings"} {
		keys[of(filter.Controllers, "rbac.authorization.k8s.io", "v1", resource)] = controller
	}
	pods := of(filter.Controllers, "", "v1", "configmaps")
	pods.Namespace = "kedge-network"
	keys[pods] = controller
	dns := of(filter.Controllers, "", "v1", "configmaps")
	dns.Namespace, dns.Fields = "kube-system", "metadata.name=coredns-custom"
	keys[dns] = controller
	return keys
}

// run is a node until ctx is done.
func (n *node) run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { _ = n.balancer.Run(ctx) }) // it ends with ctx
	work.Go(func() { n.link.Run(ctx) })
	work.Go(func() { _ = n.cache.Run(ctx) })  // it ends with ctx
	work.Go(func() { _ = n.tunnel.Run(ctx) }) // so does this
	<-ctx.Done()
	for _, end := range n.ends {
		end()
	}
}

// add adds what this node knows.
func (n *node) add(all *report, service string) {
	all.Joined++
	if n.link.Up() {
		all.Up++
	}
	if len(n.tunnel.Connected()) > 0 {
		all.Tunnels++
	}
	for _, s := range n.scopes {
		all.Watches++
		if s.Fresh() {
			all.WatchesFresh++
		}
		if s.Key().Resource.Resource != "services" {
			continue
		}
		all.Services += s.Count()
		if o, _ := s.Get("default/" + service); o != nil && s.Fresh() {
			all.Current++
		}
	}
	t := n.link.Traffic()
	all.Lists += n.cache.FullLists()
	all.Sent, all.Received, all.Connections = all.Sent+t.Sent, all.Received+t.Received, all.Connections+t.Connections
}
