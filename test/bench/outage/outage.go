// Package outage cuts nodes off while objects change, for the bench, and measures what it takes until they are current again.
package outage

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-io/kedge/test/crowd"
	"github.com/kedge-io/kedge/test/lab"
)

// Scene is a server and, behind an uplink, those who lose it.
type Scene struct {
	Server *lab.Node
	Farm   *lab.Site
	// Await waits until done returns nil.
	Await func(what string, done func() error) error
	// Wait lets time pass.
	Wait func(time.Duration)
	// known is the Service that was made last.
	known string
}

// Figures are what a return took.
type Figures struct {
	Took time.Duration
	// Bytes are both directions with IP headers.
	Bytes uint64
	// Lists is how often a whole resource was asked for.
	Lists int64
	// Before and Peak are the server's resident memory, in KiB.
	Before, Peak float64
}

// change makes Services, and remembers the last.
func (s *Scene) change(prefix string, n int) {
	if n == 0 {
		return
	}
	var all strings.Builder
	for i := range n {
		s.known = prefix + "-" + strconv.Itoa(i)
		fmt.Fprintf(&all, "---\napiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {ports: [{port: 80}]}\n", s.known)
	}
	s.Server.Apply(all.String())
}

// Node cuts one real node off for at least so long, and at least until it knows, and heals the line after that many changes. Statuses and such have
// ten seconds to follow.
func (s *Scene) Node(n *lab.Node, changes int, cut time.Duration) (f Figures, err error) {
	lists, err := s.node(n, nil)
	if err != nil {
		return f, err
	}
	s.Farm.Uplink().Cut()
	healed := time.Now().Add(cut)
	down := false
	if err := s.Await("node cut off", func() error { _, err := s.node(n, &down); return err }); err != nil {
		return f, err
	}
	s.change(fmt.Sprintf("changed%d-%d", changes, int(cut.Seconds())), changes)
	if rest := time.Until(healed); rest > 0 {
		s.Wait(rest)
	}
	before, begin := s.Farm.Uplink().Bytes(), time.Now()
	s.Farm.Uplink().Heal()
	up := true
	if err := s.Await("node current", func() error { _, err := s.node(n, &up); return err }); err != nil {
		return f, err
	}
	f.Took = time.Since(begin)
	s.Wait(10 * time.Second)
	f.Bytes = s.Farm.Uplink().Bytes().Since(before).Total()
	now, err := s.node(n, nil)
	f.Lists = now - lists
	return f, err
}

// node asks a node API how often it has listed. With connected, it is to be in that state, and to know the last Service when it is up.
func (s *Scene) node(n *lab.Node, connected *bool) (lists int64, err error) {
	var state struct {
		Server    string
		FullLists int64
	}
	out, err := n.Run("curl", "-s", "http://127.0.0.1:10550/kedge/state")
	if err == nil {
		err = json.Unmarshal([]byte(out), &state)
	}
	if err != nil || connected == nil {
		return state.FullLists, err
	}
	if up := state.Server == "up"; up != *connected {
		return 0, fmt.Errorf("the server is %s", state.Server)
	}
	if *connected && s.known != "" {
		_, err = n.Run("curl", "-sf", "-o", "/dev/null", "http://127.0.0.1:10550/api/v1/namespaces/default/services/"+s.known)
	}
	return state.FullLists, err
}

// Storm cuts crowds off, changes objects, restarts the server, and has all return at once.
func (s *Scene) Storm(crowds []*crowd.Crowd, name string, changes int) (f Figures, err error) {
	lists, err := fullLists(crowds)
	if err != nil {
		return f, err
	}
	s.Farm.Uplink().Cut()
	s.change(name, changes)
	if err := s.Await("all nodes cut off", func() error { return each(crowds, (*crowd.Crowd).CutOff) }); err != nil {
		return f, err
	}
	s.Server.Stop()
	s.Server.Start()
	s.Server.AwaitReady()
	s.Wait(20 * time.Second)
	status, err := s.Server.Status()
	if err != nil {
		return f, err
	}
	proc := "/proc/" + strconv.Itoa(status.PID)
	s.Server.Exec("sh", "-c", "echo 5 >"+proc+"/clear_refs") // the peak begins anew
	f.Before = kibibytes(s.Server.Exec("grep", "VmRSS", proc+"/status"))
	before, begin := s.Farm.Uplink().Bytes(), time.Now()
	s.Farm.Uplink().Heal()
	if err := s.Await("all nodes current", func() error { return each(crowds, func(c *crowd.Crowd) error { return c.Current(s.known) }) }); err != nil {
		return f, err
	}
	f.Took, f.Bytes = time.Since(begin), s.Farm.Uplink().Bytes().Since(before).Total()
	f.Peak = kibibytes(s.Server.Exec("grep", "VmHWM", proc+"/status"))
	now, err := fullLists(crowds)
	f.Lists = now - lists
	return f, err
}

// kibibytes reads a line such as "VmRSS:  123 kB".
func kibibytes(line string) float64 {
	if f := strings.Fields(line); len(f) == 3 {
		if v, err := strconv.ParseFloat(f[1], 64); err == nil {
			return v
		}
	}
	return 0
}

// Join starts a crowd and waits until it is current.
func (s *Scene) Join(ctx context.Context, machine *lab.Node, nodes int) (*crowd.Crowd, error) {
	c, err := crowd.Start(ctx, machine, s.Server, s.Server.Exec("cat", "/var/lib/kedge/server/agent-token"), nodes)
	if err != nil {
		return nil, err
	}
	return c, s.Await("nodes joined", func() error { return c.Current("kubernetes") })
}

func each(crowds []*crowd.Crowd, check func(*crowd.Crowd) error) error {
	for _, c := range crowds {
		if err := check(c); err != nil {
			return err
		}
	}
	return nil
}

func fullLists(crowds []*crowd.Crowd) (lists int64, err error) {
	for _, c := range crowds {
		r, err := c.Report("kubernetes")
		if err != nil {
			return 0, err
		}
		lists += r.Lists
	}
	return lists, nil
}
