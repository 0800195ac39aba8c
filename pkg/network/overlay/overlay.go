// Package overlay joins the pod networks of the nodes of a cluster: flannel's backends, fed from a file and from what the
// cluster says, so that a node brings its pods together without a server. It is a room of network. A backend of another kind,
// for nodes that cannot reach each other, would stand beside it and serve the peers that this one cannot.
package overlay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/flannel-io/flannel/pkg/backend"
	"github.com/flannel-io/flannel/pkg/backend/hostgw"
	"github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/backend/wireguard"
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/subnet"
	"github.com/vishvananda/netlink"

	"github.com/kedge-io/kedge/pkg/peers"
)

// Config is what the overlay needs to know.
type Config struct {
	NodeName string
	// Backend is peers.VXLAN, peers.HostGW or peers.WireGuard.
	Backend      string
	ClusterCIDRs []netip.Prefix
	// NodeIPs are this node's addresses, one a family.
	NodeIPs []netip.Addr
	// PublicIPs are where the other nodes send to, when that is not NodeIPs.
	PublicIPs []netip.Addr
	// Interface leads to the other nodes; empty means the one with the node's address.
	Interface string
	// Dir keeps what must outlive a reboot.
	Dir string
	Log *slog.Logger
}

// Overlay joins this node's pods with those of the others. Addresses, routes and interfaces stay when it ends, because the pods
// do.
type Overlay struct {
	cfg Config

	mu       sync.Mutex
	state    state
	local    []netip.Prefix // networks of the outside interface
	mtu      int
	changed  chan struct{} // closed when peers change
	renewed  chan struct{} // closed when the own entry changes
	assigned bool          // the own pod addresses are known
}

// New reads what is known from the last run; it starts nothing.
func New(cfg Config) (*Overlay, error) {
	if cfg.Log == nil || cfg.NodeName == "" || len(cfg.NodeIPs) == 0 || cfg.Dir == "" {
		return nil, errors.New("overlay: node name, node addresses, directory and log are required")
	}
	switch cfg.Backend {
	case peers.VXLAN, peers.HostGW, peers.WireGuard:
	default:
		return nil, fmt.Errorf("overlay: there is no backend %q", cfg.Backend)
	}
	o := &Overlay{cfg: cfg, changed: make(chan struct{}), renewed: make(chan struct{})}
	var err error
	if o.state, err = loadState(o.statePath()); err != nil {
		return nil, err
	}
	if o.state.Own.Node != cfg.NodeName || o.state.Own.Backend != cfg.Backend {
		o.state.Own = peers.Peer{Node: cfg.NodeName, Backend: cfg.Backend, CIDRs: o.state.Own.CIDRs}
	}
	o.assigned = len(o.state.Own.CIDRs) > 0
	o.mtu = o.state.MTU
	if out, err := findOutside(cfg.Interface, cfg.NodeIPs); err == nil {
		o.mtu = podMTU(cfg.Backend, out.iface.MTU, o.six())
	}
	if o.mtu == 0 {
		o.mtu = unknownMTU
	}
	return o, nil
}

func (o *Overlay) statePath() string { return filepath.Join(o.cfg.Dir, "overlay.json") }

// six says whether packets between nodes may travel over IPv6.
func (o *Overlay) six() bool { return hasFamily(o.cfg.ClusterCIDRs, false) }

func hasFamily(ps []netip.Prefix, four bool) bool {
	for _, p := range ps {
		if p.Addr().Is4() == four {
			return true
		}
	}
	return false
}

// MTU is the longest packet of a pod.
func (o *Overlay) MTU() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mtu
}

// PodCIDRs are the addresses of this node's pods as far as they are known.
func (o *Overlay) PodCIDRs() []netip.Prefix {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state.Own.CIDRs
}

