package config

import (
	"net/netip"
	"os"
	"slices"
)

// Setting describes one setting: a flag of the same name, a key of the config file, and environment variables.
type Setting struct {
	Name string
	// Short is a one-letter flag, or empty.
	Short string
	// Group is the heading in the manual.
	Group string
	// Value names the value in the manual, for example DIR; empty for a yes-or-no setting.
	Value string
	// Usage is one sentence for the manual.
	Usage string
	// Env holds the environment variables, the one that wins first.
	Env []string
	// Default is the value used when none is given, as it would be written on the command line.
	Default string
	// DefaultText replaces Default in the manual, for defaults that are found at run time.
	DefaultText string
	// Repeat says that the flag may be given several times.
	Repeat bool
	// Server says that only a server has it, Agent that only an agent has it.
	Server, Agent bool

	bind binding
}

// Hidden reports whether the setting is kept out of the manual.
func (s Setting) Hidden() bool { return s.Group == "" }

// Bool reports whether the setting is yes or no and its flag stands alone.
func (s Setting) Bool() bool { return s.Value == "" }

// env lists the variables of a setting: kedge's own, which wins, and the one of the family.
func env(suffix string) []string { return []string{"KEDGE_" + suffix, "K3S_" + suffix} }

func allSettings() []Setting {
	return slices.Concat(listenerSettings(), joinSettings(), clusterSettings(), networkSettings(), kubeconfigSettings(), datastoreSettings(), snapshotSettings(), partSettings(),
		nodeSettings(), runtimeSettings(), busSettings(), argumentSettings(), logSettings(), unbuiltSettings())
}

// ServerSettings returns the settings of kedge server, in the order of the manual.
func ServerSettings() []Setting {
	return slices.DeleteFunc(allSettings(), func(s Setting) bool { return s.Agent })
}

// AgentSettings returns the settings of kedge agent, in the order of the manual.
func AgentSettings() []Setting {
	return slices.DeleteFunc(allSettings(), func(s Setting) bool { return s.Server })
}

func joinSettings() []Setting {
	const group = "Joining"
	return []Setting{
		{Name: "server", Short: "s", Group: group, Value: "URL", Env: env("URL"), Repeat: true, Agent: true, DefaultText: "those of the last time",
			Usage: "Server to join, as https://10.0.0.1:6443; the node remembers it, and finds further ones in the cluster.",
			bind:  commas(func(s *Server) *[]string { return &s.Servers })},
		{Name: "token", Short: "t", Group: group, Value: "TOKEN", Env: env("TOKEN"), DefaultText: "on a server, made at the first start",
			Usage: "Secret with which nodes join: on an agent, that of its server.",
			bind:  text(func(s *Server) *string { return &s.Token })},
		{Name: "token-file", Group: group, Value: "FILE", Env: env("TOKEN_FILE"),
			Usage: "File that holds the token.",
			bind:  text(func(s *Server) *string { return &s.TokenFile })},
		{Name: "tunnel-keepalive", Group: group, Value: "SECONDS", Default: "40", Agent: true,
			Usage: "How often an idle node says that it is there; more than 40 makes the cluster notice later that it is gone.",
			bind:  number(5, 600, func(s *Server) *int { return &s.TunnelKeepalive })},
		{Name: "agent-token", Group: group, Value: "TOKEN", Env: env("AGENT_TOKEN"), Server: true, DefaultText: "made at the first start",
			Usage: "A second secret, with which agents can join and servers cannot.",
			bind:  text(func(s *Server) *string { return &s.AgentToken })},
		{Name: "agent-token-file", Group: group, Value: "FILE", Env: env("AGENT_TOKEN_FILE"), Server: true,
			Usage: "File that holds the agent-token.",
			bind:  text(func(s *Server) *string { return &s.AgentTokenFile })},
	}
}

