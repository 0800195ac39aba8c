package config

import (
	"strings"
	"testing"
)

// invalid is a set of flags, name=value with spaces between, and the beginning of what is wrong with it; empty: valid.
type invalid struct{ flags, want string }

func TestValidateNodeNamesTheFlagAndTheFix(t *testing.T) {
	check(t, []invalid{
		{"data-dir=var", `--data-dir: "var" is not an absolute path`},
		{"node-name=Edge_1", `--node-name: "Edge_1" must be lower case`},
		{"node-ip=10.0.0.1,10.0.0.2", "--node-ip: 10.0.0.1 and 10.0.0.2 are of one IP family"},
		{"node-ip=127.0.0.1", "--node-ip: 127.0.0.1 is not an address that other machines can reach"},
		{"node-ip=10.0.0.x", `--node-ip: "10.0.0.x" is not an IP address`},
		{"node-ip=10.0.0.1,fd00::1", ""},
		{"node-label=site", `--node-label: "site" is not of the form key=value`},
		{"node-label=a=b node-label=-x=y", `"-x=y" has a key that is not a label name`},
		{"node-label=a=b/c", "has a value that is not a label value"},
		{"node-label=node-role.kubernetes.io/edge=true", "a node may not give itself node-role.kubernetes.io/edge"},
		{"node-label=node.kubernetes.io/site=a", ""},
		{"node-label=topology.kubernetes.io/zone=a", ""},
		{"node-taint=a=b", "--node-taint"},
		{"node-taint=a=b:Never", `--node-taint: "Never" is not one of NoSchedule`},
		{"node-taint=edge:NoSchedule", ""},
		{"snapshotter=zfs", `--snapshotter: "zfs" is not one of overlayfs, native`},
		{"kubelet-arg=--max-pods=20", ""},
		{"kubelet-arg==20", `--kubelet-arg: "=20" is not of the form flag=value`},
		{"pause-image=a\tb", "--pause-image"},
		{"mqtt-listen=localhost:1883", `--mqtt-listen: "localhost:1883" is not an IP address with a port`},
		{"mqtt-listen=127.0.0.1:1883,0.0.0.0:8883 mqtt-credentials=/c mqtt-anonymous=true mqtt-max-connections=9", ""},
		{"mqtt-tls-cert=/c", "--mqtt-tls-cert and --mqtt-tls-key belong together"},
		{"mqtt-tls-client-ca=ca.pem", `--mqtt-tls-client-ca: "ca.pem" is not an absolute path`},
		{"mqtt-max-packet=10", `--mqtt-max-packet: "10" is not a number from 1024 to`},
		{"mqtt-max-queue=x", `--mqtt-max-queue: "x" is not a number`},
		{"mqtt-max-connections=0", `--mqtt-max-connections: "0" is not a number from 1`},
		{"mqtt-external=mqtt.example", `--mqtt-external: "mqtt.example" is not of the form tcp://`},
		{"mqtt-external=tcp://a:b@mqtt.example:1883", "--mqtt-external"},
		{"mqtt-external-cafile=/ca", "--mqtt-external-cafile: there is no --mqtt-external"},
		{"mqtt-external=tcp://a:1 mqtt-external-certfile=/c", "--mqtt-external-certfile and --mqtt-external-keyfile belong together"},
		{"mqtt-external=ssl://[fd00::1]:8883 mqtt-external-cafile=/ca mqtt-external-credentials=/c mqtt-external-qos=2", ""},
		{"mqtt-external=tcp://a:1 mqtt-external-qos=3", `--mqtt-external-qos: "3" is not a number from 0 to 2`},
	})
}

