package overlay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kedge-io/kedge/pkg/peers"
)

// state is what a node must know to bring its pods together without a server.
type state struct {
	// Own is this node as it announced itself the last time.
	Own peers.Peer `json:"own"`
	// Peers are the other nodes, by name.
	Peers map[string]peers.Peer `json:"peers"`
	// MTU is what pods got the last time.
	MTU int `json:"mtu,omitempty"`
}

// loadState reads the state of the last run. What cannot be read is as good as nothing: the cluster knows it all.
func loadState(path string) (state, error) {
	s := state{}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("read state of the pod network: %w", err)
	}
	if json.Unmarshal(text, &s) != nil {
		s = state{}
	}
	if s.Peers == nil {
		s.Peers = map[string]peers.Peer{}
	}
	return s, nil
}

// save replaces the file as a whole.
func (s state) save(path string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode state of the pod network: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep state of the pod network: %w", err)
	}
	if err := errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path)); err != nil {
		return fmt.Errorf("keep state of the pod network: %w", err)
	}
	return nil
}

// change is a peer that comes or goes.
type change struct {
	peer peers.Peer
	gone bool
}

// diff lists what leads from old to new: all that goes before all that comes, each by name. A peer that differs goes and comes.
func diff(old, new map[string]peers.Peer) []change {
	var gone, come []change
	for name, p := range old {
		if q, ok := new[name]; !ok || !q.Equal(p) {
			gone = append(gone, change{p, true})
		}
	}
	for name, p := range new {
		if q, ok := old[name]; !ok || !q.Equal(p) {
			come = append(come, change{p, false})
		}
	}
	byName := func(a, b change) int {
		if a.peer.Node < b.peer.Node {
			return -1
		}
		return 1
	}
	slices.SortFunc(gone, byName)
	slices.SortFunc(come, byName)
	return append(gone, come...)
}

// reachable are the peers that a backend can send to: those with the same backend, and, when packets go out as they are, those
// on a network that this node is on. None of them may have addresses of this node's own pods.
func reachable(own peers.Peer, all map[string]peers.Peer, local []netip.Prefix) map[string]peers.Peer {
	out := map[string]peers.Peer{}
	for name, p := range all {
		if name == own.Node || p.Backend != own.Backend || overlap(p.CIDRs, own.CIDRs) {
			continue
		}
		if own.Backend == peers.HostGW {
			if !onLink(p.PublicIP, local) {
				p.PublicIP = netip.Addr{}
			}
			if !onLink(p.PublicIPv6, local) {
				p.PublicIPv6 = netip.Addr{}
			}
		}
		if !own.PublicIP.IsValid() {
			p.PublicIP = netip.Addr{}
		}
		if !own.PublicIPv6.IsValid() {
			p.PublicIPv6 = netip.Addr{}
		}
		if p.PublicIP.IsValid() || p.PublicIPv6.IsValid() {
			out[name] = p
		}
	}
	return out
}

// note says for an operator whom a node's pods reach.
func note(own peers.Peer, all, sent map[string]peers.Peer) string {
	if me, ok := all[own.Node]; ok {
		own.Seen = me.Seen
	}
	var beside int
	var behind, elsewhere []string
	for name, p := range all {
		_, reached := sent[name]
		switch {
		case name == own.Node:
		case !own.Beside(p):
			behind = append(behind, name)
		case !reached:
			elsewhere = append(elsewhere, name)
		default:
			beside++
		}
	}
	text := fmt.Sprintf("%s, %d other nodes", own.Backend, beside)
	if own.Seen.IsValid() {
		text += fmt.Sprintf("; behind an address translation (%s)", own.Seen)
	}
	if len(behind) > 0 {
		text += "; an address translation lies between the pods here and those of " + some(behind)
	}
	if len(elsewhere) > 0 {
		text += "; pods not reached with this flannel-backend: those of " + some(elsewhere)
	}
	return text
}

// some names a few of many.
func some(names []string) string {
	const few = 5
	slices.Sort(names)
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

func overlap(a, b []netip.Prefix) bool {
	return slices.ContainsFunc(a, func(p netip.Prefix) bool { return slices.ContainsFunc(b, p.Overlaps) })
}

func onLink(a netip.Addr, local []netip.Prefix) bool {
	return slices.ContainsFunc(local, func(p netip.Prefix) bool { return p.Contains(a) })
}
