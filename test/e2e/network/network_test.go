package network

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

// scene is a server and an agent in a shop, an agent in an office that the shop's router knows, and one on a farm behind
// address translation.
type scene struct {
	*testing.T
	lab            *lab.Lab
	s1, a1, o1, f1 *lab.Node
	office, farm   *lab.Site
	pods           map[string]string // addresses, by node
}

// newScene starts the server with further arguments; agents are switched on, and kedge is not started on them.
func newScene(t *testing.T, args ...string) *scene {
	t.Helper()
	l := lab.New(t)
	shop := l.AddSite("shop")
	s := &scene{T: t, lab: l, office: l.AddSite("office"), farm: l.AddSiteBehindNAT("farm"), pods: map[string]string{}}
	s.s1 = shop.AddNode("s1", lab.Server(args...))
	s.s1.AddBusybox()
	s.s1.Start()
	s.s1.AwaitReady()
	s.a1, s.o1, s.f1 = s.agent(shop, "a1"), s.agent(s.office, "o1"), s.agent(s.farm, "f1")
	return s
}

func (s *scene) agent(site *lab.Site, name string) *lab.Node {
	s.Helper()
	n := site.AddAgent(name, s.s1)
	n.AddBusybox()
	return n
}

// web starts a pod on each node that answers with the node's name, and Services for all of them and for the near ones.
func (s *scene) web(nodes ...string) {
	s.Helper()
	var all strings.Builder
	for _, node := range nodes {
		near := "yes"
		if node == "f1" {
			near = "no"
		}
		fmt.Fprintf(&all, `
apiVersion: v1
kind: Pod
metadata: {name: web-%[1]s, labels: {app: web, near: "%[2]s"}}
spec:
  nodeName: %[1]s
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: kedge.local/busybox:1
    command: [sh, -c, "mkdir -p /www; echo %[1]s >/www/index.html; head -c 1000000 /dev/zero >/www/large; exec httpd -f -v -p 8080 -h /www"]
---
`, node, near)
	}
	s.s1.Apply(all.String() + services)
	for _, p := range s.s1.AwaitPods("default", "app=web", len(nodes)) {
		s.pods[p.Spec.NodeName] = p.Status.PodIP
	}
}

const services = `
apiVersion: v1
kind: Service
metadata: {name: near}
spec: {type: LoadBalancer, selector: {near: "yes"}, ports: [{port: 8088, targetPort: 8080, nodePort: 30088}]}
---
apiVersion: v1
kind: Service
metadata: {name: own}
spec: {internalTrafficPolicy: Local, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`

// inPod runs a program in the pod of a node.
func (s *scene) inPod(node string, argv ...string) (string, error) {
	s.Helper()
	return s.s1.TryKubectl(append([]string{"exec", "web-" + node, "--"}, argv...)...)
}

// fetch is what the pod of a node gets from a URL, at the latest after a minute.
func (s *scene) fetch(from, url, want string) {
	s.Helper()
	s.lab.Await(fmt.Sprintf("%s from the pod on %s", url, from), time.Minute, func() error {
		got, err := s.inPod(from, "timeout", "5", "wget", "-q", "-O", "-", url)
		if err == nil && want != "" && strings.TrimSpace(got) != want {
			err = fmt.Errorf("got %.100q", got)
		}
		return err
	})
}

// together checks that the pods of nodes reach each other with small and large answers, and see each other's own addresses.
func (s *scene) together(nodes ...string) {
	s.Helper()
	for _, from := range nodes {
		for _, to := range nodes {
			if from == to {
				continue
			}
			s.fetch(from, "http://"+s.pods[to]+":8080/", to)
			if out, err := s.inPod(from, "sh", "-c", "timeout 20 wget -q -O - http://"+s.pods[to]+":8080/large | wc -c"); err != nil || strings.TrimSpace(out) != "1000000" {
				s.Errorf("a large answer from %s to %s: %q, %v", to, from, out, err)
			}
		}
	}
}

// services uses Services by name from the pods, and from a machine outside the cluster.
func (s *scene) services(outside *lab.Node, nodes ...string) {
	s.Helper()
	seen := map[string]bool{}
	for _, from := range nodes {
		s.fetch(from, "http://own/", from)
		for range 6 {
			out, err := s.inPod(from, "timeout", "10", "wget", "-q", "-O", "-", "http://near.default.svc.cluster.local:8088/")
			if err != nil {
				s.Errorf("Service from the pod on %s: %v", from, err)
			}
			seen[strings.TrimSpace(out)] = true
		}
	}
	if len(seen) != len(nodes) {
		s.Errorf("the Service of %d pods led to %v", len(nodes), seen)
	}
	var ingress string
	s.lab.Await("external addresses", time.Minute, func() error {
		ingress = s.s1.Kubectl("get", "service", "near", "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}")
		if len(strings.Fields(ingress)) < len(nodes) {
			return fmt.Errorf("%s", ingress)
		}
		return nil
	})
	published := 0
	for _, node := range nodes {
		ip := s.s1.Kubectl("get", "node", node, "-o", "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}")
		for range 4 {
			s.get(outside, "http://"+ip+":30088/")
		}
		if !strings.Contains(" "+ingress+" ", " "+ip+" ") {
			continue // it has an address outside, which this lab knows no way to
		}
		published++
		s.get(outside, "http://"+ip+":8088/")
	}
	if published == 0 {
		s.Errorf("no node's address is among the Service's: %s", ingress)
	}
}

// get fetches from a machine.
func (s *scene) get(from *lab.Node, url string) {
	s.Helper()
	s.lab.Await(url+" from "+from.Name(), time.Minute, func() error {
		_, err := from.Run("curl", "-sS", "-m", "5", "-o", "/dev/null", url)
		return err
	})
}

