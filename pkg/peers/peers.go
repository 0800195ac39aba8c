// Package peers is what the nodes of a cluster tell each other about their pod networks, and the directory in which they find
// it. A node writes how it is reached into annotations of its own Node; the server checks that, adds which addresses the node
// was given, and writes one small ConfigMap for each node. Nodes watch those instead of Nodes, which change all the time. It
// is a foundation: network and server import it.
package peers

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Namespace holds the directory: a ConfigMap for each node, under its name.
const Namespace = "kedge-network"

// Backends as they stand in a directory.
const (
	VXLAN     = "vxlan"
	HostGW    = "host-gw"
	WireGuard = "wireguard"
)

// Annotations of a Node. They are flannel's, because tools know them.
const (
	annotationManaged  = "flannel.alpha.coreos.com/kube-subnet-manager"
	annotationBackend  = "flannel.alpha.coreos.com/backend-type"
	annotationData     = "flannel.alpha.coreos.com/backend-data"
	annotationDataV6   = "flannel.alpha.coreos.com/backend-v6-data"
	annotationPublic   = "flannel.alpha.coreos.com/public-ip"
	annotationPublicV6 = "flannel.alpha.coreos.com/public-ipv6"
)

// What a node says on its Node about its addresses outside, and the label that says that it does.
const (
	AnnotationExternal = "kedge.io/external-ips"
	LabelExternal      = "kedge.io/external-ips"
)

const (
	dataKey  = "peer"
	maxBytes = 4 << 10 // of one entry
)

// Peer is one node as the others see it.
type Peer struct {
	Node string `json:"node"`
	// CIDRs are the addresses of its pods, one a family.
	CIDRs []netip.Prefix `json:"cidrs"`
	// Backend is VXLAN, HostGW or WireGuard.
	Backend string `json:"backend"`
	// PublicIP and PublicIPv6 are where it receives what is for its pods; at least one is valid.
	PublicIP   netip.Addr `json:"publicIP,omitzero"`
	PublicIPv6 netip.Addr `json:"publicIPv6,omitzero"`
	// Data and DataV6 are what the backend needs besides, one a family.
	Data   json.RawMessage `json:"data,omitempty"`
	DataV6 json.RawMessage `json:"dataV6,omitempty"`
	// Seen is the address from which the server sees it, when that is another than its own: it is behind a translation of
	// addresses, and only those that are seen under the same address are beside it.
	Seen netip.Addr `json:"seen,omitzero"`
}

// Annotations are what a node writes on its Node for p.
func (p Peer) Annotations() map[string]string {
	out := map[string]string{annotationManaged: "true", annotationBackend: p.Backend}
	if p.PublicIP.IsValid() {
		out[annotationPublic], out[annotationData] = p.PublicIP.String(), orNull(p.Data)
	}
	if p.PublicIPv6.IsValid() {
		out[annotationPublicV6], out[annotationDataV6] = p.PublicIPv6.String(), orNull(p.DataV6)
	}
	return out
}

func orNull(data json.RawMessage) string {
	if len(data) == 0 {
		return "null"
	}
	return string(data)
}

// ErrNotAnnounced says that a node has not said yet how its pods are reached.
var ErrNotAnnounced = errors.New("not announced yet")

// fromNode reads a node's announcement; it trusts nothing in it.
func fromNode(node *corev1.Node) (Peer, error) {
	a := node.Annotations
	if a[annotationManaged] != "true" || a[annotationBackend] == "" || len(node.Spec.PodCIDRs) == 0 {
		return Peer{}, ErrNotAnnounced
	}
	p := Peer{Node: node.Name, Backend: a[annotationBackend]}
	for _, s := range node.Spec.PodCIDRs {
		c, err := netip.ParsePrefix(s)
		if err != nil {
			return Peer{}, fmt.Errorf("pod addresses of node %s: %w", node.Name, err)
		}
		p.CIDRs = append(p.CIDRs, c)
	}
	var err error
	if p.PublicIP, p.Data, err = family(a[annotationPublic], a[annotationData], p.Backend, true); err != nil {
		return Peer{}, fmt.Errorf("annotations of node %s: %w", node.Name, err)
	}
	if p.PublicIPv6, p.DataV6, err = family(a[annotationPublicV6], a[annotationDataV6], p.Backend, false); err != nil {
		return Peer{}, fmt.Errorf("annotations of node %s: %w", node.Name, err)
	}
	return p, p.check()
}

