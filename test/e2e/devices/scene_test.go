package devices

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
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
	s.farm = l.AddSiteBehindNAT("farm")
	s.node = s.farm.AddAgent("edge-node-1", s.server, agentFlags...)
	s.node.Start()
	s.server.AwaitNodes("edge-node-1")
	s.lab.Await("the kinds of devices", patience, func() error {
		_, err := s.server.TryKubectl("get", "devices,devicemodels,devicestatuses")
		return err
	})
	return s
}

// fixture applies a file of testdata unchanged.
func (s *scene) fixture(name string) {
	s.Helper()
	s.server.ApplyFile(filepath.Join("testdata", name))
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
	out, err := s.node.TryKedge("device", "get", name, "-o", "json")
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