func clusterSettings() []Setting {
	const group = "Several servers"
	return []Setting{
		{Name: "server", Short: "s", Group: group, Value: "URL", Env: env("URL"), Repeat: true, Server: true,
			Usage: "A server that was started with --cluster-init, as https://10.0.0.1:6443, which this one joins with its server token.",
			bind:  commas(func(s *Server) *[]string { return &s.Servers })},
		{Name: "cluster-init", Group: group, Env: env("CLUSTER_INIT"), Server: true,
			Usage: "Keep the data in an etcd of this server, which further servers join; data in SQLite moves there.",
			bind:  yesNo(func(s *Server) *bool { return &s.ClusterInit })},
		{Name: "cluster-reset", Group: group, Env: env("CLUSTER_RESET"), Server: true,
			Usage: "Drop all other servers from the etcd of this one, and end: for when too few of them are left.",
			bind:  yesNo(func(s *Server) *bool { return &s.ClusterReset })},
	}
}

func listenerSettings() []Setting {
	const group = "Listener"
	return []Setting{
		{Name: "bind-address", Group: group, Value: "IP", DefaultText: "0.0.0.0, or :: when the first cluster-cidr is IPv6", Server: true,
			Usage: "Address on which the API listens.",
			bind:  address(func(s *Server) *netip.Addr { return &s.BindAddress })},
		{Name: "https-listen-port", Group: group, Value: "PORT", Default: "6443", Server: true,
			Usage: "The one TCP port for everything a client or an agent needs.",
			bind:  number(1, 65535, func(s *Server) *int { return &s.Port })},
		{Name: "advertise-address", Group: group, Value: "IP", DefaultText: "the node's IP", Server: true,
			Usage: "Address at which pods and other nodes reach this API server.",
			bind:  address(func(s *Server) *netip.Addr { return &s.AdvertiseAddress })},
		{Name: "tls-san", Group: group, Value: "NAME|IP", Repeat: true, Server: true,
			Usage: "Further host name or address for the API's certificate.",
			bind:  commas(func(s *Server) *[]string { return &s.TLSSANs })},
		{Name: "rules-listen", Group: group, Value: "ADDRESS:PORT", DefaultText: "nowhere", Server: true,
			Usage: "Where requests for programs on nodes, which rules allow, are taken from anybody without TLS besides the API's port; others of the family use port 9443.",
			bind:  text(func(s *Server) *string { return &s.RulesListen })},
	}
}

func networkSettings() []Setting {
	const group = "Cluster network"
	return []Setting{
		{Name: "cluster-cidr", Group: group, Value: "CIDR", Default: "10.42.0.0/16", Repeat: true, Server: true,
			Usage: "Network of the pods; give an IPv4 and an IPv6 one for dual-stack.",
			bind:  prefixes(func(s *Server) *[]netip.Prefix { return &s.ClusterCIDRs })},
		{Name: "service-cidr", Group: group, Value: "CIDR", Default: "10.43.0.0/16", Repeat: true, Server: true,
			Usage: "Network of the Services; the same IP families as cluster-cidr.",
			bind:  prefixes(func(s *Server) *[]netip.Prefix { return &s.ServiceCIDRs })},
		{Name: "service-node-port-range", Group: group, Value: "FIRST-LAST", Default: "30000-32767", Server: true,
			Usage: "Ports of the nodes that Services of type NodePort may use.",
			bind:  text(func(s *Server) *string { return &s.NodePortRange })},
		{Name: "cluster-dns", Group: group, Value: "IP", DefaultText: "the tenth address of service-cidr: 10.43.0.10", Repeat: true, Server: true,
			Usage: "Address of the cluster's DNS, inside service-cidr.",
			bind:  addresses(func(s *Server) *[]netip.Addr { return &s.ClusterDNS })},
		{Name: "cluster-domain", Group: group, Value: "DOMAIN", Default: "cluster.local", Server: true,
			Usage: "DNS domain of the cluster.",
			bind:  text(func(s *Server) *string { return &s.ClusterDomain })},
		{Name: "flannel-backend", Group: group, Value: "vxlan|host-gw|wireguard-native|bridge|none", Default: "vxlan", Server: true,
			Usage: "How pods of different nodes reach each other; bridge: not at all, none: by a CNI plugin of your own.",
			bind:  text(func(s *Server) *string { return &s.FlannelBackend })},
		{Name: "flannel-external-ip", Group: group, Server: true,
			Usage: "With wireguard-native: nodes send to each other's node-external-ip.",
			bind:  yesNo(func(s *Server) *bool { return &s.FlannelExternalIP })},
	}
}

