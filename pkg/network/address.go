package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// How often the node's address is looked at, and how often in a row it must be gone: a renewed lease takes it away for a moment.
const (
	addressInterval = 10 * time.Second
	addressPatience = 3
)

// Address is the component that ends kedge when the address that this node was found to have has gone to another: the service
// manager starts kedge again, which finds the new one, gets certificates for it and tells the cluster. Containers go on.
type Address struct {
	own netip.Addr
}

// NewAddress watches an address that NodeAddress returned.
func NewAddress(own netip.Addr) *Address { return &Address{own: own} }

// Name implements supervisor.Component.
func (*Address) Name() string { return "node-address" }

// Ready implements supervisor.Component.
func (*Address) Ready(context.Context) error { return nil }

// Run implements supervisor.Component.
func (a *Address) Run(ctx context.Context) error {
	tick := time.NewTicker(addressInterval)
	defer tick.Stop()
	for gone := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		release(a.own)
		now, ok := defaultRouteAddress()
		all, err := present()
		if err != nil || !ok || !moved(a.own, now, all) {
			gone = 0
			continue
		}
		if gone++; gone == addressPatience {
			return fmt.Errorf("the address of this node was %s and is %s now: kedge must start again", a.own, now)
		}
	}
}

// moved decides whether a node has another address: its own is on no interface any more, and the one of the default route is
// another. Without a default route the node is unplugged, and waits for its old address.
func moved(own, now netip.Addr, present []netip.Addr) bool {
	return now != own && !slices.Contains(present, own)
}

// present lists the addresses of this host.
func present() ([]netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out, nil
}
