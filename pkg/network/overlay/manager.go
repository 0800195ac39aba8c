package overlay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/lease"
	"github.com/flannel-io/flannel/pkg/subnet"

	"github.com/kedge-io/kedge/pkg/peers"
)

// manager is what flannel's backends ask for leases, which is how they call nodes. It lives for one run of a backend, and
// answers from what the Overlay knows.
type manager struct {
	overlay *Overlay
	config  *subnet.Config
	sent    map[string]peers.Peer // what the backend was told
}

// GetNetworkConfig implements subnet.Manager. The vxlan backend asks when its interface is gone; it gets no answer, because
// the Overlay itself starts it anew.
func (m *manager) GetNetworkConfig(ctx context.Context) (*subnet.Config, error) {
	if m.overlay.cfg.Backend == peers.VXLAN {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return m.config, nil
}

// AcquireLease implements subnet.Manager: the backend says how it is reached.
func (m *manager) AcquireLease(_ context.Context, attrs *lease.LeaseAttrs) (*lease.Lease, error) {
	own := peers.Peer{Backend: attrs.BackendType, Data: attrs.BackendData, DataV6: attrs.BackendV6Data}
	if m.config.EnableIPv4 {
		own.PublicIP, _ = netip.AddrFromSlice(attrs.PublicIP.ToIP().To4())
	}
	if m.config.EnableIPv6 {
		own.PublicIPv6, _ = netip.AddrFromSlice(attrs.PublicIPv6.ToIP())
	}
	own, err := m.overlay.announce(own)
	if err != nil {
		return nil, err
	}
	l := toLease(own)
	l.EnableIPv4, l.EnableIPv6 = m.config.EnableIPv4, m.config.EnableIPv6
	return &l, nil
}

// WatchLeases implements subnet.Manager: first all peers, then what changes, until ctx is done.
func (m *manager) WatchLeases(ctx context.Context, receiver chan []lease.LeaseWatchResult) error {
	defer close(receiver)
	for {
		now, changed := m.overlay.peersNow()
		var events []lease.Event
		for _, c := range diff(m.sent, now) {
			e := lease.Event{Type: lease.EventAdded, Lease: toLease(c.peer)}
			if c.gone {
				e.Type = lease.EventRemoved
			}
			events = append(events, e)
		}
		m.sent = now
		if len(events) > 0 {
			select {
			case receiver <- []lease.LeaseWatchResult{{Events: events}}:
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// toLease turns a peer into flannel's form.
func toLease(p peers.Peer) lease.Lease {
	l := lease.Lease{Attrs: lease.LeaseAttrs{BackendType: p.Backend}, Expiration: time.Now().Add(24 * time.Hour)}
	for _, c := range p.CIDRs {
		network := ipNet(c)
		if c.Addr().Is4() && p.PublicIP.IsValid() {
			l.EnableIPv4, l.Subnet = true, ip.FromIPNet(network)
			l.Attrs.PublicIP, l.Attrs.BackendData = ip.FromIP(p.PublicIP.AsSlice()), p.Data
		}
		if c.Addr().Is6() && p.PublicIPv6.IsValid() {
			l.EnableIPv6, l.IPv6Subnet = true, ip.FromIP6Net(network)
			l.Attrs.PublicIPv6, l.Attrs.BackendV6Data = ip.FromIP6(p.PublicIPv6.AsSlice()), p.DataV6
		}
	}
	return l
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// GetStoredMacAddresses implements subnet.Manager: an interface that is made anew has the address that the others know.
func (m *manager) GetStoredMacAddresses(context.Context) (four, six string) {
	return m.overlay.mac(false), m.overlay.mac(true)
}

// GetStoredPublicIP implements subnet.Manager.
func (m *manager) GetStoredPublicIP(context.Context) (four, six string) { return "", "" }

// Name implements subnet.Manager.
func (m *manager) Name() string { return "kedge" }

var errNotUsed = errors.New("not used by the backends")

// HandleSubnetFile implements subnet.Manager.
func (m *manager) HandleSubnetFile(string, *subnet.Config, bool, ip.IP4Net, ip.IP6Net, int) error {
	return errNotUsed
}

// RenewLease implements subnet.Manager: nothing expires.
func (m *manager) RenewLease(context.Context, *lease.Lease) error { return nil }

// WatchLease implements subnet.Manager.
func (m *manager) WatchLease(context.Context, ip.IP4Net, ip.IP6Net, chan []lease.LeaseWatchResult) error {
	return errNotUsed
}

// CompleteLease implements subnet.Manager.
func (m *manager) CompleteLease(context.Context, *lease.Lease, *sync.WaitGroup) error { return nil }