func kubeconfigSettings() []Setting {
	const group = "Kubeconfig"
	return []Setting{
		{Name: "write-kubeconfig", Short: "o", Group: group, Value: "FILE", Default: DefaultKubeconfig, Env: env("KUBECONFIG_OUTPUT"), Server: true,
			Usage: "Where the administrator's kubeconfig is written.",
			bind:  text(func(s *Server) *string { return &s.WriteKubeconfig })},
		{Name: "write-kubeconfig-mode", Group: group, Value: "MODE", Default: "0600", Env: env("KUBECONFIG_MODE"), Server: true,
			Usage: "Its permissions, in octal.",
			bind:  mode(func(s *Server) *os.FileMode { return &s.WriteKubeconfigMode })},
		{Name: "write-kubeconfig-group", Group: group, Value: "GROUP", Env: env("KUBECONFIG_GROUP"), Server: true,
			Usage: "Its group, a name or a number.",
			bind:  text(func(s *Server) *string { return &s.WriteKubeconfigGroup })},
	}
}

func datastoreSettings() []Setting {
	const group = "Data"
	return []Setting{
		{Name: "data-dir", Short: "d", Group: group, Value: "DIR", Default: DefaultDataDir, Env: env("DATA_DIR"),
			Usage: "Directory for everything that must survive a restart.",
			bind:  text(func(s *Server) *string { return &s.DataDir })},
		{Name: "datastore-endpoint", Group: group, Value: "URL", DefaultText: "SQLite in data-dir", Env: env("DATASTORE_ENDPOINT"), Server: true,
			Usage: "Another datastore: the URL of an etcd, or several with commas.",
			bind:  text(func(s *Server) *string { return &s.DatastoreEndpoint })},
		{Name: "datastore-cafile", Group: group, Value: "FILE", Env: env("DATASTORE_CAFILE"), Server: true,
			Usage: "Certificate authority of the datastore-endpoint.",
			bind:  text(func(s *Server) *string { return &s.DatastoreCAFile })},
		{Name: "datastore-certfile", Group: group, Value: "FILE", Env: env("DATASTORE_CERTFILE"), Server: true,
			Usage: "Client certificate for the datastore-endpoint.",
			bind:  text(func(s *Server) *string { return &s.DatastoreCertFile })},
		{Name: "datastore-keyfile", Group: group, Value: "FILE", Env: env("DATASTORE_KEYFILE"), Server: true,
			Usage: "Key of the client certificate.",
			bind:  text(func(s *Server) *string { return &s.DatastoreKeyFile })},
		{Name: "secrets-encryption", Group: group, Server: true,
			Usage: "Encrypt Secrets in the datastore, those that are there too; kedge secrets-encrypt turns it off and changes keys.",
			bind:  yesNo(func(s *Server) *bool { return &s.SecretsEncryption })},
		{Name: "secrets-encryption-provider", Group: group, Value: "aescbc|secretbox", DefaultText: "aescbc, or what the keys are", Server: true,
			Usage: "How new keys of secrets-encryption encrypt.",
			bind:  text(func(s *Server) *string { return &s.SecretsEncryptionProvider })},
		{Name: "default-local-storage-path", Group: group, Value: "DIR", DefaultText: "storage in data-dir", Server: true,
			Usage: "Where volumes of the StorageClass local-path are made.",
			bind:  text(func(s *Server) *string { return &s.DefaultLocalStoragePath })},
	}
}

// snapshotSettings have the names of the family, also where the snapshots are of SQLite.
func snapshotSettings() []Setting {
	const group = "Snapshots of the datastore, in server/db/snapshots"
	return []Setting{
		{Name: "etcd-disable-snapshots", Group: group, Server: true,
			Usage: "Take no snapshots on schedule.",
			bind:  yesNo(func(s *Server) *bool { return &s.DisableSnapshots })},
		{Name: "etcd-snapshot-schedule-cron", Group: group, Value: "CRON", DefaultText: "12 hours after the last one", Server: true,
			Usage: "When to take snapshots, as minute, hour, day, month and day of the week; one that was missed is made up for.",
			bind:  text(func(s *Server) *string { return &s.SnapshotSchedule })},
		{Name: "etcd-snapshot-retention", Group: group, Value: "N", Default: "5", Server: true,
			Usage: "How many snapshots on schedule are kept.",
			bind:  number(1, 10000, func(s *Server) *int { return &s.SnapshotRetention })},
	}
}