// SetPodCIDRs says which addresses the cluster has given this node.
func (o *Overlay) SetPodCIDRs(cidrs []netip.Prefix) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := o.state.Own
	next.CIDRs = cidrs
	if o.assigned && next.Equal(o.state.Own) {
		return nil
	}
	o.state.Own, o.assigned = next, true
	o.wake()
	return o.state.save(o.statePath())
}

// SetPeers says which other nodes there are.
func (o *Overlay) SetPeers(all []peers.Peer) error {
	next := map[string]peers.Peer{}
	for _, p := range all {
		next[p.Node] = p
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(diff(o.state.Peers, next)) == 0 {
		return nil
	}
	o.state.Peers = next
	close(o.changed)
	o.changed = make(chan struct{})
	return o.state.save(o.statePath())
}

// Own is this node as it wants to be known; false before that is known. The channel is closed when it changes.
func (o *Overlay) Own() (peers.Peer, bool, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	own := o.state.Own
	return own, o.assigned && (own.PublicIP.IsValid() || own.PublicIPv6.IsValid()), o.renewed
}

// wake tells those that wait for a change of the own entry; o.mu is held.
func (o *Overlay) wake() {
	close(o.renewed)
	o.renewed = make(chan struct{})
}

// announce takes over how a backend is reached, and returns the whole entry.
func (o *Overlay) announce(how peers.Peer) (peers.Peer, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	how.Node, how.CIDRs = o.cfg.NodeName, o.state.Own.CIDRs
	if how.Equal(o.state.Own) {
		return how, nil
	}
	o.state.Own, o.state.MTU = how, o.mtu
	o.wake()
	return how, o.state.save(o.statePath())
}

// peersNow are the peers to send to, and a channel that is closed when they change.
func (o *Overlay) peersNow() (map[string]peers.Peer, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return reachable(o.state.Own, o.state.Peers, o.local), o.changed
}

// Note says for an operator whom this node's pods reach.
func (o *Overlay) Note() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return note(o.state.Own, o.state.Peers, reachable(o.state.Own, o.state.Peers, o.local))
}

// mac is the address that the vxlan interface of a family had.
func (o *Overlay) mac(six bool) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	data := o.state.Own.Data
	if six {
		data = o.state.Own.DataV6
	}
	var v struct{ VtepMAC string }
	if json.Unmarshal(data, &v) != nil {
		return ""
	}
	return v.VtepMAC
}

// How often the interfaces are looked at, and the pauses between attempts.
const (
	look      = 10 * time.Second
	firstWait = time.Second
	lastWait  = 30 * time.Second
	stopTime  = 3 * time.Second
)