// family reads what is there for one IP family, which may be nothing.
func family(public, data, backend string, four bool) (netip.Addr, json.RawMessage, error) {
	if public == "" {
		return netip.Addr{}, nil, nil
	}
	ip, err := netip.ParseAddr(public)
	if err != nil || ip.Is4() != four || ip.Zone() != "" || !ip.IsGlobalUnicast() {
		return netip.Addr{}, nil, fmt.Errorf("%.60q is no address that a node can have", public)
	}
	clean, err := cleanData(backend, data)
	return ip, clean, err
}

// cleanData reads a backend's data and writes it anew, so that nothing else can hide in it.
func cleanData(backend, data string) (json.RawMessage, error) {
	switch backend {
	case VXLAN:
		var v struct {
			VNI     uint32
			VtepMAC string
		}
		if err := decode(data, &v); err != nil {
			return nil, err
		}
		mac, err := net.ParseMAC(v.VtepMAC)
		if err != nil || len(mac) != 6 || mac[0]&1 == 1 {
			return nil, fmt.Errorf("%.60q is no address of an interface", v.VtepMAC)
		}
		v.VtepMAC = mac.String()
		return json.Marshal(v)
	case WireGuard:
		var v struct {
			PublicKey []byte
			Port      uint16
		}
		if err := decode(data, &v); err != nil {
			return nil, err
		}
		if len(v.PublicKey) != 32 || v.Port == 0 {
			return nil, errors.New("neither a WireGuard key nor a port")
		}
		return json.Marshal(v)
	case HostGW:
		return nil, nil
	}
	return nil, fmt.Errorf("%.60q is no backend", backend)
}

func decode(data string, v any) error {
	if len(data) > 512 {
		return errors.New("backend data is longer than 512 bytes")
	}
	if err := json.Unmarshal([]byte(data), v); err != nil {
		return fmt.Errorf("backend data: %w", err)
	}
	return nil
}

// check says what of a peer cannot be.
func (p Peer) check() error {
	four := func(c netip.Prefix) bool { return c.Addr().Is4() }
	switch {
	case len(p.CIDRs) == 0 || len(p.CIDRs) > 2 || len(p.CIDRs) == 2 && four(p.CIDRs[0]) == four(p.CIDRs[1]):
		return fmt.Errorf("node %s: pod addresses %v are not one network of a family", p.Node, p.CIDRs)
	case !p.PublicIP.IsValid() && !p.PublicIPv6.IsValid():
		return fmt.Errorf("node %s: no address of the node", p.Node)
	case p.PublicIP.IsValid() && !p.PublicIP.Is4() || p.PublicIPv6.IsValid() && !p.PublicIPv6.Is6():
		return fmt.Errorf("node %s: addresses of the wrong family", p.Node)
	}
	for _, c := range p.CIDRs {
		if !c.IsValid() || c != c.Masked() {
			return fmt.Errorf("node %s: %s is no network", p.Node, c)
		}
	}
	return nil
}

// Equal reports whether nothing differs.
func (p Peer) Equal(q Peer) bool {
	return p.Node == q.Node && slices.Equal(p.CIDRs, q.CIDRs) && p.Backend == q.Backend && p.PublicIP == q.PublicIP &&
		p.PublicIPv6 == q.PublicIPv6 && string(p.Data) == string(q.Data) && string(p.DataV6) == string(q.DataV6) && p.Seen == q.Seen
}

// Beside reports whether packets between two nodes' own addresses can arrive: no translation lies between them.
func (p Peer) Beside(q Peer) bool { return p.Seen == q.Seen }

// ConfigMap is p's entry in the directory.
func (p Peer) ConfigMap() (*corev1.ConfigMap, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode peer: %w", err)
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: p.Node},
		Data:       map[string]string{dataKey: string(text)},
	}, nil
}

// FromConfigMap reads an entry of the directory; it returns false for other ConfigMaps.
func FromConfigMap(m *corev1.ConfigMap) (Peer, bool) {
	text := m.Data[dataKey]
	var p Peer
	if text == "" || len(text) > maxBytes || json.Unmarshal([]byte(text), &p) != nil || p.Node != m.Name || p.check() != nil {
		return Peer{}, false
	}
	return p, true
}
