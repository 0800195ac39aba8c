package network

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

// addSix gives a machine an IPv6 address beside its own.
func addSix(n *lab.Node, address string) {
	n.Exec("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6; dev=$(ip -o route show default | sed 's/.* dev \\([^ ]*\\).*/\\1/'); "+
		"ip -6 addr add "+address+"/64 dev $dev nodad")
}

// families starts a server and an agent with both IP families, in this order of networks.
func families(t *testing.T, pods, services string, ips func(n *lab.Node, six string) string) *scene {
	t.Helper()
	l := lab.New(t)
	shop := l.AddSite("shop")
	s := &scene{T: t, lab: l, pods: map[string]string{}}
	s.s1 = shop.AddNode("s1", lab.Role{})
	s.a1 = shop.AddNode("a1", lab.Role{})
	addSix(s.s1, "fd00:20::11")
	addSix(s.a1, "fd00:20::12")
	s.s1.SetRole(lab.Server("--cluster-cidr", pods, "--service-cidr", services, "--node-ip", ips(s.s1, "fd00:20::11")))
	s.s1.AddBusybox()
	s.a1.AddBusybox()
	s.s1.Start()
	s.s1.AwaitReady()
	return s
}

const both = `
apiVersion: v1
kind: Service
metadata: {name: both}
spec: {ipFamilyPolicy: RequireDualStack, selector: {near: "yes"}, type: NodePort, ports: [{port: 80, targetPort: 8080, nodePort: 30081}]}
`

func TestBothFamilies(t *testing.T) {
	s := families(t, "10.42.0.0/16,fd42::/56", "10.43.0.0/16,fd43::/112", func(n *lab.Node, six string) string { return n.IP() + "," + six })
	s.a1.SetRole(lab.Agent("--server", s.s1.URL(), "--token", s.s1.AgentToken(), "--node-ip", s.a1.IP()+",fd00:20::12"))
	s.a1.Start()
	s.s1.AwaitNodes("s1", "a1")
	s.web("s1", "a1")
	s.together("s1", "a1")
	six := map[string]string{}
	for _, node := range []string{"s1", "a1"} {
		all := strings.Fields(s.s1.Kubectl("get", "pod", "web-"+node, "-o", "jsonpath={.status.podIPs[*].ip}"))
		if len(all) != 2 || !strings.Contains(all[1], ":") {
			t.Fatalf("addresses of the pod on %s: %v", node, all)
		}
		six[node] = all[1]
	}
	s.fetch("s1", "http://["+six["a1"]+"]:8080/", "a1")
	s.fetch("a1", "http://["+six["s1"]+"]:8080/", "s1")
	s.s1.Apply(both)
	clusterIPs := strings.Fields(s.s1.Kubectl("get", "service", "both", "-o", "jsonpath={.spec.clusterIPs[*]}"))
	if len(clusterIPs) != 2 {
		t.Fatalf("addresses of the Service: %v", clusterIPs)
	}
	for _, node := range []string{"s1", "a1"} {
		s.fetch(node, "http://"+clusterIPs[0]+"/", "")
		s.fetch(node, "http://["+clusterIPs[1]+"]/", "")
		s.lab.Await("both families by name on "+node, time.Minute, func() error {
			out, err := s.inPod(node, "nslookup", "both.default.svc.cluster.local")
			if err == nil && !(strings.Contains(out, clusterIPs[0]) && strings.Contains(out, clusterIPs[1])) {
				err = fmt.Errorf("got %s", out)
			}
			return err
		})
	}
	s.get(s.a1, "http://[fd00:20::11]:30081/")
	if out, err := s.inPod("s1", "sh", "-c", "timeout 20 wget -q -O - http://["+six["a1"]+"]:8080/large | wc -c"); err != nil || strings.TrimSpace(out) != "1000000" {
		t.Errorf("a large answer over IPv6: %q, %v", out, err)
	}
	s.quiet(s.s1, s.a1)
}

func TestIPv6Only(t *testing.T) {
	s := families(t, "fd42::/56", "fd43::/112", func(_ *lab.Node, six string) string { return six })
	s.a1.SetRole(lab.Agent("--server", "https://[fd00:20::11]:6443", "--token", s.s1.AgentToken(), "--node-ip", "fd00:20::12"))
	s.a1.Start()
	s.s1.AwaitNodes("s1", "a1")
	s.web("s1", "a1")
	for from, to := range map[string]string{"s1": "a1", "a1": "s1"} {
		s.fetch(from, "http://["+s.pods[to]+"]:8080/", to)
		s.fetch(from, "http://near.default.svc.cluster.local:8088/", "")
	}
	s.quiet(s.s1, s.a1)
}
