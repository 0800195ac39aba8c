package kubelet

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
)

// Config is what the kubelet needs to know about this node. All paths are absolute.
type Config struct {
	NodeName string
	// NodeIPs are the addresses the node is known by, one a family.
	NodeIPs []netip.Addr
	// Kubeconfig is how the kubelet reaches the API, ClientCA whom its own port trusts.
	Kubeconfig, ClientCA, ServingCert, ServingKey string
	// CRISocket is containerd's unix socket.
	CRISocket string
	// RootDir holds volumes and pod directories, StaticPodDir manifests of static pods, PluginDir flex volume plugins.
	RootDir, StaticPodDir, PluginDir string
	// ClusterDNS are the resolvers written into pods, ClusterDomain their search domain.
	ClusterDNS    []netip.Addr
	ClusterDomain string
	// ResolvConf is the host's resolver file for pods with dnsPolicy Default.
	ResolvConf string
	// SystemdCgroup makes pod cgroups as systemd slices instead of directories.
	SystemdCgroup bool
	// Labels and Taints are set when the node registers.
	Labels map[string]string
	Taints []string
	// ExternalAddresses says that the server completes the node's addresses.
	ExternalAddresses bool
	// Heartbeat is how often the kubelet renews the node's lease itself; 0 means every 10 s. Report is how often it writes a
	// status that has not changed; 0 means every 5 min.
	Heartbeat, Report time.Duration
	// ExtraArgs are kubelet flags (flag=value) of the user; they win.
	ExtraArgs []string
}

// flags is the command-line half of the kubelet's settings for c.
func flags(c Config) *options.KubeletFlags {
	f := options.NewKubeletFlags()
	f.KubeConfig = c.Kubeconfig
	f.HostnameOverride = c.NodeName
	f.NodeIP = joinAddrs(c.NodeIPs)
	f.NodeLabels = c.Labels
	if c.ExternalAddresses {
		f.CloudProvider = "external"
	}
	f.RootDirectory = c.RootDir
	return f
}

// configuration sets the configuration-file half of the kubelet's settings for c.
func configuration(c Config, k *kubeletconfig.KubeletConfiguration) {
	k.ContainerRuntimeEndpoint = "unix://" + c.CRISocket
	k.ImageServiceEndpoint = k.ContainerRuntimeEndpoint
	k.CgroupDriver = "cgroupfs"
	if c.SystemdCgroup {
		k.CgroupDriver = "systemd"
	}
	k.FailCgroupV1 = false
	k.FailSwapOn = false
	k.Authentication.Anonymous.Enabled = false
	k.Authentication.Webhook.Enabled = true
	k.Authentication.Webhook.CacheTTL = metav1.Duration{Duration: 2 * time.Minute}
	k.Authentication.X509.ClientCAFile = c.ClientCA
	k.Authorization.Mode = kubeletconfig.KubeletAuthorizationModeWebhook
	k.TLSCertFile = c.ServingCert
	k.TLSPrivateKeyFile = c.ServingKey
	k.RotateCertificates = false
	k.ReadOnlyPort = 0
	k.HealthzBindAddress = "127.0.0.1"
	k.ClusterDNS = nil
	for _, a := range c.ClusterDNS {
		k.ClusterDNS = append(k.ClusterDNS, a.String())
	}
	k.ClusterDomain = c.ClusterDomain
	k.ResolverConfig = c.ResolvConf
	k.StaticPodPath = c.StaticPodDir
	k.VolumePluginDir = c.PluginDir
	k.SerializeImagePulls = false
	k.EvictionHard = map[string]string{"imagefs.available": "5%", "nodefs.available": "5%"}
	k.EvictionMinimumReclaim = map[string]string{"imagefs.available": "10%", "nodefs.available": "10%"}
	k.LocalStorageCapacityIsolation = true
	if c.Heartbeat > 0 {
		k.NodeLeaseDurationSeconds = int32(4 * c.Heartbeat / time.Second) // the kubelet renews after a quarter of it
	}
	if c.Report > 0 {
		k.NodeStatusReportFrequency = metav1.Duration{Duration: c.Report}
	}
}

// server joins both halves, lets the user's arguments override them, and checks the result.
func server(c Config) (*options.KubeletServer, error) {
	f := flags(c)
	k, err := options.NewKubeletConfiguration()
	if err != nil {
		return nil, fmt.Errorf("make kubelet configuration: %w", err)
	}
	configuration(c, k)
	set := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	set.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	f.AddFlags(set)
	options.AddKubeletConfigFlags(set, k)
	args := make([]string, 0, len(c.ExtraArgs)+len(c.Taints))
	if len(c.Taints) > 0 {
		args = append(args, "--register-with-taints="+strings.Join(c.Taints, ","))
	}
	for _, a := range c.ExtraArgs {
		args = append(args, "--"+strings.TrimLeft(a, "-"))
	}
	if err := set.Parse(args); err != nil {
		return nil, fmt.Errorf("parse kubelet arguments: %w", err)
	}
	s := &options.KubeletServer{KubeletFlags: *f, KubeletConfiguration: *k}
	if err := options.ValidateKubeletServer(s); err != nil {
		return nil, fmt.Errorf("check kubelet configuration: %w", err)
	}
	return s, nil
}

func joinAddrs(addrs []netip.Addr) string {
	s := make([]string, len(addrs))
	for i, a := range addrs {
		s[i] = a.String()
	}
	return strings.Join(s, ",")
}