func partSettings() []Setting {
	const group = "Parts"
	return []Setting{
		{Name: "disable", Group: group, Value: "ADDON", Repeat: true, Server: true,
			Usage: "Leave out an add-on and remove its objects: " + addonList() + ".",
			bind:  commas(func(s *Server) *[]string { return &s.Disable })},
		{Name: "disable-helm-controller", Group: group, Server: true,
			Usage: "The same as --disable helm.",
			bind:  yesNo(func(s *Server) *bool { return &s.DisableHelmController })},
		{Name: "metrics-period", Group: group, Value: "SECONDS", DefaultText: "10", Server: true,
			Usage: "How long what a node said about its usage counts as current (metrics-server).",
			bind:  number(1, 3600, func(s *Server) *int { return &s.MetricsPeriod })},
		{Name: "disable-agent", Group: group, Server: true,
			Usage: "Run no node here, only the control plane.",
			bind:  yesNo(func(s *Server) *bool { return &s.DisableAgent })},
		{Name: "disable-scheduler", Group: group, Server: true,
			Usage: "Run no kube-scheduler.",
			bind:  yesNo(func(s *Server) *bool { return &s.DisableScheduler })},
		{Name: "disable-controller-manager", Group: group, Server: true,
			Usage: "Run no kube-controller-manager.",
			bind:  yesNo(func(s *Server) *bool { return &s.DisableControllerManager })},
		{Name: "disable-kube-proxy", Group: group, Server: true,
			Usage: "Run no kube-proxy, for a network that brings its own.",
			bind:  yesNo(func(s *Server) *bool { return &s.DisableKubeProxy })},
		{Name: "disable-network-policy", Group: group, Server: true,
			Usage: "Do not enforce NetworkPolicies, for a network that does it itself.",
			bind:  yesNo(func(s *Server) *bool { return &s.DisableNetworkPolicy })},
	}
}

func nodeSettings() []Setting {
	const group = "Node"
	return []Setting{
		{Name: "node-name", Group: group, Value: "NAME", DefaultText: "the host name", Env: env("NODE_NAME"),
			Usage: "Name of this node.",
			bind:  text(func(s *Server) *string { return &s.NodeName })},
		{Name: "node-ip", Short: "i", Group: group, Value: "IP", DefaultText: "the address of the default route", Repeat: true,
			Usage: "Address of this node; one per IP family.",
			bind:  addresses(func(s *Server) *[]netip.Addr { return &s.NodeIPs })},
		{Name: "node-external-ip", Group: group, Value: "IP", Repeat: true,
			Usage: "Address under which this node is known outside, for LoadBalancer Services; one per IP family. On a server also the default of advertise-address.",
			bind:  addresses(func(s *Server) *[]netip.Addr { return &s.NodeExternalIPs })},
		{Name: "flannel-iface", Group: group, Value: "NAME", DefaultText: "the one with the node's IP",
			Usage: "Interface by which the pods of other nodes are reached.",
			bind:  text(func(s *Server) *string { return &s.FlannelIface })},
		{Name: "node-label", Group: group, Value: "KEY=VALUE", Repeat: true,
			Usage: "Label that the node gets when it registers.",
			bind:  list(func(s *Server) *[]string { return &s.NodeLabels })},
		{Name: "node-taint", Group: group, Value: "KEY=VALUE:EFFECT", Repeat: true,
			Usage: "Taint that the node gets when it registers.",
			bind:  list(func(s *Server) *[]string { return &s.NodeTaints })},
		{Name: "with-node-id", Group: group,
			Usage: "Append a number that this machine keeps to the node's name.",
			bind:  yesNo(func(s *Server) *bool { return &s.WithNodeID })},
		{Name: "protect-kernel-defaults", Group: group,
			Usage: "Do not start when the kernel's settings are not those that the kubelet wants, instead of changing them.",
			bind:  yesNo(func(s *Server) *bool { return &s.ProtectKernelDefaults })},
		{Name: "resolv-conf", Group: group, Value: "FILE", DefaultText: "the host's", Env: env("RESOLV_CONF"),
			Usage: "Resolver file for pods that use the host's DNS, and for names outside the cluster.",
			bind:  text(func(s *Server) *string { return &s.ResolvConf })},
	}
}

