package agent

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/dns"
)

// What may be lost at a reboot is under /run; crictl and ctr look for the socket there.
const (
	containerdState = "/run/kedge/containerd"
	// ContainerdSocket is where the CRI and containerd's API are served.
	ContainerdSocket = containerdState + "/containerd.sock"
)

// paths are the places of a node below its data directory.
type paths struct {
	containerd, containerdConfig, registries string
	images, imagesCache                      string
	cniConf, ipam, network                   string
	kubelet, staticPods, volumePlugins       string
	resolvConf                               string
	neighbourhood                            string
}

func newPaths(dataDir string) paths {
	in := func(parts ...string) string { return filepath.Join(append([]string{dataDir, "agent"}, parts...)...) }
	p := paths{
		containerd:       in("containerd"),
		containerdConfig: in("etc", "containerd", "config.toml"),
		registries:       in("etc", "containerd", "certs.d"),
		images:           in("images"),
		imagesCache:      in("images.json"),
		cniConf:          in("etc", "cni", "net.d"),
		ipam:             in("ipam"),
		network:          in("network"),
		kubelet:          in("kubelet"),
		staticPods:       in("pod-manifests"),
		resolvConf:       in("etc", "resolv.conf"),
		neighbourhood:    in("neighbourhood.json"),
		volumePlugins:    in("libexec", "kubernetes", "kubelet-plugins", "volume", "exec"),
	}
	// CSI drivers and monitoring manifests name this directory; only a node of its own kind has another.
	if dataDir == config.DefaultDataDir {
		p.kubelet = "/var/lib/kubelet"
	}
	return p
}

// resolvConf is the resolver file for names outside the cluster: the one of the settings, else the one
// that systemd-resolved keeps with real servers in it, else the host's.
func (a *Agent) resolvConf() string {
	if a.cfg.ResolvConf != "" {
		return a.cfg.ResolvConf
	}
	const resolved = "/run/systemd/resolve/resolv.conf"
	if _, err := os.Stat(resolved); err == nil {
		return resolved
	}
	return "/etc/resolv.conf"
}

// podResolvConf is the resolver file for pods that use the host's DNS: the one of the settings as it is, else the
// host's without servers that cannot be reached from a pod.
func (a *Agent) podResolvConf() (string, error) {
	if a.cfg.ResolvConf != "" {
		return a.cfg.ResolvConf, nil
	}
	if err := os.MkdirAll(filepath.Dir(a.paths.resolvConf), 0o700); err != nil {
		return "", fmt.Errorf("write pod resolver file: %w", err)
	}
	if err := os.WriteFile(a.paths.resolvConf, dns.PodResolvConf(a.resolvConf(), a.cluster.DNS), 0o644); err != nil {
		return "", fmt.Errorf("write pod resolver file: %w", err)
	}
	return a.paths.resolvConf, nil
}

// systemImage completes the name of an image of the system that names no registry.
func systemImage(registry, image string) string {
	host, _, ok := strings.Cut(image, "/")
	if registry == "" || ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		return image
	}
	return registry + "/" + image
}

func parseLabels(in []string) (map[string]string, error) {
	out := make(map[string]string, len(in))
	for _, l := range in {
		k, v, ok := strings.Cut(l, "=")
		if !ok {
			return nil, fmt.Errorf("node-label %q: write it as key=value", l)
		}
		out[k] = v
	}
	return out, nil
}

func hasIPv6(ps []netip.Prefix) bool {
	for _, p := range ps {
		if p.Addr().Is6() {
			return true
		}
	}
	return false
}
