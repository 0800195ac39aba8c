package controlplane

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/kedge-io/kedge/pkg/controlplane/policies"
)

// Files are the certificates and keys of the control plane, as paths.
type Files struct {
	ServerCA, ServerCAKey           string
	ClientCA, ClientCAKey           string
	RequestHeaderCA                 string
	ServingCert, ServingKey         string
	KubeletCert, KubeletKey         string
	ProxyClientCert, ProxyClientKey string
	ServiceKey                      string
	AdminKubeconfig                 string
	ControllerKubeconfig            string
	SchedulerKubeconfig             string
}

// Config is what the control plane needs to know. All parts of it share one value.
type Config struct {
	Files Files
	// EtcdEndpoint is the URL of the datastore, unix:// or http(s)://.
	EtcdEndpoint string
	// EtcdCAFile, EtcdCertFile and EtcdKeyFile are for an etcd with TLS; empty otherwise.
	EtcdCAFile, EtcdCertFile, EtcdKeyFile string
	// SingleServer says that no other API server shares the datastore: leases that only several need are off.
	SingleServer bool
	// BindAddress and Port are where the one port for clients and agents listens.
	BindAddress string
	Port        int
	// AdvertiseAddress is what the kubernetes Service points to.
	AdvertiseAddress netip.Addr
	ClusterCIDRs     []netip.Prefix
	ServiceCIDRs     []netip.Prefix
	NodePortRange    string
	ClusterDomain    string
	// APIServerArgs and the others are the user's, flag=value, and win.
	APIServerArgs, ControllerManagerArgs, SchedulerArgs []string
}

// apiServerArgs is the command line of kube-apiserver for cfg; user arguments come last and win.
func apiServerArgs(c Config) []string {
	f := c.Files
	reconciler := "lease"
	gates := "UnknownVersionInteroperabilityProxy=false" // all servers are of about the same version
	if c.SingleServer {
		reconciler = "master-count"
		gates += ",APIServerIdentity=false"
	}
	issuer := "https://kubernetes.default.svc." + c.ClusterDomain
	args := []string{
		"--advertise-address=" + c.AdvertiseAddress.String(),
		"--allow-privileged=true",
		"--anonymous-auth=false",
		"--api-audiences=" + issuer + ",kedge",
		"--authorization-mode=Node,RBAC",
		"--bind-address=" + c.BindAddress,
		"--client-ca-file=" + f.ClientCA,
		"--enable-admission-plugins=NodeRestriction",
		"--enable-aggregator-routing=true",
		"--enable-bootstrap-token-auth=true",
		"--endpoint-reconciler-type=" + reconciler,
		// Nodes resume their watches after outages of an hour, and may know 15 minutes less than happened; upstream keeps 5 minutes.
		"--etcd-compaction-interval=80m",
		"--etcd-servers=" + c.EtcdEndpoint,
		"--kubelet-certificate-authority=" + f.ServerCA,
		"--kubelet-client-certificate=" + f.KubeletCert,
		"--kubelet-client-key=" + f.KubeletKey,
		"--kubelet-preferred-address-types=Hostname,InternalIP,ExternalIP",
		"--profiling=false",
		"--proxy-client-cert-file=" + f.ProxyClientCert,
		"--proxy-client-key-file=" + f.ProxyClientKey,
		"--requestheader-allowed-names=system:auth-proxy",
		"--requestheader-client-ca-file=" + f.RequestHeaderCA,
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--secure-port=" + strconv.Itoa(c.Port),
		"--service-account-issuer=" + issuer,
		"--service-account-key-file=" + f.ServiceKey,
		"--service-account-signing-key-file=" + f.ServiceKey,
		"--service-cluster-ip-range=" + joinPrefixes(c.ServiceCIDRs),
		"--service-node-port-range=" + c.NodePortRange,
		"--storage-media-type=application/vnd.kubernetes.protobuf",
		"--tls-cert-file=" + f.ServingCert,
		"--tls-private-key-file=" + f.ServingKey,
	}
	args = append(args, "--feature-gates="+gates)
	if c.EtcdCAFile != "" {
		args = append(args, "--etcd-cafile="+c.EtcdCAFile)
	}
	if c.EtcdCertFile != "" {
		args = append(args, "--etcd-certfile="+c.EtcdCertFile, "--etcd-keyfile="+c.EtcdKeyFile)
	}
	return append(args, userArgs(c.APIServerArgs)...)
}