func runtimeSettings() []Setting {
	const group = "Container runtime"
	return []Setting{
		{Name: "pause-image", Group: group, Value: "IMAGE", DefaultText: "the bundled one",
			Usage: "Image of the pod sandboxes.",
			bind:  text(func(s *Server) *string { return &s.PauseImage })},
		{Name: "private-registry", Group: group, Value: "FILE", Default: DefaultPrivateRegistry,
			Usage: "Mirrors, credentials and TLS of image registries.",
			bind:  text(func(s *Server) *string { return &s.PrivateRegistry })},
		{Name: "system-default-registry", Group: group, Value: "HOST", Env: env("SYSTEM_DEFAULT_REGISTRY"), Server: true,
			Usage: "Registry for images of the system whose name has none: those of packaged add-ons, and pause-image.",
			bind:  text(func(s *Server) *string { return &s.SystemDefaultRegistry })},
		{Name: "snapshotter", Group: group, Value: "overlayfs|native", Default: "overlayfs",
			Usage: "How image layers become a file system; native copies and needs no kernel feature.",
			bind:  text(func(s *Server) *string { return &s.Snapshotter })},
		{Name: "image-credential-provider-bin-dir", Group: group, Value: "DIR",
			Usage: "Where the programs are that get credentials for registries.",
			bind:  text(func(s *Server) *string { return &s.CredentialProviderDir })},
		{Name: "image-credential-provider-config", Group: group, Value: "FILE",
			Usage: "Which of them to ask for which images: a CredentialProviderConfig.",
			bind:  text(func(s *Server) *string { return &s.CredentialProviderConfig })},
		{Name: "prefer-host-bin", Group: group,
			Usage: "Take runc and nft from PATH where they exist, not the bundled ones.",
			bind:  yesNo(func(s *Server) *bool { return &s.PreferHostBin })},
	}
}

func argumentSettings() []Setting {
	const group = "Arguments of the Kubernetes parts (flag=value, they win over kedge's own)"
	return []Setting{
		{Name: "kube-apiserver-arg", Group: group, Value: "FLAG=VALUE", Repeat: true, Server: true,
			Usage: "Argument for kube-apiserver.",
			bind:  list(func(s *Server) *[]string { return &s.KubeAPIServerArgs })},
		{Name: "kube-controller-manager-arg", Group: group, Value: "FLAG=VALUE", Repeat: true, Server: true,
			Usage: "Argument for kube-controller-manager.",
			bind:  list(func(s *Server) *[]string { return &s.KubeControllerManagerArgs })},
		{Name: "kube-scheduler-arg", Group: group, Value: "FLAG=VALUE", Repeat: true, Server: true,
			Usage: "Argument for kube-scheduler.",
			bind:  list(func(s *Server) *[]string { return &s.KubeSchedulerArgs })},
		{Name: "kubelet-arg", Group: group, Value: "FLAG=VALUE", Repeat: true,
			Usage: "Argument for the kubelet.",
			bind:  list(func(s *Server) *[]string { return &s.KubeletArgs })},
		{Name: "kube-proxy-arg", Group: group, Value: "FLAG=VALUE", Repeat: true,
			Usage: "Argument for kube-proxy.",
			bind:  list(func(s *Server) *[]string { return &s.KubeProxyArgs })},
	}
}

func logSettings() []Setting {
	const group = "Log"
	return []Setting{
		{Name: "debug", Group: group, Env: env("DEBUG"),
			Usage: "Show debug lines.",
			bind:  yesNo(func(s *Server) *bool { return &s.Log.Debug })},
		{Name: "v", Group: group, Value: "0-10", Default: "0",
			Usage: "Detail of Kubernetes' own lines.",
			bind:  number(0, 10, func(s *Server) *int { return &s.Log.Verbosity })},
		{Name: "vmodule", Group: group, Value: "FILE=N,...",
			Usage: "Detail for single source files of Kubernetes, patterns without the ending .go.",
			bind:  text(func(s *Server) *string { return &s.Log.VModule })},
		{Name: "log", Short: "l", Group: group, Value: "FILE", DefaultText: "standard error",
			Usage: "File to which the log is appended.",
			bind:  text(func(s *Server) *string { return &s.Log.File })},
		{Name: "alsologtostderr", Group: group,
			Usage: "With log: write to standard error too.",
			bind:  yesNo(func(s *Server) *bool { return &s.Log.AlsoStderr })},
	}
}

