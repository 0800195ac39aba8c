package ipam

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// errNotAvailable is the code of the CNI specification 1.1, section STATUS, for
// "the plugin is not available".
const errNotAvailable = 50

// netConf is the network configuration on the plugin's standard input.
type netConf struct {
	types.PluginConf
	IPAM Conf `json:"ipam"`
}

// Conf is the "ipam" section of a network configuration.
type Conf struct {
	// Type is "kedge-ipam".
	Type string `json:"type"`
	// DataDir is the directory of the stores; that of a network is below it.
	DataDir string `json:"dataDir"`
	// Ranges are the range sets; a pod gets one address of each.
	Ranges []RangeSet `json:"ranges"`
	// Routes are passed on to the plugin that calls.
	Routes []*types.Route `json:"routes,omitempty"`
	// PodsDir is the kubelet's pods directory; see Request.
	PodsDir string `json:"podsDir,omitempty"`
	// StableMAC derives the hardware address of the pod's interface from its IP address. A pod that keeps its address in
	// a new sandbox is otherwise out of reach for half a minute, until its neighbors forget the hardware address it had.
	StableMAC bool `json:"stableMAC,omitempty"`
}

// StoreDir is the directory of a network's store below dataDir, for Open.
func StoreDir(dataDir, network string) string { return filepath.Join(dataDir, network) }

// Plugin returns the functions of the CNI plugin.
func Plugin() skel.CNIFuncs {
	return skel.CNIFuncs{Add: cmdAdd, Del: cmdDel, Check: cmdCheck, GC: cmdGC, Status: cmdStatus}
}

// parseConf reads a network configuration and opens its store.
func parseConf(data []byte) (*netConf, *Store, error) {
	var conf netConf
	if err := json.Unmarshal(data, &conf); err != nil {
		return nil, nil, types.NewError(types.ErrDecodingFailure, "kedge-ipam: decode network configuration", err.Error())
	}
	fail := func(format string, args ...any) (*netConf, *Store, error) {
		return nil, nil, types.NewError(types.ErrInvalidNetworkConfig, "kedge-ipam: "+fmt.Sprintf(format, args...), "")
	}
	if conf.Name == "" || strings.ContainsAny(conf.Name, "/\x00") || conf.Name[0] == '.' {
		return fail("name %q is not valid: give the network a name", conf.Name)
	}
	if !filepath.IsAbs(conf.IPAM.DataDir) {
		return fail("ipam.dataDir %q is not an absolute path", conf.IPAM.DataDir)
	}
	if err := complete(conf.IPAM.Ranges); err != nil {
		return fail("ipam.%v", err)
	}
	store, err := Open(StoreDir(conf.IPAM.DataDir, conf.Name))
	if err != nil {
		return nil, nil, types.NewError(types.ErrIOFailure, "kedge-ipam: "+err.Error(), "")
	}
	return &conf, store, nil
}

// owner reads the pod from CNI_ARGS, where container runtimes put it, and falls
// back on the container's id.
func owner(args *skel.CmdArgs) Owner {
	var key Key
	for pair := range strings.SplitSeq(args.Args, ";") {
		name, value, _ := strings.Cut(pair, "=")
		switch name {
		case "K8S_POD_NAMESPACE":
			key.Namespace = value
		case "K8S_POD_NAME":
			key.Name = value
		case "K8S_POD_UID":
			key.UID = value
		}
	}
	if key.UID == "" {
		return Owner{Container: args.ContainerID}
	}
	return Owner{Pod: key}
}

