package check

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// listener is a TCP address that kedge is going to listen on.
type listener struct {
	addr netip.AddrPort
	part string
	flag string // how to move it
}

// listeners returns what the parts will listen on.
func listeners(cfg Config) []listener {
	loopback, all := netip.MustParseAddr("127.0.0.1"), netip.IPv6Unspecified()
	var ls []listener
	if cfg.Port != 0 {
		bind := cfg.BindAddress
		if !bind.IsValid() || bind == netip.IPv4Unspecified() {
			bind = all
		}
		ls = append(ls,
			listener{netip.AddrPortFrom(bind, uint16(cfg.Port)), "the API", "choose another --https-listen-port"},
			listener{netip.AddrPortFrom(loopback, 10257), "kube-controller-manager", "use --kube-controller-manager-arg=secure-port=PORT"},
			listener{netip.AddrPortFrom(loopback, 10259), "kube-scheduler", "use --kube-scheduler-arg=secure-port=PORT"})
	}
	if cfg.Node {
		ls = append(ls, listener{netip.AddrPortFrom(all, 10250), "the kubelet", "use --kubelet-arg=port=PORT"})
	}
	if cfg.Node && cfg.Port == 0 { // an agent
		ls = append(ls, listener{netip.AddrPortFrom(loopback, 6444), "the way to the servers", "stop the program that listens there"})
	}
	if cfg.Node && cfg.KubeProxy {
		ls = append(ls,
			listener{netip.AddrPortFrom(loopback, 10249), "kube-proxy", "use --kube-proxy-arg=metrics-bind-address=IP:PORT"},
			listener{netip.AddrPortFrom(loopback, 10256), "kube-proxy", "use --kube-proxy-arg=healthz-bind-address=IP:PORT"})
	}
	return ls
}

func checkPorts(cfg Config, _ *probes) Result {
	ls := listeners(cfg)
	var numbers []string
	for _, l := range ls {
		numbers = append(numbers, strconv.Itoa(int(l.addr.Port())))
		if r := checkPort(l, holder(cfg.DataDir)); r.Outcome != Pass {
			return r
		}
	}
	return pass(strings.Join(numbers, ", ") + " are free, or used by the kedge that runs here")
}

// checkPort tries to listen. A port of the kedge with process id own is as good as free.
func checkPort(l listener, own int) Result {
	socket, err := net.Listen("tcp", listenAddress(l.addr))
	switch {
	case err == nil:
		_ = socket.Close() // it never accepted anything
		return pass("free")
	case errors.Is(err, syscall.EADDRINUSE):
		name, pid := owner(int(l.addr.Port()))
		if pid != 0 && pid == own {
			return pass("used by the kedge that runs here")
		}
		return fail(fmt.Sprintf("port %d for %s is in use%s", l.addr.Port(), l.part, by(name, pid)), "stop what uses it, or "+l.flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fail(fmt.Sprintf("%s is not an address of this machine", l.addr.Addr()), "choose another --bind-address")
	}
	return fail(fmt.Sprintf("port %d for %s: %s", l.addr.Port(), l.part, err), l.flag)
}

// listenAddress leaves the host out for all addresses, so that a kernel without IPv6 takes IPv4's.
func listenAddress(a netip.AddrPort) string {
	if a.Addr().IsUnspecified() {
		return fmt.Sprintf(":%d", a.Port())
	}
	return a.String()
}

func by(name string, pid int) string {
	if pid == 0 {
		return ""
	}
	return fmt.Sprintf(" by %s (pid %d)", name, pid)
}

// owner finds the process that listens on a TCP port; pid is 0 when it cannot be found.
func owner(port int) (name string, pid int) {
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue // no IPv6
		}
		for _, inode := range listening(string(data), port) {
			inodes["socket:["+inode+"]"] = true
		}
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is well-formed
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && inodes[target] {
			pid := strings.Split(link, "/")[2]
			comm, _ := os.ReadFile("/proc/" + pid + "/comm") // a process that has ended has no name
			n, _ := strconv.Atoi(pid)                        // the pattern admits digits only, in effect
			return strings.TrimSpace(string(comm)), n
		}
	}
	return "", 0
}

// listening returns the inodes of the sockets that listen on port, from a table in the format of /proc/net/tcp.
func listening(table string, port int) []string {
	var inodes []string
	lines := bufio.NewScanner(strings.NewReader(table))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		const stateListen = "0A"
		if len(f) < 10 || f[3] != stateListen {
			continue
		}
		_, hex, _ := strings.Cut(f[1], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); err == nil && int(n) == port {
			inodes = append(inodes, f[9])
		}
	}
	return inodes
}
