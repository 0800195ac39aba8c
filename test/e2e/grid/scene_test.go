package grid

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/images"
	"github.com/kedge-io/kedge/test/lab"
)

// scene is a server in an office, a unit of two nodes in a mall, one of one node in a shop, and a node that belongs nowhere yet. A large
// one has two nodes each of these three places.
type scene struct {
	*testing.T
	lab                *lab.Lab
	s1, a1, a2, b1, c1 *lab.Node
	b2, c2             *lab.Node // of a large scene
	mall               *lab.Site
}

func newScene(t *testing.T, large bool) *scene {
	t.Helper()
	l := lab.New(t)
	s := &scene{T: t, lab: l, mall: l.AddSite("mall")}
	office, shop := l.AddSite("office"), l.AddSite("shop")
	s.s1 = office.AddNode("s1", lab.Server())
	s.s1.AddBusybox()
	s.s1.Start()
	s.s1.AwaitReady()
	agent := func(site *lab.Site, name string, labels ...string) *lab.Node {
		n := site.AddAgent(name, s.s1, labels...)
		s.pages(n)
		n.Start()
		return n
	}
	s.a1, s.a2 = agent(s.mall, "a1", "--node-label", "zone=zone-1"), agent(s.mall, "a2", "--node-label", "zone=zone-1")
	s.b1, s.c1 = agent(shop, "b1", "--node-label", "zone=zone-2"), agent(office, "c1")
	s.s1.AwaitNodes("s1", "a1", "a2", "b1", "c1")
	if large {
		s.b2, s.c2 = agent(shop, "b2", "--node-label", "zone=zone-2"), agent(office, "c2")
		s.s1.AwaitNodes("b2", "c2")
	}
	return s
}

// pages puts the images that the fixtures name onto a node: a web server whose page is the name of its pod.
func (s *scene) pages(n *lab.Node) {
	s.Helper()
	image, err := images.Busybox("/bin/busybox")
	if err != nil {
		s.Fatal(err)
	}
	image.Cmd = []string{"sh", "-c", "hostname >/www/index.html; exec httpd -f -p 80 -h /www"}
	for _, tag := range []string{"1.7.9", "1.9.1"} {
		image.Ref = "docker.io/library/nginx:" + tag
		n.AddImage(image, "nginx-"+tag+".tar")
	}
}

func (s *scene) fixture(name string) {
	s.Helper()
	s.s1.ApplyFile(filepath.Join("testdata", name+".yaml"))
}

// get reads one line about an object, or "".
func (s *scene) get(kind, name, path string) string {
	out, err := s.s1.Field(kind, name, path)
	if err != nil {
		return ""
	}
	return out
}

// answers asks an address many times, from a node, and counts who answers, by unit; nobody is "".
func (s *scene) answers(n *lab.Node, url string, times int) map[string]int {
	s.Helper()
	// One process asks; each answer is a line. A connection that is refused gives none.
	out, _ := n.Run("curl", "-s", "--no-keepalive", "--max-time", "20", fmt.Sprintf("%s/?[1-%d]", url, times))
	return count(out, times)
}

func count(out string, times int) map[string]int {
	counted := map[string]int{}
	for line := range strings.Lines(out) {
		unit := "?"
		for _, u := range []string{"zone-1", "zone-2", "zone-3"} {
			if strings.Contains(line, "-"+u+"-") {
				unit = u
			}
		}
		counted[unit]++
		times--
	}
	if times > 0 {
		counted[""] = times
	}
	return counted
}

// only waits until a unit, and nobody else, answers, and then asks a thousand times.
func (s *scene) only(n *lab.Node, url, unit string) {
	s.Helper()
	s.lab.Await("answers of "+unit+" on "+n.Name(), 2*time.Minute, func() error {
		if got := s.answers(n, url, 20); got[unit] != 20 {
			return fmt.Errorf("answers: %v", got)
		}
		return nil
	})
	begin := time.Now()
	if got := s.answers(n, url, 1000); got[unit] != 1000 {
		s.Errorf("on %s, 1000 requests to %s were answered by %v, want %s alone", n.Name(), url, got, unit)
	}
	s.Logf("1000 requests on %s to %s in %s: no stray", n.Name(), unit, time.Since(begin).Round(time.Millisecond))
}

// pod is the name of a ready pod of a workload.
func (s *scene) pod(prefix string) string {
	s.Helper()
	name := ""
	s.lab.Await("a pod of "+prefix, 2*time.Minute, func() error {
		for line := range strings.Lines(s.s1.Kubectl("get", "pods", "--no-headers")) {
			f := strings.Fields(line)
			if strings.HasPrefix(f[0], prefix) && f[1] == "1/1" {
				name = f[0]
				return nil
			}
		}
		return fmt.Errorf("none is ready")
	})
	return name
}
