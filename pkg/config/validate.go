package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/robfig/cron/v3"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeletapis "k8s.io/kubelet/pkg/apis"
)

// addons are the names that --disable knows. The later ones are of the family: kedge has no such add-on (yet), so
// leaving it out is always true.
func addons() []string {
	return []string{"autonomy", "coredns", "devices", "grid", "helm", "ingress", "local-storage", "metrics-server", "rules", "runtimes", "servicelb", "traefik"}
}

func addonList() string { return strings.Join(addons(), ", ") }

// Validate checks the settings of a server against each other. The error names the flag and the fix.
func (s Server) Validate() error {
	checks := []error{
		s.Agent.Validate(),
		s.validateListener(),
		notBoth("agent-token", s.AgentToken, "agent-token-file", s.AgentTokenFile),
		validateCIDRs("cluster-cidr", s.ClusterCIDRs, 8, 24, 48, 64),
		validateCIDRs("service-cidr", s.ServiceCIDRs, 12, 28, 108, 124),
		s.validateNetworks(),
		s.validateDNS(),
		s.validateNodePorts(),
		oneOf("flannel-backend", s.FlannelBackend, "vxlan", "host-gw", "wireguard-native", "bridge", "none"),
		s.validateDatastore(),
		s.validateCluster(),
		s.validateAddons(),
		optional(registryHost, "system-default-registry", s.SystemDefaultRegistry),
		optional(listenAddress, "rules-listen", s.RulesListen),
		absolute("write-kubeconfig", s.WriteKubeconfig),
		absolute("default-local-storage-path", s.DefaultLocalStoragePath),
		validateArgs("kube-apiserver-arg", s.KubeAPIServerArgs),
		validateArgs("kube-controller-manager-arg", s.KubeControllerManagerArgs),
		validateArgs("kube-scheduler-arg", s.KubeSchedulerArgs),
		s.validateEncryption(),
		optional(cronSchedule, "etcd-snapshot-schedule-cron", s.SnapshotSchedule),
	}
	return first(checks)
}

// Validate checks the settings of a node. The error names the flag and the fix.
func (a Agent) Validate() error {
	checks := []error{
		absolute("data-dir", a.DataDir),
		notBoth("token", a.Token, "token-file", a.TokenFile),
		a.validateName(),
		onePerFamily("node-ip", a.NodeIPs),
		onePerFamily("node-external-ip", a.NodeExternalIPs),
		optional(absolute, "resolv-conf", a.ResolvConf),
		optional(absolute, "private-registry", a.PrivateRegistry),
		oneOf("snapshotter", a.Snapshotter, "overlayfs", "native"),
		a.MQTT.validate(),
		bothOrNone("image-credential-provider-bin-dir", a.CredentialProviderDir, "image-credential-provider-config", a.CredentialProviderConfig),
		optional(absolute, "image-credential-provider-bin-dir", a.CredentialProviderDir),
		optional(absolute, "image-credential-provider-config", a.CredentialProviderConfig),
		validateArgs("kubelet-arg", a.KubeletArgs),
		validateArgs("kube-proxy-arg", a.KubeProxyArgs),
	}
	for _, l := range a.NodeLabels {
		checks = append(checks, validateLabel(l))
	}
	for _, t := range a.NodeTaints {
		checks = append(checks, validateTaint(t))
	}
	if strings.ContainsAny(a.PauseImage, " \t") {
		checks = append(checks, fmt.Errorf("--pause-image: %q is not the name of an image", a.PauseImage))
	}
	return first(checks)
}

// registryHost checks the name of a registry: a host, with a port if it has one.
func registryHost(name, v string) error {
	u, err := url.Parse("https://" + v)
	if err != nil || u.Host != v || u.Hostname() == "" {
		return fmt.Errorf("--%s: %q is not a host, with a port if it has one, such as registry.example:5000", name, v)
	}
	return nil
}

