package dns

import (
	"bufio"
	"bytes"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// systemdResolvConf holds the real servers of a host whose resolv.conf names only the stub of systemd-resolved.
const systemdResolvConf = "/run/systemd/resolve/resolv.conf"

// maxUpstreams is how many servers one forward block takes in CoreDNS.
const maxUpstreams = 15

// hostResolvers are the resolver files of a host as they were read.
type hostResolvers struct {
	resolvConf []byte
	systemd    []byte
}

// readHostResolvers reads the files; one that is missing or unreadable is the same as an empty one.
func readHostResolvers(path string) hostResolvers {
	conf, _ := os.ReadFile(path)
	systemd, _ := os.ReadFile(systemdResolvConf)
	return hostResolvers{resolvConf: conf, systemd: systemd}
}

// chooseUpstreams decides which servers answer names outside the cluster, in the order of the host's file:
// the servers of resolv.conf without our own addresses; if all of them are loopback addresses, the servers that
// systemd-resolved knows; if there are none, the loopback servers themselves, which this server reaches because it
// runs in the host's network. An empty result means that outside names cannot be resolved; nothing is made up.
func chooseUpstreams(host hostResolvers, own []netip.Addr) []string {
	servers := nameservers(host.resolvConf, own)
	remote := func(a netip.Addr) bool { return !a.IsLoopback() }
	if !slices.ContainsFunc(servers, remote) && len(servers) > 0 {
		if behind := nameservers(host.systemd, own); slices.ContainsFunc(behind, remote) {
			servers = behind
		}
	}
	out := make([]string, 0, len(servers))
	for _, s := range servers {
		if len(out) < maxUpstreams {
			out = append(out, s.String())
		}
	}
	return out
}

// nameservers returns the addresses of the nameserver lines, each once, without those in own and without 0.0.0.0.
func nameservers(conf []byte, own []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for f := range resolvLines(conf) {
		if f[0] != "nameserver" || len(f) < 2 {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil || a.IsUnspecified() || slices.Contains(out, a.Unmap()) || slices.Contains(own, a.Unmap()) {
			continue
		}
		out = append(out, a.Unmap())
	}
	return out
}

// resolvLines yields the fields of each line that is neither empty nor a comment.
func resolvLines(conf []byte) func(func([]string) bool) {
	return func(yield func([]string) bool) {
		s := bufio.NewScanner(bytes.NewReader(conf))
		for s.Scan() {
			f := strings.Fields(s.Text())
			if len(f) == 0 || strings.HasPrefix(f[0], "#") || strings.HasPrefix(f[0], ";") {
				continue
			}
			if !yield(f) {
				return
			}
		}
	}
}

// PodResolvConf returns the resolv.conf for pods with dnsPolicy Default. A loopback server of the host cannot be
// reached from a pod's network, so when the host has no other server the pod asks the cluster DNS server, which asks
// the host's. Search domains and options are kept.
func PodResolvConf(resolvConf string, clusterDNS []netip.Addr) []byte {
	host := readHostResolvers(resolvConf)
	return podResolvConf(host, clusterDNS)
}

func podResolvConf(host hostResolvers, clusterDNS []netip.Addr) []byte {
	var out bytes.Buffer
	reachable := 0
	for _, u := range chooseUpstreams(host, clusterDNS) {
		if a, err := netip.ParseAddr(u); err == nil && !a.IsLoopback() {
			out.WriteString("nameserver " + u + "\n")
			reachable++
		}
	}
	if reachable == 0 {
		for _, a := range clusterDNS {
			out.WriteString("nameserver " + a.String() + "\n")
		}
	}
	for f := range resolvLines(host.resolvConf) {
		if f[0] == "search" || f[0] == "domain" || f[0] == "options" {
			out.WriteString(strings.Join(f, " ") + "\n")
		}
	}
	return out.Bytes()
}