func TestValidateServerNamesTheFlagAndTheFix(t *testing.T) {
	check(t, []invalid{
		{"advertise-address=0.0.0.0", "--advertise-address: 0.0.0.0 is not"},
		{"tls-san=a_b", `--tls-san: "a_b" is neither a DNS name nor an IP address`},
		{"tls-san=*.example.com,fd00::1,10.0.0.1", ""},
		{"cluster-domain=Cluster.local", "--cluster-domain"},
		{"cluster-cidr=10.42.0.0", `--cluster-cidr: "10.42.0.0" is not a network in CIDR form`},
		{"cluster-cidr=10.42.0.1/16", "--cluster-cidr: 10.42.0.1/16 has address bits behind the prefix: write 10.42.0.0/16"},
		{"cluster-cidr=10.0.0.0/8", "--cluster-cidr: 10.0.0.0/8 overlaps --service-cidr 10.43.0.0/16"},
		{"cluster-cidr=10.42.0.0/28", "has a prefix of /28, which must be from /8 to /24"},
		{"cluster-cidr=10.1.0.0/16,10.2.0.0/16", "--cluster-cidr: give one network, or one IPv4 and one IPv6"},
		{"cluster-cidr=10.1.0.0/16,fd00::/56", "--service-cidr: its IP families must be those of --cluster-cidr"},
		{"cluster-cidr=fd01::/56 service-cidr=fd02::/112 bind-address=::", ""},
		{"service-cidr=fd02::/64 cluster-cidr=fd01::/56", "fd02::/64 has a prefix of /64, which must be from /108 to /124"},
		{"cluster-cidr=192.168.0.0/16 node-ip=192.168.1.5", "192.168.0.0/16 contains this machine's address 192.168.1.5"},
		{"advertise-address=fd00::5", "must be of the IP family of the first --service-cidr"},
		{"cluster-dns=10.44.0.10", "--cluster-dns: 10.44.0.10 is outside --service-cidr 10.43.0.0/16"},
		{"cluster-dns=10.43.0.1", "--cluster-dns: 10.43.0.1 is taken"},
		{"service-node-port-range=30000", `--service-node-port-range: "30000" is not a range of ports`},
		{"service-node-port-range=6000-7000", "contains https-listen-port 6443"},
		{"flannel-backend=udp", `--flannel-backend: "udp" is not one of vxlan, host-gw, wireguard-native, bridge, none`},
		{"datastore-cafile=/ca", "need --datastore-endpoint"},
		{"datastore-endpoint=redis://x", `"redis://x" is not the URL of an etcd`},
		{"datastore-endpoint=https://", `"https://" is not the URL of an etcd`},
		{"datastore-endpoint=mysql://u:p@tcp(db:3306)/kedge", "SQL databases are not built yet"},
		{"datastore-endpoint=https://a:2379,https://b:2379 datastore-certfile=/c", "go together"},
		{"disable=traefik,corends", `--disable: unknown add-on "corends", did you mean coredns?`},
		{"disable=traefik disable=servicelb", ""},
		{"system-default-registry=https://mirror.example", `--system-default-registry: "https://mirror.example" is not a host`},
		{"system-default-registry=mirror.example/copies", `--system-default-registry: "mirror.example/copies" is not a host`},
		{"system-default-registry=mirror.example:5000", ""},
		{"write-kubeconfig=k.yaml", "--write-kubeconfig"},
		{"secrets-encryption=true secrets-encryption-provider=secretbox", ""},
		{"secrets-encryption-provider=kms", `--secrets-encryption-provider: "kms" is not one of aescbc, secretbox`},
		{"secrets-encryption=true kube-apiserver-arg=encryption-provider-config=/e.yaml", "are both set: keep one of them"},
		{"etcd-snapshot-schedule-cron=@daily etcd-snapshot-retention=3", ""},
		{"etcd-snapshot-schedule-cron=hourly", `--etcd-snapshot-schedule-cron: "hourly" is not minute, hour`},
		{"etcd-snapshot-retention=0", `--etcd-snapshot-retention: "0" is not a number from 1`},
		{"image-credential-provider-bin-dir=/bin", "go together: give both or none"},
		{"v=11", `--v: "11" is not a number from 0 to 10`},
	})
}