// listenAddress checks an address with a port.
func listenAddress(name, v string) error {
	if _, err := netip.ParseAddrPort(v); err != nil {
		return fmt.Errorf("--%s: %q is not an address with a port, such as 10.0.0.1:9443 or 0.0.0.0:9443", name, v)
	}
	return nil
}

func first(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func notBoth(one, value, other, otherValue string) error {
	if value != "" && otherValue != "" {
		return fmt.Errorf("--%s and --%s are both set: keep one of them", one, other)
	}
	return nil
}

func bothOrNone(one, value, other, otherValue string) error {
	if (value == "") != (otherValue == "") {
		return fmt.Errorf("--%s and --%s go together: give both or none", one, other)
	}
	return nil
}

// cronSchedule checks when something is to be done.
func cronSchedule(name, v string) error {
	if _, err := cron.ParseStandard(v); err != nil {
		return fmt.Errorf("--%s: %q is not minute, hour, day, month and day of the week, such as \"0 */6 * * *\", or @daily", name, v)
	}
	return nil
}

func absolute(name, path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("--%s: %q is not an absolute path", name, path)
	}
	return nil
}

func optional(check func(name, v string) error, name, v string) error {
	if v == "" {
		return nil
	}
	return check(name, v)
}

func oneOf(name, v string, allowed ...string) error {
	if !slices.Contains(allowed, v) {
		return fmt.Errorf("--%s: %q is not one of %s", name, v, strings.Join(allowed, ", "))
	}
	return nil
}

func (a Agent) validateName() error {
	if problems := validation.IsDNS1123Subdomain(a.NodeName); len(problems) > 0 {
		return fmt.Errorf("--node-name: %q must be lower case letters, digits, '-' and '.', "+
			"and start and end with a letter or digit", a.NodeName)
	}
	return nil
}

func validateLabel(label string) error {
	key, value, ok := strings.Cut(label, "=")
	switch {
	case !ok:
		return fmt.Errorf("--node-label: %q is not of the form key=value", label)
	case len(validation.IsQualifiedName(key)) > 0:
		return fmt.Errorf("--node-label: %q has a key that is not a label name: %s", label, validation.IsQualifiedName(key)[0])
	case len(validation.IsValidLabelValue(value)) > 0:
		return fmt.Errorf("--node-label: %q has a value that is not a label value: %s", label, validation.IsValidLabelValue(value)[0])
	case reserved(key) && !kubeletapis.IsKubeletLabel(key):
		return fmt.Errorf("--node-label: a node may not give itself %s: use the prefix node.kubernetes.io/ or one of your own, "+
			"or set it with kubectl label", key)
	}
	return nil
}

// reserved reports whether a label key belongs to Kubernetes itself.
func reserved(key string) bool {
	prefix, _, ok := strings.Cut(key, "/")
	if !ok {
		return false
	}
	for _, domain := range []string{"kubernetes.io", "k8s.io"} {
		if prefix == domain || strings.HasSuffix(prefix, "."+domain) {
			return true
		}
	}
	return false
}

func validateTaint(taint string) error {
	i := strings.LastIndex(taint, ":")
	if i < 0 {
		return fmt.Errorf("--node-taint: %q is not of the form key=value:effect", taint)
	}
	key, value, _ := strings.Cut(taint[:i], "=")
	switch {
	case len(validation.IsQualifiedName(key)) > 0:
		return fmt.Errorf("--node-taint: %q has a key that is not valid: %s", taint, validation.IsQualifiedName(key)[0])
	case len(validation.IsValidLabelValue(value)) > 0:
		return fmt.Errorf("--node-taint: %q has a value that is not valid: %s", taint, validation.IsValidLabelValue(value)[0])
	}
	return oneOf("node-taint", taint[i+1:], "NoSchedule", "PreferNoSchedule", "NoExecute")
}

// validateArgs checks arguments handed on to a Kubernetes part: flag=value, or flag alone for a yes-or-no one.
func validateArgs(name string, args []string) error {
	for _, a := range args {
		flag, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if flag == "" || strings.ContainsAny(flag, " \t") {
			return fmt.Errorf("--%s: %q is not of the form flag=value", name, a)
		}
	}
	return nil
}

