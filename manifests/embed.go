// Package manifests holds the add-ons that come with kedge, one file each; the file name is what --disable takes.
// It is a leaf: anyone may import it. Files are written to <data>/server/manifests with their variables filled in.
package manifests

import (
	"embed"
	"io/fs"
	"net"
	"strings"
)

//go:embed *.yaml
var files embed.FS

// FS returns the packaged files.
func FS() fs.FS { return files }

// Variables are the values that differ between sites. In a packaged file %{NAME}% stands for one of them; files that users
// put into the manifests folder are taken as they are.
type Variables struct {
	ClusterDNS    []net.IP // addresses of the cluster's DNS service, one per IP family, the preferred one first
	ClusterDomain string   // for example cluster.local
	DataDir       string   // for example /var/lib/kedge
	// SystemRegistry is host[:port] of the registry for images of the system, or empty.
	SystemRegistry string
}

// Map returns the value of each variable by name:
//
//	CLUSTER_DNS        the first DNS address               10.43.0.10
//	CLUSTER_DNS_LIST   all of them, as a YAML list         ["10.43.0.10"]
//	IP_FAMILY_POLICY   of Services with all those families SingleStack
//	CLUSTER_DOMAIN                                         cluster.local
//	DATA_DIR                                               /var/lib/kedge
//	SYSTEM_DEFAULT_REGISTRY      before an image's name    registry.example/, or nothing
//	SYSTEM_DEFAULT_REGISTRY_RAW  the registry alone        registry.example, or nothing
func (v Variables) Map() map[string]string {
	var quoted []string
	first := ""
	for _, ip := range v.ClusterDNS {
		quoted = append(quoted, `"`+ip.String()+`"`)
	}
	if len(v.ClusterDNS) > 0 {
		first = v.ClusterDNS[0].String()
	}
	policy := "SingleStack"
	if len(v.ClusterDNS) > 1 {
		policy = "RequireDualStack"
	}
	registry := ""
	if v.SystemRegistry != "" {
		registry = v.SystemRegistry + "/"
	}
	return map[string]string{
		"CLUSTER_DNS":      first,
		"CLUSTER_DNS_LIST": "[" + strings.Join(quoted, ", ") + "]",
		"IP_FAMILY_POLICY": policy,
		"CLUSTER_DOMAIN":   v.ClusterDomain,
		"DATA_DIR":         v.DataDir,

		"SYSTEM_DEFAULT_REGISTRY":     registry,
		"SYSTEM_DEFAULT_REGISTRY_RAW": v.SystemRegistry,
	}
}
