package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// binding stores the values given for one setting in the configuration.
// Its errors complete the sentence "--flag: ...".
type binding func(cfg *Server, values []string) error

func last(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

func text(field func(*Server) *string) binding {
	return func(cfg *Server, values []string) error {
		*field(cfg) = strings.TrimSpace(last(values))
		return nil
	}
}

func yesNo(field func(*Server) *bool) binding {
	return func(cfg *Server, values []string) error {
		v := last(values)
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", v)
		}
		*field(cfg) = b
		return nil
	}
}

// number takes an integer between low and high; an empty value means 0, not set.
func number(low, high int, field func(*Server) *int) binding {
	return func(cfg *Server, values []string) error {
		v := strings.TrimSpace(last(values))
		if v == "" {
			*field(cfg) = 0
			return nil
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < low || n > high {
			return fmt.Errorf("%q is not a number from %d to %d", v, low, high)
		}
		*field(cfg) = n
		return nil
	}
}

// list keeps each value as it is.
func list(field func(*Server) *[]string) binding {
	return func(cfg *Server, values []string) error {
		*field(cfg) = append([]string(nil), values...)
		return nil
	}
}

// commas splits each value at its commas and drops empty items.
func commas(field func(*Server) *[]string) binding {
	return func(cfg *Server, values []string) error {
		*field(cfg) = split(values)
		return nil
	}
}

func split(values []string) []string {
	var items []string
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
	}
	return items
}

func address(field func(*Server) *netip.Addr) binding {
	return func(cfg *Server, values []string) error {
		v := strings.TrimSpace(last(values))
		if v == "" {
			*field(cfg) = netip.Addr{}
			return nil
		}
		a, err := parseAddr(v)
		if err == nil {
			*field(cfg) = a
		}
		return err
	}
}

func addresses(field func(*Server) *[]netip.Addr) binding {
	return func(cfg *Server, values []string) error {
		var addrs []netip.Addr
		for _, item := range split(values) {
			a, err := parseAddr(item)
			if err != nil {
				return err
			}
			addrs = append(addrs, a)
		}
		*field(cfg) = addrs
		return nil
	}
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, fmt.Errorf("%q is not an IP address", s)
	}
	return a.Unmap(), nil
}

func prefixes(field func(*Server) *[]netip.Prefix) binding {
	return func(cfg *Server, values []string) error {
		var ps []netip.Prefix
		for _, item := range split(values) {
			p, err := netip.ParsePrefix(item)
			if err != nil {
				return fmt.Errorf("%q is not a network in CIDR form, for example 10.42.0.0/16", item)
			}
			if p != p.Masked() {
				return fmt.Errorf("%s has address bits behind the prefix: write %s", p, p.Masked())
			}
			ps = append(ps, p)
		}
		*field(cfg) = ps
		return nil
	}
}

func mode(field func(*Server) *os.FileMode) binding {
	return func(cfg *Server, values []string) error {
		v := strings.TrimPrefix(last(values), "0o")
		m, err := strconv.ParseUint(v, 8, 32)
		if err != nil || m > 0o777 {
			return fmt.Errorf("%q is not a file mode in octal, for example 0640", last(values))
		}
		*field(cfg) = os.FileMode(m)
		return nil
	}
}

// unbuilt refuses a setting that others of this family know, with the reason, rather than ignore it.
func unbuilt(reason string) binding {
	return func(_ *Server, values []string) error {
		if last(values) == "false" {
			return nil
		}
		return errors.New(reason)
	}
}

// always refuses any value but the one that kedge has anyway.
func always(value, reason string) binding {
	return func(_ *Server, values []string) error {
		if v := last(values); v != value {
			return fmt.Errorf("%q: %s", v, reason)
		}
		return nil
	}
}