// Run keeps the backend going until ctx is done. What stands in its way is said once, and tried again.
func (o *Overlay) Run(ctx context.Context) {
	said := ""
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, lastWait) {
		begin := time.Now()
		err := o.once(ctx)
		if err == nil || time.Since(begin) > lastWait {
			wait, said = firstWait, ""
		}
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			o.cfg.Log.Warn("pods of other nodes cannot be reached", "flannel-backend", o.cfg.Backend, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// once is one run of a backend: it ends when the pod addresses change or an interface that it needs is gone.
func (o *Overlay) once(ctx context.Context) error {
	o.mu.Lock()
	assigned, cidrs, renewed := o.assigned, o.state.Own.CIDRs, o.renewed
	o.mu.Unlock()
	if !assigned {
		select {
		case <-ctx.Done():
		case <-renewed:
		}
		return nil
	}
	out, err := findOutside(o.cfg.Interface, o.cfg.NodeIPs)
	if err != nil {
		return err
	}
	m, err := o.newManager(out, cidrs)
	if err != nil {
		return err
	}
	network, err := o.register(ctx, m, out)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		network.Run(ctx)
	}()
	o.awaitEnd(ctx, out, cidrs)
	stop()
	select {
	case <-done:
	case <-time.After(stopTime): // a backend that ends while it is told of a peer waits for itself
	}
	return nil
}

// newManager prepares what the backend asks.
func (o *Overlay) newManager(out outside, cidrs []netip.Prefix) (*manager, error) {
	c := &subnet.Config{BackendType: o.cfg.Backend, EnableNFTables: true}
	e := out.external(o.cfg.NodeIPs, o.cfg.PublicIPs)
	for _, p := range o.cfg.ClusterCIDRs {
		switch {
		case p.Addr().Is4() && e.IfaceAddr != nil && hasFamily(cidrs, true):
			c.EnableIPv4, c.Network = true, ip.FromIPNet(ipNet(p))
		case p.Addr().Is6() && e.IfaceV6Addr != nil && hasFamily(cidrs, false):
			c.EnableIPv6, c.IPv6Network = true, ip.FromIP6Net(ipNet(p))
		}
	}
	if !c.EnableIPv4 && !c.EnableIPv6 {
		return nil, fmt.Errorf("interface %s has no address of the IP family of the pods %v", out.iface.Name, cidrs)
	}
	mtu := podMTU(o.cfg.Backend, out.iface.MTU, o.six())
	settings := map[string]any{"Type": o.cfg.Backend}
	switch o.cfg.Backend {
	case peers.VXLAN: // flannel takes 50 off in any case
		settings["VNI"], settings["Port"], settings["MTU"] = 1, 8472, mtu+vxlanV4Overhead
	case peers.WireGuard:
		settings["PersistentKeepaliveInterval"], settings["MTU"] = 25, mtu+wireguardOverhead
	}
	var err error
	if c.Backend, err = json.Marshal(settings); err != nil {
		return nil, fmt.Errorf("encode settings: %w", err)
	}
	o.mu.Lock()
	o.local, o.mtu = out.networks, mtu
	o.mu.Unlock()
	return &manager{overlay: o, config: c}, nil
}

// register makes the backend's interfaces. They are not to go with ctx: pods go on while kedge starts again.
func (o *Overlay) register(ctx context.Context, m *manager, out outside) (backend.Network, error) {
	makers := map[string]backend.BackendCtor{peers.VXLAN: vxlan.New, peers.HostGW: hostgw.New, peers.WireGuard: wireguard.New}
	if err := removeOthers(o.cfg.Backend); err != nil {
		return nil, err
	}
	// The wireguard backend takes the place of its key from nowhere else.
	if err := os.Setenv("WIREGUARD_KEY_FILE", filepath.Join(o.cfg.Dir, "wireguard.key")); err != nil {
		return nil, fmt.Errorf("name key file: %w", err)
	}
	b, err := makers[o.cfg.Backend](m, out.external(o.cfg.NodeIPs, o.cfg.PublicIPs))
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	n, err := b.RegisterNetwork(context.WithoutCancel(ctx), &sync.WaitGroup{}, m.config)
	if err != nil {
		return nil, fmt.Errorf("make interfaces: %w", err)
	}
	return n, nil
}

// awaitEnd returns when the backend must be started anew.
func (o *Overlay) awaitEnd(ctx context.Context, out outside, cidrs []netip.Prefix) {
	present := existing(devices(o.cfg.Backend))
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		_, _, renewed := o.Own()
		if !sameCIDRs(o.PodCIDRs(), cidrs) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-renewed:
			continue
		case <-tick.C:
		}
		now, err := findOutside(o.cfg.Interface, o.cfg.NodeIPs)
		if err != nil || now.iface.Index != out.iface.Index || now.iface.MTU != out.iface.MTU || len(existing(present)) != len(present) {
			return
		}
	}
}

func sameCIDRs(a, b []netip.Prefix) bool {
	return peers.Peer{CIDRs: a}.Equal(peers.Peer{CIDRs: b})
}

// existing are those of the interfaces that are there.
func existing(names []string) []string {
	var out []string
	for _, n := range names {
		if _, err := netlink.LinkByName(n); err == nil {
			out = append(out, n)
		}
	}
	return out
}