// controllerManagerArgs is the command line of kube-controller-manager for cfg.
func controllerManagerArgs(c Config) []string {
	f := c.Files
	args := []string{
		"--allocate-node-cidrs=true",
		"--authentication-kubeconfig=" + f.ControllerKubeconfig,
		"--authorization-kubeconfig=" + f.ControllerKubeconfig,
		"--bind-address=127.0.0.1",
		"--cluster-cidr=" + joinPrefixes(c.ClusterCIDRs),
		"--cluster-signing-kube-apiserver-client-cert-file=" + f.ClientCA,
		"--cluster-signing-kube-apiserver-client-key-file=" + f.ClientCAKey,
		"--cluster-signing-kubelet-client-cert-file=" + f.ClientCA,
		"--cluster-signing-kubelet-client-key-file=" + f.ClientCAKey,
		"--cluster-signing-kubelet-serving-cert-file=" + f.ServerCA,
		"--cluster-signing-kubelet-serving-key-file=" + f.ServerCAKey,
		"--cluster-signing-legacy-unknown-cert-file=" + f.ServerCA,
		"--cluster-signing-legacy-unknown-key-file=" + f.ServerCAKey,
		"--controllers=*,tokencleaner,-" + policies.Name, // which package policies runs with less memory
		// Making a service account and a token for each controller would take 5 s at upstream's 20 requests a second.
		"--kube-api-burst=300",
		"--kube-api-qps=100",
		"--kubeconfig=" + f.ControllerKubeconfig,
		"--leader-elect=false", // of several servers, kedge runs it on one: by itself it would end the process when it stops
		// Nodes speak up every 40 s, and one ping may be late.
		"--node-monitor-grace-period=60s",
		"--profiling=false",
		"--root-ca-file=" + f.ServerCA,
		"--service-account-private-key-file=" + f.ServiceKey,
		"--service-cluster-ip-range=" + joinPrefixes(c.ServiceCIDRs),
		"--tls-cert-file=" + f.ServingCert, // to make one of its own takes a quarter of a second, and far more on slow machines
		"--tls-private-key-file=" + f.ServingKey,
		"--use-service-account-credentials=true",
	}
	return append(args, userArgs(c.ControllerManagerArgs)...)
}

// schedulerArgs is the command line of kube-scheduler for cfg.
func schedulerArgs(c Config) []string {
	k := c.Files.SchedulerKubeconfig
	args := []string{
		"--authentication-kubeconfig=" + k,
		"--authorization-kubeconfig=" + k,
		"--bind-address=127.0.0.1",
		"--kubeconfig=" + k,
		"--leader-elect=false",
		"--profiling=false",
		"--tls-cert-file=" + c.Files.ServingCert,
		"--tls-private-key-file=" + c.Files.ServingKey,
	}
	return append(args, userArgs(c.SchedulerArgs)...)
}

// userArgs turns flag=value, as users of --kube-…-arg write it, into --flag=value.
func userArgs(in []string) []string {
	out := make([]string, 0, len(in))
	for _, a := range in {
		out = append(out, "--"+strings.TrimLeft(a, "-"))
	}
	return out
}

func joinPrefixes(ps []netip.Prefix) string {
	s := make([]string, len(ps))
	for i, p := range ps {
		s[i] = p.String()
	}
	return strings.Join(s, ",")
}

// baseURL is where the API server answers on this machine.
func (c Config) baseURL() string {
	host := "127.0.0.1"
	if a, err := netip.ParseAddr(c.BindAddress); err == nil && !a.IsUnspecified() {
		host = c.BindAddress
	}
	return fmt.Sprintf("https://%s", netJoin(host, c.Port))
}

func netJoin(host string, port int) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(port)
}
