package network

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// bridgeName is the interface that the pods of a node hang on.
const bridgeName = "cni0"

// conflistName sorts after a user's own configuration, which so wins.
const conflistName = "10-kedge.conflist"

type addressRange struct {
	Subnet string `json:"subnet"`
}

// conflist is the CNI configuration of a node whose pods get addresses from podCIDRs.
// ipamDir is where kedge-ipam keeps which pod has which address, podsDir where the kubelet keeps its pods. mtu is the longest
// packet of a pod, 0 that of the bridge.
func conflist(podCIDRs []netip.Prefix, mtu int, ipamDir, podsDir string) ([]byte, error) {
	ranges := make([][]addressRange, 0, len(podCIDRs))
	for _, p := range podCIDRs {
		ranges = append(ranges, []addressRange{{Subnet: p.String()}})
	}
	bridge := map[string]any{
		"type":             "bridge",
		"bridge":           bridgeName,
		"isDefaultGateway": true,
		"hairpinMode":      true,
		"forceAddress":     true,
		"ipam": map[string]any{
			"type": "kedge-ipam", "dataDir": ipamDir, "podsDir": podsDir, "ranges": ranges, "stableMAC": true,
		},
	}
	if mtu > 0 {
		bridge["mtu"] = mtu
	}
	list := map[string]any{
		"cniVersion": "1.0.0",
		"name":       "kedge",
		"plugins": []any{
			bridge,
			map[string]any{"type": "portmap", "backend": "nftables", "snat": true, "capabilities": map[string]bool{"portMappings": true}},
		},
	}
	out, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode CNI configuration: %w", err)
	}
	return append(out, '\n'), nil
}

// masqueradeRules hides pod addresses behind the node's when they leave the cluster, in a table of
// our own that is replaced whole. Pods of other nodes see the addresses of pods. Ports are chosen at random, because two
// connections that get the same one at the same time lose a packet.
func masqueradeRules(clusterCIDRs []netip.Prefix) string {
	rules := "add table inet kedge\ndelete table inet kedge\nadd table inet kedge\n" +
		"add chain inet kedge postrouting { type nat hook postrouting priority srcnat - 5; policy accept; }\n"
	for _, p := range clusterCIDRs {
		family, multicast := "ip", "224.0.0.0/4"
		if p.Addr().Is6() {
			family, multicast = "ip6", "ff00::/8"
		}
		rules += fmt.Sprintf("add rule inet kedge postrouting %[1]s saddr %[2]s %[1]s daddr != %[2]s %[1]s daddr != %[3]s masquerade fully-random\n", family, p, multicast)
	}
	return rules
}