// says waits for a text in a node's status.
func (s *scene) says(n *lab.Node, want string) {
	s.Helper()
	s.lab.Await("the status of "+n.Name(), time.Minute, func() error {
		if status, err := n.TryKedge("status"); !strings.Contains(status, want) {
			return fmt.Errorf("%s, %w", status, err)
		}
		return nil
	})
}

// talk opens a connection to a web server; the function it returns uses it. A web server waits a minute for the question.
func (s *scene) talk(from *lab.Node, address string) (ask func()) {
	s.Helper()
	const patience = 45 * time.Second
	c, err := from.Dial(s.Context(), "tcp", address)
	if err != nil {
		s.Fatal(err)
	}
	opened := time.Now()
	return func() {
		s.Helper()
		defer c.Close()
		if time.Since(opened) > patience {
			s.Logf("the web server has given up after %s", time.Since(opened).Round(time.Second))
			return
		}
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			s.Error(err)
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			s.Errorf("a connection from before: %v", err)
		}
		if answer, err := io.ReadAll(c); err != nil || !strings.Contains(string(answer), "200 OK") {
			s.Errorf("a connection from before answers %q, %v", answer, err)
		}
	}
}

// quiet expects no complaint of the pod network in the log of a node.
func (s *scene) quiet(nodes ...*lab.Node) {
	s.Helper()
	for _, n := range nodes {
		for line := range strings.Lines(n.Log()) {
			if strings.Contains(line, "level=ERROR") || strings.Contains(line, "component=pod-network") && strings.Contains(line, "level=WARN") ||
				strings.Contains(line, "vxlan") || strings.Contains(line, "subnet") || strings.Contains(line, "route_network") {
				s.Errorf("%s: %s", n.Name(), line)
			}
		}
	}
}

func TestPodsOfSeveralNodes(t *testing.T) {
	s := newScene(t)
	outside := s.office.AddNode("pc", lab.Role{})
	for _, n := range []*lab.Node{s.a1, s.o1, s.f1} {
		n.Start()
	}
	s.s1.AwaitNodes("s1", "a1", "o1", "f1")
	s.web("s1", "a1", "o1", "f1")
	near := []string{"s1", "a1", "o1"}
	s.together(near...)
	s.services(outside, near...)
	s.fetch("f1", "http://own/", "f1")
	s.says(s.f1, "behind an address translation (203.0.113.3)")
	s.says(s.a1, "those of f1")
	if log := s.s1.Kubectl("logs", "web-o1"); !strings.Contains(log, s.pods["a1"]) {
		t.Errorf("the pod on o1 does not see the address %s of the one on a1:\n%s", s.pods["a1"], log)
	}

	// What is in the kernel carries on without kedge, and is there again after a boot without a server.
	talk := s.talk(outside, s.a1.IP()+":30088")
	s.a1.Stop()
	s.s1.Kill()
	s.get(s.o1, "http://"+s.pods["a1"]+":8080/")
	talk()
	s.a1.Start()
	s.get(s.o1, "http://"+s.pods["a1"]+":8080/")
	s.a1.Reboot()
	s.a1.Start()
	s.get(s.a1, "http://"+s.pods["o1"]+":8080/")
	s.s1.Start()
	s.s1.AwaitReady()
	s.s1.AwaitNodes("a1", "o1")
	for node, address := range s.pods {
		s.lab.Await("the same address on "+node, 90*time.Second, func() error {
			if got := s.s1.Kubectl("get", "pod", "web-"+node, "-o", "jsonpath={.status.podIP}"); got != address {
				return fmt.Errorf("%s instead of %s", got, address)
			}
			return nil
		})
	}
	s.s1.AwaitPods("default", "app=web", len(s.pods))
	s.a1.Exec("ip", "link", "del", "flannel.1") // it is made anew
	s.together(near...)
	s.quiet(s.s1, s.a1, s.o1, s.f1)

	// A node that leaves takes its routes along.
	s.o1.Stop()
	s.s1.Kubectl("delete", "node", "o1")
	s.lab.Await("no route to o1", time.Minute, func() error {
		if routes := s.a1.Exec("ip", "route"); strings.Contains(routes, prefix(s.pods["o1"])) {
			return fmt.Errorf("%s", routes)
		}
		return nil
	})
}

// prefix is the network of a pod's address, without its end.
func prefix(address string) string { return address[:strings.LastIndex(address, ".")+1] }

func TestPodsOfOneNetworkWithoutWrapping(t *testing.T) {
	s := newScene(t, "--flannel-backend", "host-gw")
	s.a1.SetRole(lab.Agent("--server", s.s1.URL(), "--token", s.s1.AgentToken(), "--node-external-ip", "198.51.100.7"))
	s.a1.Start()
	s.o1.Start()
	s.s1.AwaitNodes("s1", "a1", "o1")
	s.web("s1", "a1")
	s.together("s1", "a1")
	s.services(s.office.AddNode("pc", lab.Role{}), "s1", "a1")
	if got := s.s1.Kubectl("get", "node", "a1", "-o", "jsonpath={.status.addresses[*].address} {.spec.taints}"); got != s.a1.IP()+" 198.51.100.7 a1" {
		t.Errorf("addresses of a1: %q", got)
	}
	if mtu := s.s1.Kubectl("exec", "web-a1", "--", "cat", "/sys/class/net/eth0/mtu"); mtu != "1500" {
		t.Errorf("packets of %s bytes", mtu)
	}
	s.quiet(s.s1, s.a1, s.o1)
}
