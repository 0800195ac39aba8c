// Package config holds the settings of kedge: one table says the name, default, environment variables and meaning of each,
// and Load merges defaults, config file, environment and command line in that order. It starts and touches nothing.
// Only cli, server and agent import it; a feature declares the few values it needs itself.
package config

import (
	"net"
	"net/netip"
	"os"
	"slices"
)

// DefaultFile is the config file that is read when none is named; it may be missing. Drop-ins lie beside it in
// a directory of the same name with .d appended.
const DefaultFile = "/etc/kedge/config.yaml"

// DefaultDataDir is where kedge keeps everything that must survive a restart.
const DefaultDataDir = "/var/lib/kedge"

// DefaultPrivateRegistry is where a node looks for mirrors and logins of registries; it may be missing.
const DefaultPrivateRegistry = "/etc/kedge/registries.yaml"

// DefaultKubeconfig is where a server writes the operator's kubeconfig.
const DefaultKubeconfig = "/etc/kedge/kedge.yaml"

// Log says how much is logged and where.
type Log struct {
	// Debug shows debug lines.
	Debug bool
	// Verbosity is the detail of Kubernetes' own log lines, 0 to 10.
	Verbosity int
	// VModule is per-file verbosity, a comma-separated list of pattern=N.
	VModule string
	// File receives the log instead of standard error; empty means standard error.
	File string
	// AlsoStderr keeps standard error when File is set.
	AlsoStderr bool
}

// MQTT says how the message bus for devices is. Paths are absolute or empty.
type MQTT struct {
	Disable bool
	// Listen are IP:PORT; none leaves it to the operator on the node.
	Listen []string
	// Cert and Key are both set or both empty: then the bus shows the node's own certificate.
	Cert, Key string
	// ClientCA is the authority of certificates that clients must show.
	ClientCA string
	// Credentials is a file with clients.
	Credentials string
	// Anonymous lets clients on this machine in without a name.
	Anonymous bool
	// MaxConnections is a number, MaxPacket and MaxQueue are bytes.
	MaxConnections, MaxPacket, MaxQueue int
	// External is the URL of a broker that is there already, and what it wants.
	External                                                   string
	ExternalCredentials, ExternalCA, ExternalCert, ExternalKey string
	ExternalQoS                                                int
}

// Agent holds the settings of one node.
type Agent struct {
	// DataDir is an absolute path.
	DataDir string
	// PreferHostBin takes programs from the host's PATH before the bundled ones.
	PreferHostBin bool
	Log           Log

	// Servers are the URLs of the servers to join; an agent that has joined may have none.
	Servers []string
	// Token lets nodes join; TokenFile holds it instead. At most one of the two is set.
	Token, TokenFile string

	// WithNodeID appends a number that the machine keeps to NodeName.
	WithNodeID bool
	// NodeName is a DNS-1123 subdomain; the host name in lower case when not set.
	NodeName string
	// NodeIPs holds at most one address per IP family; empty means found by looking.
	NodeIPs []netip.Addr
	// NodeIPFound says that NodeIPs were found by looking, and may change.
	NodeIPFound bool
	// NodeLabels are key=value, set when the node registers.
	NodeLabels []string
	// NodeTaints are key[=value]:effect, set when the node registers.
	NodeTaints []string
	// TunnelKeepalive is how often the node says that it is there, in seconds.
	TunnelKeepalive int
	// NodeExternalIPs are the addresses under which the node is known outside, one a family.
	NodeExternalIPs []netip.Addr
	// FlannelIface is the interface that leads to the pods of other nodes; empty means found by the node's address.
	FlannelIface string
	// ResolvConf is the resolver file for pods that use the host's DNS; empty means found by looking.
	ResolvConf string

	// PauseImage is the sandbox image; empty means the bundled one.
	PauseImage string
	// PrivateRegistry is the path of registries.yaml; it may be missing.
	PrivateRegistry string
	Snapshotter     string

	// ProtectKernelDefaults, CredentialProviderDir and CredentialProviderConfig are for the kubelet; LoadServer and LoadAgent put them into KubeletArgs.
	ProtectKernelDefaults                           bool
	CredentialProviderDir, CredentialProviderConfig string

	MQTT MQTT

	// KubeletArgs and KubeProxyArgs are flag=value without leading dashes; they win over kedge's own.
	KubeletArgs, KubeProxyArgs []string
}

