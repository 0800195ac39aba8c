package link

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

// scene is a server and, behind address translation, an agent with five pods.
type scene struct {
	*testing.T
	lab    *lab.Lab
	farm   *lab.Site
	s1, a1 *lab.Node
}

const pods = 5

const workload = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {word: hush}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  replicas: %d
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      nodeSelector: {kubernetes.io/hostname: a1}
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: kedge.local/busybox:1
        command: [sleep, "1000000"]
        envFrom: [{configMapRef: {name: settings}}, {secretRef: {name: password}}]
`

func newScene(t *testing.T, server, agent []string) *scene {
	t.Helper()
	l := lab.New(t)
	s := &scene{T: t, lab: l, farm: l.AddSiteBehindNAT("farm")}
	s.s1 = l.AddSite("shop").AddNode("s1", lab.Server(server...))
	s.s1.Start()
	s.s1.AwaitReady()
	token := s.s1.Exec("cat", "/var/lib/kedge/server/agent-token")
	s.a1 = s.farm.AddNode("a1", lab.Agent(append([]string{"--server", s.s1.URL(), "--token", token}, agent...)...))
	s.a1.AddBusybox()
	s.a1.Start()
	s.s1.AwaitNodes("a1")
	s.s1.Apply(fmt.Sprintf(workload, pods))
	s.s1.AwaitPods("default", "app=busy", pods)
	s.lab.Await("roles and keys on the node", time.Minute, func() error {
		if got := s.state(); !got.Prepared {
			return fmt.Errorf("it is %+v", got)
		}
		return nil
	})
	return s
}

// state is what the node API says about itself.
type state struct {
	Server     string
	FullLists  int
	HeldWrites int
	Prepared   bool
	Traffic    struct{ Sent, Received, Connections, Requests int64 }
}

func (s *scene) state() (now state) {
	s.Helper()
	if err := json.Unmarshal([]byte(s.a1.Exec("curl", "-s", "http://127.0.0.1:10550/kedge/state")), &now); err != nil {
		s.Fatal(err)
	}
	return now
}

func (s *scene) awaitState(want string) {
	s.Helper()
	s.lab.Await("the node API to see the server "+want, 2*time.Minute, func() error {
		if got := s.state(); got.Server != want {
			return errors.New("it is " + got.Server)
		}
		return nil
	})
}