// unbuiltSettings are settings that users of the family know and that kedge must refuse, not ignore: each with the reason and the way out.
func unbuiltSettings() []Setting {
	refuse := func(server bool, value, reason string, names ...string) (out []Setting) {
		for _, name := range names {
			out = append(out, Setting{Name: name, Value: value, Repeat: value != "", Server: server, bind: unbuilt(reason)})
		}
		return out
	}
	const both, serverOnly, value = false, true, "VALUE"
	return slices.Concat([]Setting{
		{Name: "disable-cloud-controller", Server: true, bind: always("true", "kedge has no cloud controller and needs none: remove the setting")},
		{Name: "prefer-bundled-bin", bind: always("true", "set prefer-host-bin instead")},
		{Name: "tls-san-security", Server: true, bind: always("true", "the API's certificate never gets other names than the server's own and tls-san: remove the setting")},
		{Name: "flannel-ipv6-masq", Server: true, bind: always("true", "IPv6 traffic of pods that leaves the cluster always gets the node's address: remove the setting")},
		{Name: "egress-selector-mode", Value: "MODE", Server: true, bind: always("agent", "servers reach nodes through the connections that the nodes make, which is the mode agent: remove the setting")},
	},
		refuse(serverOnly, value, "the advertised port is https-listen-port: set that", "advertise-port"),
		refuse(serverOnly, value, "kedge has one port for everything: set https-listen-port and bind-address", "supervisor-port", "apiserver-port", "apiserver-bind-address"),
		refuse(serverOnly, value, "stop kedge, and use kedge snapshot restore NAME", "cluster-reset-restore-path"),
		refuse(serverOnly, value, "snapshots lie in server/db/snapshots below data-dir: mount another disk there, or copy the folder", "etcd-snapshot-dir"),
		refuse(serverOnly, value, "snapshots on schedule are named by their time: remove the setting", "etcd-snapshot-name"),
		refuse(serverOnly, value, "the list of snapshots is read from the folder each time: remove the setting", "etcd-snapshot-reconcile-interval"),
		refuse(serverOnly, "", "snapshots are not compressed: compress the copies that you make", "etcd-snapshot-compress"),
		refuse(serverOnly, "", objectStore, "etcd-s3", "etcd-s3-skip-ssl-verify", "etcd-s3-insecure"),
		refuse(serverOnly, value, objectStore, "etcd-s3-endpoint", "etcd-s3-endpoint-ca", "etcd-s3-access-key", "etcd-s3-secret-key", "etcd-s3-session-token", "etcd-s3-bucket",
			"etcd-s3-bucket-lookup-type", "etcd-s3-region", "etcd-s3-folder", "etcd-s3-proxy", "etcd-s3-config-secret", "etcd-s3-timeout", "etcd-s3-retention"),
		refuse(serverOnly, "", "the etcd inside kedge has no port for metrics: watch the API server's", "etcd-expose-metrics", "supervisor-metrics"),
		refuse(serverOnly, value, "kedge sets up its etcd itself: for other settings run an etcd of your own and name it with datastore-endpoint", "etcd-arg"),
		refuse(serverOnly, "", "SQL databases are not built yet", "kine-tls"),
		refuse(serverOnly, value, "kedge has no cloud controller: install the provider's own, which brings its settings", "kube-cloud-controller-manager-arg"),
		refuse(serverOnly, value, "charts are installed inside kedge, without a job and its image: remove the setting", "helm-job-image"),
		refuse(serverOnly, value, "Services of type LoadBalancer need no pods, so there is no namespace for them: remove the setting", "servicelb-namespace"),
		refuse(serverOnly, "", "nodes do not share images yet: name a mirror in registries.yaml, or put archives into agent/images", "embedded-registry"),
		refuse(serverOnly, "", "a server always has them: for a machine without, run kedge agent", "disable-apiserver", "disable-etcd"),
		refuse(both, "", "profile the API server with kube-apiserver-arg profiling=true", "enable-pprof"),
		refuse(both, "", "kedge labels no containers for SELinux yet: set SELinux to permissive, and remove the setting", "selinux"),
		refuse(both, "", "kedge must run as root", "rootless"),
		refuse(both, "", ownRuntime, "docker"),
		refuse(both, value, ownRuntime, "container-runtime-endpoint", "image-service-endpoint"),
		refuse(both, value, "name the runtime in the pod, as runtimeClassName", "default-runtime"),
		refuse(both, "", "pods get devices with the rights that they have on the machine: change those with udev", "nonroot-devices"),
		refuse(both, "", `a registry itself is always asked last: name a mirror for "*" in registries.yaml`, "disable-default-registry-endpoint"),
		refuse(both, value, "name the mirror in registries.yaml", "airgap-extra-registry"),
		refuse(both, value, "choose with flannel-backend and flannel-iface, or bring a network of your own with flannel-backend none", "flannel-conf", "flannel-cni-conf"),
		refuse(both, value, "set the VPN up before kedge, and name its interface with node-ip and flannel-iface", "vpn-auth", "vpn-auth-file"),
		refuse(both, value, "the address by which a node's parts reach a server is always 127.0.0.1:6444: remove the setting", "lb-server-port"),
		refuse(both, "", "a node always finds another server when one fails: remove the setting", "disable-apiserver-lb"),
		refuse(both, value, "nodes are known by their name and addresses: set node-name, node-ip or node-external-ip", "node-internal-dns", "node-external-dns"),
	)
}

const (
	ownRuntime  = "kedge has its own containerd and works with no other runtime: remove the setting"
	objectStore = "kedge sends snapshots nowhere: copy the folder server/db/snapshots below data-dir (see docs/backup.md)"
)