// Server holds the settings of a server; a server also runs everything a node runs.
type Server struct {
	Agent

	// AgentToken lets agents join; AgentTokenFile holds it instead. At most one of the two is set.
	AgentToken, AgentTokenFile string

	BindAddress netip.Addr
	// Port is where everything listens that a client or an agent needs.
	Port int
	// AdvertiseAddress is not valid when it is to be found from the node's addresses.
	AdvertiseAddress netip.Addr
	// RulesListen is an address with a port, where requests of rules are taken from anybody; empty means nowhere.
	RulesListen string
	// TLSSANs are further addresses and DNS names for the serving certificate.
	TLSSANs []string

	// ClusterCIDRs and ServiceCIDRs hold one range, or two of different IP families.
	ClusterCIDRs, ServiceCIDRs []netip.Prefix
	// NodePortRange is first-last.
	NodePortRange string
	// ClusterDNS lies inside ServiceCIDRs; the tenth address of each unless set.
	ClusterDNS    []netip.Addr
	ClusterDomain string
	// SystemDefaultRegistry is host[:port], or empty.
	SystemDefaultRegistry string
	// FlannelBackend is vxlan, host-gw, wireguard-native, bridge or none.
	FlannelBackend string
	// FlannelExternalIP has nodes send to each other's NodeExternalIPs.
	FlannelExternalIP bool

	WriteKubeconfig string
	// WriteKubeconfigMode is the kubeconfig's permission bits.
	WriteKubeconfigMode os.FileMode
	// WriteKubeconfigGroup is a group name or number; empty leaves the group alone.
	WriteKubeconfigGroup string

	// SecretsEncryption has Secrets encrypted in the datastore, with keys of type SecretsEncryptionProvider, empty for the one there is.
	SecretsEncryption         bool
	SecretsEncryptionProvider string

	// DisableHelmController is another way to name helm in Disable.
	DisableHelmController bool
	// MetricsPeriod is how many seconds usage counts as current; 0 for the default.
	MetricsPeriod int

	// ClusterInit keeps the data in an etcd of this server, which further servers join; ClusterReset drops the others from it.
	ClusterInit, ClusterReset bool

	// DisableSnapshots, SnapshotSchedule (cron; empty for every 12 hours) and SnapshotRetention are about snapshots on schedule.
	DisableSnapshots  bool
	SnapshotSchedule  string
	SnapshotRetention int

	// DatastoreEndpoint is empty for the SQLite file in the data directory.
	DatastoreEndpoint                                               string
	DatastoreCAFile, DatastoreCertFile, DatastoreKeyFile            string
	Disable                                                         []string
	DisableAgent, DisableScheduler, DisableControllerManager        bool
	DisableKubeProxy, DisableNetworkPolicy                          bool
	DefaultLocalStoragePath                                         string
	KubeAPIServerArgs, KubeControllerManagerArgs, KubeSchedulerArgs []string
}

// Disabled reports whether --disable names the add-on.
func (s Server) Disabled(addon string) bool { return slices.Contains(s.DisabledAddons(), addon) }

// DisabledAddons are the names of all add-ons that are left out; what others of the family call differently has both names.
func (s Server) DisabledAddons() []string {
	out := slices.Clone(s.Disable)
	if slices.Contains(out, "traefik") {
		out = append(out, "ingress")
	}
	if s.DisableHelmController {
		out = append(out, "helm")
	}
	return out
}

// StdNodeIPs are NodeIPs in the type of package net, which certificates use.
func (a Agent) StdNodeIPs() []net.IP {
	ips := make([]net.IP, len(a.NodeIPs))
	for i, ip := range a.NodeIPs {
		ips[i] = ip.AsSlice()
	}
	return ips
}