func onePerFamily(name string, addrs []netip.Addr) error {
	for i, a := range addrs {
		if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
			return fmt.Errorf("--%s: %s is not an address that other machines can reach", name, a)
		}
		for _, b := range addrs[:i] {
			if a.Is4() == b.Is4() {
				return fmt.Errorf("--%s: %s and %s are of one IP family: give at most one IPv4 and one IPv6 address", name, b, a)
			}
		}
	}
	return nil
}

func (s Server) validateAddons() error {
	for _, d := range s.Disable {
		if !slices.Contains(addons(), d) {
			near := Nearest(d, addons())
			if near != "" {
				near = ", did you mean " + near + "?"
			}
			return fmt.Errorf("--disable: unknown add-on %q%s (known: %s)", d, near, addonList())
		}
	}
	return nil
}

// validateCluster checks the settings about several servers.
func (s Server) validateCluster() error {
	switch {
	case s.ClusterInit && s.DatastoreEndpoint != "":
		return errors.New("--cluster-init and --datastore-endpoint are both set: servers that share a datastore need no --cluster-init")
	case len(s.Servers) > 0 && s.DatastoreEndpoint != "":
		return errors.New("--server and --datastore-endpoint are both set: servers that share a datastore find each other there; remove --server")
	case len(s.Servers) > 0 && s.ClusterInit:
		return errors.New("--server joins a cluster and --cluster-init makes one: keep one of them")
	case s.ClusterReset && s.DatastoreEndpoint != "":
		return errors.New("--cluster-reset is for the etcd of a server, and --datastore-endpoint names another: use its own tools")
	case s.ClusterReset && len(s.Servers) > 0:
		return errors.New("--cluster-reset leaves this server alone and --server joins it to others: remove --server")
	}
	return nil
}

func (s Server) validateDatastore() error {
	if s.DatastoreEndpoint == "" {
		if s.DatastoreCAFile+s.DatastoreCertFile+s.DatastoreKeyFile != "" {
			return fmt.Errorf("--datastore-cafile, --datastore-certfile and --datastore-keyfile need --datastore-endpoint")
		}
		return nil
	}
	if err := bothOrNone("datastore-certfile", s.DatastoreCertFile, "datastore-keyfile", s.DatastoreKeyFile); err != nil {
		return err
	}
	for _, endpoint := range strings.Split(s.DatastoreEndpoint, ",") {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("--datastore-endpoint: %q is not the URL of an etcd, such as https://host:2379; SQL databases are not built yet", endpoint)
		}
	}
	return nil
}

func (s Server) validateEncryption() error {
	own := slices.ContainsFunc(s.KubeAPIServerArgs, func(a string) bool {
		return strings.HasPrefix(strings.TrimLeft(a, "-"), "encryption-provider-config=")
	})
	if own && s.SecretsEncryption {
		return errors.New("--secrets-encryption and --kube-apiserver-arg encryption-provider-config are both set: keep one of them")
	}
	if s.SecretsEncryptionProvider == "" {
		return nil
	}
	return oneOf("secrets-encryption-provider", s.SecretsEncryptionProvider, "aescbc", "secretbox")
}

func (s Server) validateNodePorts() error {
	low, high, err := portRange(s.NodePortRange)
	if err != nil {
		return fmt.Errorf("--service-node-port-range: %w", err)
	}
	if s.Port >= low && s.Port <= high {
		return fmt.Errorf("--service-node-port-range: %s contains https-listen-port %d: move one of them", s.NodePortRange, s.Port)
	}
	return nil
}

func portRange(r string) (low, high int, err error) {
	a, b, ok := strings.Cut(r, "-")
	low, errLow := strconv.Atoi(a)
	high, errHigh := strconv.Atoi(b)
	if !ok || errLow != nil || errHigh != nil || low < 1 || high > 65535 || low > high {
		return 0, 0, fmt.Errorf("%q is not a range of ports, for example 30000-32767", r)
	}
	return low, high, nil
}