// TestSettingsOfTheFamily knows the settings of k3s 1.35: kedge has each, or says why not and what to do.
func TestSettingsOfTheFamily(t *testing.T) {
	const server = `advertise-address advertise-port agent-token agent-token-file apiserver-bind-address apiserver-port bind-address cluster-cidr cluster-dns
		cluster-domain cluster-init cluster-reset cluster-reset-restore-path data-dir datastore-cafile datastore-certfile datastore-endpoint datastore-keyfile debug
		default-local-storage-path disable disable-agent disable-apiserver disable-cloud-controller disable-controller-manager disable-etcd disable-helm-controller
		disable-kube-proxy disable-network-policy disable-scheduler egress-selector-mode embedded-registry enable-pprof etcd-arg etcd-disable-snapshots etcd-expose-metrics
		etcd-s3 etcd-s3-access-key etcd-s3-bucket etcd-s3-bucket-lookup-type etcd-s3-config-secret etcd-s3-endpoint etcd-s3-endpoint-ca etcd-s3-folder etcd-s3-insecure
		etcd-s3-proxy etcd-s3-region etcd-s3-retention etcd-s3-secret-key etcd-s3-session-token etcd-s3-skip-ssl-verify etcd-s3-timeout etcd-snapshot-compress etcd-snapshot-dir
		etcd-snapshot-name etcd-snapshot-reconcile-interval etcd-snapshot-retention etcd-snapshot-schedule-cron flannel-backend flannel-external-ip flannel-ipv6-masq
		helm-job-image https-listen-port kine-tls kube-apiserver-arg kube-cloud-controller-manager-arg kube-controller-manager-arg kube-scheduler-arg
		secrets-encryption secrets-encryption-provider server service-cidr service-node-port-range servicelb-namespace supervisor-metrics supervisor-port
		system-default-registry tls-san tls-san-security write-kubeconfig write-kubeconfig-group write-kubeconfig-mode`
	const agent = `airgap-extra-registry alsologtostderr container-runtime-endpoint default-runtime disable-apiserver-lb disable-default-registry-endpoint docker
		flannel-cni-conf flannel-conf flannel-iface image-credential-provider-bin-dir image-credential-provider-config image-service-endpoint kube-proxy-arg kubelet-arg
		lb-server-port log node-external-dns node-external-ip node-internal-dns node-ip node-label node-name node-taint nonroot-devices pause-image prefer-bundled-bin
		private-registry protect-kernel-defaults resolv-conf rootless selinux server snapshotter token token-file v vmodule vpn-auth vpn-auth-file with-node-id`
	known := func(list string, settings []Setting) {
		for name := range strings.FieldsSeq(list) {
			s, err := findSetting(name, settings)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if err := s.bind(&Server{}, []string{"refuse-me"}); s.Hidden() && (err == nil || len(err.Error()) < 20) {
				t.Errorf("%s is neither in the manual nor refused with a reason: %v", name, err)
			}
		}
	}
	known(server+" "+agent, ServerSettings())
	known(agent, AgentSettings())
	for _, harmless := range []string{"disable-cloud-controller=true", "prefer-bundled-bin=true", "egress-selector-mode=agent", "selinux=false"} {
		check(t, []invalid{{harmless, ""}})
	}
	check(t, []invalid{{"egress-selector-mode=pod", `"pod": servers reach nodes`}, {"selinux=true", "--selinux: kedge labels no containers"}})
}

func check(t *testing.T, cases []invalid) {
	t.Helper()
	for _, tc := range cases {
		flags := map[string][]string{}
		for f := range strings.SplitSeq(tc.flags, " ") {
			name, value, _ := strings.Cut(f, "=")
			flags[name] = append(flags[name], value)
		}
		_, err := LoadServer(isolated(t, nil, flags))
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", tc.flags, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: got %v\nwant %s", tc.flags, err, tc.want)
		}
	}
}

func TestHostNameThatIsNoNodeName(t *testing.T) {
	src := isolated(t, nil, nil)
	src.Hostname = func() (string, error) { return "my_host", nil }
	if _, err := LoadServer(src); err == nil || !strings.Contains(err.Error(), `--node-name: "my_host"`) {
		t.Error(err)
	}
}

func TestClusterDNSFollowsServiceCIDR(t *testing.T) {
	cfg, err := LoadServer(isolated(t, nil, map[string][]string{"service-cidr": {"172.20.0.0/16"}}))
	if err != nil || cfg.ClusterDNS[0].String() != "172.20.0.10" {
		t.Errorf("%v, %v", cfg.ClusterDNS, err)
	}
}

func TestDisabled(t *testing.T) {
	s := Server{Disable: []string{"coredns"}}
	if !s.Disabled("coredns") || s.Disabled("local-storage") {
		t.Error("Disabled")
	}
}