func cmdAdd(args *skel.CmdArgs) error {
	conf, store, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	addresses, err := store.Allocate(Request{
		Owner:     owner(args),
		Interface: args.IfName,
		Sandbox:   Sandbox{ID: args.ContainerID, Netns: args.Netns},
		Ranges:    conf.IPAM.Ranges,
		PodsDir:   conf.IPAM.PodsDir,
	})
	if err != nil {
		return fmt.Errorf("kedge-ipam: %w", err)
	}
	if conf.IPAM.StableMAC && args.Netns != "" {
		if err := setMAC(args.Netns, args.IfName, macOf(addresses[0].Prefix.Addr())); err != nil {
			return fmt.Errorf("kedge-ipam: %w", err)
		}
	}
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, Routes: conf.IPAM.Routes}
	for _, a := range addresses {
		result.IPs = append(result.IPs, &current.IPConfig{
			Address: net.IPNet{IP: a.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(a.Prefix.Bits(), a.Prefix.Addr().BitLen())},
			Gateway: a.Gateway.AsSlice(),
		})
	}
	return types.PrintResult(result, conf.CNIVersion)
}

// macOf is a locally administered hardware address that belongs to an IP address: 0a:58 and an IPv4 address, 0a:59 and a
// hash of an IPv6 address.
func macOf(a netip.Addr) net.HardwareAddr {
	if a.Is4() {
		four := a.As4()
		return append(net.HardwareAddr{0x0a, 0x58}, four[:]...)
	}
	sum := sha256.Sum256(a.AsSlice())
	return append(net.HardwareAddr{0x0a, 0x59}, sum[:4]...)
}

// setMAC changes the pod's interface, which the calling plugin has made and not yet brought up.
func setMAC(netnsPath, name string, mac net.HardwareAddr) error {
	ns, err := netns.GetFromPath(netnsPath)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", netnsPath, err)
	}
	defer ns.Close()
	links, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("open netlink in the pod's namespace: %w", err)
	}
	defer links.Close()
	link, err := links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find the pod's interface %s: %w", name, err)
	}
	if err := links.LinkSetHardwareAddr(link, mac); err != nil {
		return fmt.Errorf("set hardware address of %s: %w", name, err)
	}
	return nil
}

func cmdDel(args *skel.CmdArgs) error {
	_, store, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	if err := store.Delete(owner(args), args.IfName); err != nil {
		return fmt.Errorf("kedge-ipam: %w", err)
	}
	return nil
}

func cmdCheck(args *skel.CmdArgs) error {
	conf, store, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	found, err := store.Find(owner(args), args.IfName, args.ContainerID)
	if err != nil {
		return fmt.Errorf("kedge-ipam: %w", err)
	}
	if found == nil {
		return fmt.Errorf("kedge-ipam: sandbox %s has no address on %s", args.ContainerID, args.IfName)
	}
	if err := version.ParsePrevResult(&conf.PluginConf); err != nil {
		return fmt.Errorf("kedge-ipam: read prevResult: %w", err)
	}
	if conf.PrevResult == nil {
		return nil
	}
	previous, err := current.NewResultFromResult(conf.PrevResult)
	if err != nil {
		return fmt.Errorf("kedge-ipam: read prevResult: %w", err)
	}
	for _, a := range found {
		had := slices.ContainsFunc(previous.IPs, func(ip *current.IPConfig) bool {
			got, ok := netip.AddrFromSlice(ip.Address.IP)
			return ok && got.Unmap() == a
		})
		if !had {
			return fmt.Errorf("kedge-ipam: sandbox %s should have %s, which is not in prevResult", args.ContainerID, a)
		}
	}
	return nil
}

func cmdGC(args *skel.CmdArgs) error {
	conf, store, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	err = store.Collect(func(sandboxID, iface string) bool {
		return slices.Contains(conf.ValidAttachments, types.GCAttachment{ContainerID: sandboxID, IfName: iface})
	})
	if err != nil {
		return fmt.Errorf("kedge-ipam: %w", err)
	}
	return nil
}

// cmdStatus says whether the store can be used. An exhausted range is not an
// error here: it would make the whole node not ready.
func cmdStatus(args *skel.CmdArgs) error {
	_, store, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	if _, err := store.List(); err != nil {
		return types.NewError(errNotAvailable, "kedge-ipam: "+err.Error(), "")
	}
	return nil
}
