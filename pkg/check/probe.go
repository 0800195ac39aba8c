package check

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// probes holds the answers of the kernel to what kedge will ask of it. nil means yes. Trying is the only sure way: features
// are built in, are modules that load on demand, or are forbidden by a sandbox.
type probes struct {
	namespaces, overlay, nftables, bridge, veth, vxlan error
	conntrack                                          bool
}

// probeKernel tries everything in network and mount namespaces of its own, which vanish with the thread.
func probeKernel(cfg Config) *probes {
	var p probes
	dir, err := os.MkdirTemp(existing(cfg.DataDir), ".kedge-check-")
	if err == nil {
		defer os.RemoveAll(dir)
	}
	onSpareThread(func() {
		if p.namespaces = unshare(); p.namespaces != nil {
			return
		}
		p.overlay = err
		if err == nil {
			p.overlay = tryOverlay(dir)
		}
		p.nftables = tryNFTables()
		p.tryLinks()
		_, err := os.Stat("/proc/sys/net/netfilter/nf_conntrack_max")
		p.conntrack = err == nil
	})
	return &p
}

// onSpareThread runs f on a thread that ends with it. The main thread is no spare one: it would stay, in the namespaces
// that f has entered, and everything below /proc/self is seen through it.
func onSpareThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onSpareThread(f) // while this goroutine holds the main thread
			runtime.UnlockOSThread()
			return
		}
		f() // never unlocked: the thread ends with the goroutine
	}()
	<-done
}

func unshare() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("new namespaces: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	return nil
}

func tryOverlay(dir string) error {
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
	merged := filepath.Join(dir, "merged")
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return err
	}
	defer func() { _ = unix.Unmount(merged, unix.MNT_DETACH) }() // it ends with the namespace in any case
	return os.WriteFile(filepath.Join(merged, "file"), nil, 0o600)
}

// tryNFTables asks for the ruleset's generation, message NFT_MSG_GETGEN of linux/netfilter/nf_tables.h.
func tryNFTables() error {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, unix.NLM_F_REQUEST)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	return err
}

func (p *probes) tryLinks() {
	attrs := func(name string) netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Name = name
		return a
	}
	p.bridge = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs("kbridge")})
	p.veth = netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs("kveth0"), PeerName: "kveth1"})
	p.vxlan = netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs("kvxlan"), VxlanId: 1, Port: 8472})
}

func checkOverlay(cfg Config, p *probes) Result {
	switch {
	case cfg.Snapshotter != "overlayfs":
		return pass("not needed with the snapshotter " + cfg.Snapshotter)
	case p.namespaces != nil:
		return fail(notTried(p), "run kedge with CAP_SYS_ADMIN, outside an unprivileged container")
	case p.overlay != nil:
		return fail(fmt.Sprintf("cannot be mounted on %s: %s", existing(cfg.DataDir), p.overlay),
			"put --data-dir on ext4 or xfs and load the module overlay, or use --snapshotter native")
	}
	return pass("works in " + existing(cfg.DataDir))
}

func checkNFTables(cfg Config, p *probes) Result {
	switch {
	case !cfg.KubeProxy:
		return pass("not needed without kube-proxy")
	case p.namespaces != nil:
		return fail(notTried(p), "run kedge with CAP_NET_ADMIN and CAP_SYS_ADMIN")
	case p.nftables != nil:
		return fail("the kernel refuses: "+p.nftables.Error(), "use a kernel with CONFIG_NF_TABLES, or load the module nf_tables")
	}
	return pass("works")
}

func checkLinks(_ Config, p *probes) Result {
	for _, l := range []struct {
		name string
		err  error
	}{{"bridge", firstError(p.namespaces, p.bridge)}, {"veth", p.veth}} {
		if l.err != nil {
			return fail(fmt.Sprintf("a %s cannot be made: %s", l.name, l.err), "load the kernel module "+l.name)
		}
	}
	return pass("can be made")
}

func checkVXLAN(_ Config, p *probes) Result {
	if err := firstError(p.namespaces, p.vxlan); err != nil {
		return warn("cannot be made: "+err.Error(), "load the kernel module vxlan; one node alone does without")
	}
	return pass("can be made")
}

func checkConntrack(_ Config, p *probes) Result {
	if p.namespaces == nil && !p.conntrack {
		return warn("nf_conntrack is not loaded", "load the kernel module nf_conntrack; Services need it")
	}
	return pass("present")
}

func checkNamespaces(_ Config, p *probes) Result {
	for _, ns := range []string{"mnt", "net", "pid", "uts", "ipc"} {
		if _, err := os.Stat("/proc/self/ns/" + ns); err != nil {
			return fail("the kernel has no "+ns+" namespaces", "use a kernel with CONFIG_NAMESPACES and all kinds of them")
		}
	}
	if p.namespaces != nil {
		return fail(p.namespaces.Error(), "run kedge with CAP_SYS_ADMIN, outside an unprivileged container")
	}
	return pass("mnt, net, pid, uts, ipc")
}

func notTried(p *probes) string { return "could not be tried: " + p.namespaces.Error() }

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
