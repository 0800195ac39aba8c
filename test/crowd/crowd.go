// Package crowd puts many simulated nodes on a machine of the lab: see the program in its folder. Tests under test/ may import it.
package crowd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/kedge-io/kedge/test/lab"
	"github.com/kedge-io/kedge/test/vm/control"
)

// Crowd is the nodes on one machine.
type Crowd struct {
	machine *lab.Node
	count   int
	done    chan error
}

// Report is how they are.
type Report struct {
	// Joined, Up and Tunnels count nodes: with an identity, with a server that answers, and with a tunnel. Current counts those that know a Service.
	Joined, Up, Current, Tunnels int
	// Lists is how often a whole resource was asked for, since the start.
	Lists int64
	// Sent and Received are bytes inside of TCP, Connections how many there were, since the start and without the tunnels.
	Sent, Received, Connections int64
	// Watches is how many there are, WatchesFresh how many of them follow the server.
	Watches, WatchesFresh int
}

// program is where the program is on the machine.
const program = "/var/crowd"

// Start starts count nodes on a machine on which kedge does not run, until ctx is done.
func Start(ctx context.Context, machine, server *lab.Node, token string, count int) (*Crowd, error) {
	out := machine.HostPath(program)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags=netgo,osusergo", "-buildvcs=false", "-ldflags=-s -w", "-o", out,
		"github.com/kedge-io/kedge/test/crowd/node")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", filepath.Base(out), err, text)
	}
	c := &Crowd{machine: machine, count: count, done: make(chan error, 1)}
	go func() {
		c.done <- machine.RunStreams(ctx, control.Command{
			Argv: []string{"sh", "-c", "exec " + program + ` "$@" >/var/log/crowd.log 2>&1`, "sh",
				"--server", server.URL(), "--token", token, "--nodes", fmt.Sprint(count), "--prefix", machine.Name()},
		})
	}()
	return c, nil
}

// Report asks the nodes how they are, and how many of them know a Service.
func (c *Crowd) Report(service string) (r Report, err error) {
	select {
	case err := <-c.done:
		text, _ := c.machine.Run("tail", "-n", "5", "/var/log/crowd.log") // the other error is said
		return r, fmt.Errorf("the crowd has ended: %w\n%s", err, text)
	default:
	}
	out, err := c.machine.Run("curl", "-s", "http://127.0.0.1:7000/?service="+service)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal([]byte(out), &r)
}

// CutOff is nil when no node has a server.
func (c *Crowd) CutOff() error {
	r, err := c.Report("")
	if err == nil && r.Up > 0 {
		err = fmt.Errorf("%d nodes are connected", r.Up)
	}
	return err
}

// Current is nil when all nodes know a Service and follow the server.
func (c *Crowd) Current(service string) error {
	r, err := c.Report(service)
	if err == nil && (r.Current != c.count || r.Tunnels != c.count || r.WatchesFresh != r.Watches) {
		err = errors.New("not all are current")
	}
	if err != nil {
		return fmt.Errorf("%w: %+v", err, r)
	}
	return nil
}