// busSettings are those of the message bus (MQTT) for devices.
func busSettings() []Setting {
	const group = "Devices (message bus, MQTT)"
	return []Setting{
		{Name: "disable-mqtt", Group: group,
			Usage: "Run no message bus for devices on this node.",
			bind:  yesNo(func(s *Server) *bool { return &s.MQTT.Disable })},
		{Name: "mqtt-listen", Group: group, Value: "IP:PORT", Repeat: true, DefaultText: "what kedge device bus-listen said, or 127.0.0.1:1883",
			Usage: "Where the bus listens; beyond this machine with TLS only.",
			bind:  commas(func(s *Server) *[]string { return &s.MQTT.Listen })},
		{Name: "mqtt-tls-cert", Group: group, Value: "FILE", DefaultText: "the node's own, of the cluster's authority",
			Usage: "Certificate that the bus shows, PEM; read again for each connection.",
			bind:  text(func(s *Server) *string { return &s.MQTT.Cert })},
		{Name: "mqtt-tls-key", Group: group, Value: "FILE",
			Usage: "Key of mqtt-tls-cert.",
			bind:  text(func(s *Server) *string { return &s.MQTT.Key })},
		{Name: "mqtt-tls-client-ca", Group: group, Value: "FILE",
			Usage: "Clients beyond this machine must also show a certificate of this authority.",
			bind:  text(func(s *Server) *string { return &s.MQTT.ClientCA })},
		{Name: "mqtt-credentials", Group: group, Value: "FILE",
			Usage: "Further clients, one a line: name, password or the digest that mosquitto_passwd writes, and the devices it may use (all when there are none).",
			bind:  text(func(s *Server) *string { return &s.MQTT.Credentials })},
		{Name: "mqtt-anonymous", Group: group,
			Usage: "Let clients on this machine in without name and password, for all devices.",
			bind:  yesNo(func(s *Server) *bool { return &s.MQTT.Anonymous })},
		{Name: "mqtt-max-connections", Group: group, Value: "N", Default: "512",
			Usage: "Most connections to the bus at a time.",
			bind:  number(1, 65535, func(s *Server) *int { return &s.MQTT.MaxConnections })},
		{Name: "mqtt-max-packet", Group: group, Value: "BYTES", Default: "262144",
			Usage: "Largest packet that a client may send.",
			bind:  number(1<<10, 16<<20, func(s *Server) *int { return &s.MQTT.MaxPacket })},
		{Name: "mqtt-max-queue", Group: group, Value: "BYTES", Default: "4194304",
			Usage: "What may wait for one client before it is shut out.",
			bind:  number(16<<10, 256<<20, func(s *Server) *int { return &s.MQTT.MaxQueue })},
		{Name: "mqtt-external", Group: group, Value: "URL",
			Usage: "Serve the clients of a broker that is there already too: tcp://HOST:PORT or ssl://HOST:PORT.",
			bind:  text(func(s *Server) *string { return &s.MQTT.External })},
		{Name: "mqtt-external-credentials", Group: group, Value: "FILE",
			Usage: "One line with the name and the password for mqtt-external.",
			bind:  text(func(s *Server) *string { return &s.MQTT.ExternalCredentials })},
		{Name: "mqtt-external-cafile", Group: group, Value: "FILE", DefaultText: "those that the machine trusts",
			Usage: "Authority of the certificate of mqtt-external.",
			bind:  text(func(s *Server) *string { return &s.MQTT.ExternalCA })},
		{Name: "mqtt-external-certfile", Group: group, Value: "FILE",
			Usage: "Certificate to show to mqtt-external.",
			bind:  text(func(s *Server) *string { return &s.MQTT.ExternalCert })},
		{Name: "mqtt-external-keyfile", Group: group, Value: "FILE",
			Usage: "Key of mqtt-external-certfile.",
			bind:  text(func(s *Server) *string { return &s.MQTT.ExternalKey })},
		{Name: "mqtt-external-qos", Group: group, Value: "0-2", Default: "1",
			Usage: "Quality of service of questions and answers on mqtt-external; from 1 on it keeps questions while kedge is away.",
			bind:  number(0, 2, func(s *Server) *int { return &s.MQTT.ExternalQoS })},
	}
}
