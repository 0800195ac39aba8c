package devices

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
	"github.com/kedge-io/kedge/test/output"
	"github.com/kedge-io/kedge/test/vm/control"
)

// patience bounds what happens within a second on a quiet machine.
const patience = time.Minute

// scene is a server in town and an agent far away, on which devices hang. The agent has the name that the fixtures use.
type scene struct {
	*testing.T
	lab    *lab.Lab
	farm   *lab.Site
	server *lab.Node
	node   *lab.Node
}

func newScene(t *testing.T, agentFlags ...string) *scene {
	t.Helper()
	l := lab.New(t)
	s := &scene{T: t, lab: l}
	s.server = l.AddSite("town").AddNode("s1", lab.Server())
	s.server.Start()
	s.server.AwaitReady()
	token := s.server.Exec("cat", "/var/lib/kedge/server/agent-token")
	s.farm = l.AddSiteBehindNAT("farm")
	s.node = s.farm.AddNode("edge-node-1", lab.Agent(append([]string{"--server", s.server.URL(), "--token", token}, agentFlags...)...))
	s.node.Start()
	s.server.AwaitNodes("edge-node-1")
	s.lab.Await("the kinds of devices", patience, func() error {
		_, err := s.server.Run("/opt/kedge/bin/kedge", "kubectl", "get", "devices,devicemodels,devicestatuses")
		return err
	})
	return s
}

// fixture applies a file of testdata unchanged.
func (s *scene) fixture(name string) {
	s.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		s.Fatal(err)
	}
	s.server.Apply(string(text))
}

// program runs until the test ends or stop is called; its output is returned by log.
type program struct {
	stop func()
	log  func() string
}

// start runs kedge with arguments on the node, beside the kedge that is there.
func (s *scene) start(args ...string) program {
	s.Helper()
	return s.startOn(s.node, args...)
}

// startOn is start on another machine.
func (s *scene) startOn(n *lab.Node, args ...string) program {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out := &output.Buffer{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.RunStreams(ctx, control.Command{Argv: append([]string{"/opt/kedge/bin/kedge"}, args...), Stdout: out, Stderr: out})
	}()
	stop := func() { cancel(); <-done }
	s.Cleanup(stop)
	return program{stop, out.String}
}

// device is what kedge device get -o json says on a node.
type device struct {
	Name, State string
	Properties  []struct {
		Name                        string
		Desired, Observed, Reported *struct {
			Value   string
			Time    time.Time
			Problem string
		}
		Pending bool
	}
}

// value finds desired, observed or reported.
func (d device) value(property, kind string) string {
	for _, p := range d.Properties {
		if p.Name != property {
			continue
		}
		v := p.Desired
		switch kind {
		case "observed":
			v = p.Observed
		case "reported":
			v = p.Reported
		}
		if v != nil {
			return v.Value
		}
	}
	return ""
}

// local asks the node itself.
func (s *scene) local(name string) (d device, err error) {
	out, err := s.node.Run("/opt/kedge/bin/kedge", "device", "get", name, "-o", "json")
	if err != nil {
		return d, err
	}
	return d, json.NewDecoder(bytes.NewBufferString(out)).Decode(&d)
}

// awaitLocal waits until the node knows a value.
func (s *scene) awaitLocal(name, property, kind, want string) {
	s.Helper()
	s.lab.Await(fmt.Sprintf("%s %s of %s on the node", kind, property, name), patience, func() error {
		d, err := s.local(name)
		if err == nil && d.value(property, kind) != want {
			err = fmt.Errorf("it is %q, want %q", d.value(property, kind), want)
		}
		return err
	})
}

// field reads a field of an object in the cluster.
func (s *scene) field(kind, name, path string) (string, error) {
	out, err := s.server.Run("/opt/kedge/bin/kedge", "kubectl", "get", kind, name, "-o", "jsonpath="+path)
	return strings.TrimSpace(out), err
}

// awaitField waits until a field in the cluster has a value.
func (s *scene) awaitField(kind, name, path, want string) {
	s.Helper()
	s.lab.Await(fmt.Sprintf("%s of %s %s", path, kind, name), patience, func() error {
		got, err := s.field(kind, name, path)
		if err == nil && got != want {
			err = fmt.Errorf("it is %q, want %q", got, want)
		}
		return err
	})
}
