package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-io/kedge/pkg/status"
	"github.com/kedge-io/kedge/test/output"
	"github.com/kedge-io/kedge/test/vm/control"
)

// Role is what kedge is started as on a node.
type Role struct {
	// Args is the command line after the program's name.
	Args []string
	// Env is added to the environment, KEY=value.
	Env []string
}

// Server runs kedge server with further arguments.
func Server(args ...string) Role { return Role{Args: append([]string{"server"}, args...)} }

// Agent runs kedge agent with further arguments.
func Agent(args ...string) Role { return Role{Args: append([]string{"agent"}, args...)} }

// process is a kedge that was started.
type process struct {
	pid  int // inside the machine
	done chan struct{}
	err  error // valid when done is closed
}

// logPath is where a node keeps the output of kedge, of all its runs.
const logPath = "/var/log/kedge.log"

// Limits within which things happen on a busy machine with two cores.
const (
	readyTimeout = 90 * time.Second
	stopTimeout  = 60 * time.Second
)

// SetRole changes how kedge is started the next time.
func (n *Node) SetRole(role Role) { n.role = role }

// Start starts kedge and returns at once.
func (n *Node) Start() {
	n.lab.t.Helper()
	if n.kedge != nil {
		n.lab.t.Fatalf("start kedge on %s: it runs", n.name)
	}
	p, err := n.launch()
	n.lab.must("start kedge on "+n.name, err)
	n.kedge = p
}

// launch runs kedge through a shell that says its process number first.
func (n *Node) launch() (*process, error) {
	const script = `echo $$; exec ` + binaryPath + ` "$@" >>` + logPath + ` 2>&1`
	output, input := io.Pipe()
	p := &process{done: make(chan struct{})}
	client := n.on.control
	go func() {
		defer close(p.done)
		p.err = client.Exec(context.Background(), control.Command{
			Argv: append([]string{"sh", "-c", script, "sh"}, n.role.Args...), Env: n.role.Env, Dir: "/root", Stdout: input,
		})
		_ = input.CloseWithError(p.err)
	}()
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("read process number: %w", err)
	}
	p.pid, err = strconv.Atoi(strings.TrimSpace(line))
	return p, err
}

// Stop asks kedge to end, as the service manager does, and waits for it. Containers go on.
func (n *Node) Stop() {
	n.lab.t.Helper()
	n.Signal("TERM")
	if err := n.AwaitExit(stopTimeout); err != nil {
		n.lab.t.Fatalf("stop kedge on %s: %v\n%s", n.name, err, n.logTail(20))
	}
}

// Kill kills kedge alone and at once; its shims and containers go on.
func (n *Node) Kill() {
	n.lab.t.Helper()
	n.Signal("KILL")
	var exit *control.ExitError
	if err := n.AwaitExit(stopTimeout); !errors.As(err, &exit) {
		n.lab.t.Fatalf("kill kedge on %s: %v", n.name, err)
	}
}

// Signal sends kedge a signal, as TERM.
func (n *Node) Signal(name string) {
	n.lab.t.Helper()
	if n.kedge == nil {
		n.lab.t.Fatalf("signal kedge on %s: it does not run", n.name)
	}
	_, err := n.Run("kill", "-"+name, strconv.Itoa(n.kedge.pid))
	n.lab.must("signal kedge on "+n.name, err)
}

// AwaitExit waits for kedge to end by itself or by a signal, and returns nil for exit code 0 or how it ended.
func (n *Node) AwaitExit(within time.Duration) error {
	n.lab.t.Helper()
	if n.kedge == nil {
		n.lab.t.Fatalf("wait for kedge on %s: it does not run", n.name)
	}
	if n.Running() { // or both cases below may be true, and either taken
		select {
		case <-n.kedge.done:
		case <-time.After(within):
			return fmt.Errorf("it still runs after %v", within)
		}
	}
	err := n.kedge.err
	n.kedge = nil
	return err
}

// Running says whether kedge was started and has not ended.
func (n *Node) Running() bool {
	if n.kedge == nil {
		return false
	}
	select {
	case <-n.kedge.done:
		return false
	default:
		return true
	}
}

// AwaitReady waits until kedge says that all its components are ready, and, on a server with a node, until that node is ready.
func (n *Node) AwaitReady() {
	n.lab.t.Helper()
	n.AwaitKedge(readyTimeout)
	if n.isServer() && !n.hasArg("--disable-agent") {
		n.AwaitNodes(n.name)
	}
}

// AwaitKedge waits until kedge says that all its components are ready.
func (n *Node) AwaitKedge(within time.Duration) {
	n.lab.t.Helper()
	n.lab.Await("kedge on "+n.name+" ready", within, func() error {
		if !n.Running() {
			n.lab.t.Fatalf("kedge on %s ended: %v\n%s", n.name, n.AwaitExit(0), n.logTail(20))
		}
		return n.notReady()
	})
}

// Status is what kedge status on the node shows.
func (n *Node) Status() (status.Report, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return status.Get(ctx, n.insidePath(status.DefaultSocket))
}

// API is what the node API of an agent says about itself. Full lists and traffic are counted from the start of kedge.
type API struct {
	Server     string // up or down
	FullLists  int
	HeldWrites int
	Prepared   bool
	Traffic    struct{ Sent, Received, Connections, Requests int64 }
}

// API asks the node API of an agent.
func (n *Node) API() (now API, err error) {
	out, err := n.Run("curl", "-s", "http://127.0.0.1:10550/kedge/state")
	if err == nil {
		err = json.Unmarshal([]byte(out), &now)
	}
	return now, err
}

// AwaitAPI waits until the node API of an agent is as it should be.
func (n *Node) AwaitAPI(what string, ok func(API) bool) {
	n.lab.t.Helper()
	n.lab.Await(what+" on "+n.name, readyTimeout, func() error {
		now, err := n.API()
		if err == nil && !ok(now) {
			err = fmt.Errorf("it is %+v", now)
		}
		return err
	})
}

// Program is one that the test runs on a machine, beside kedge.
type Program struct {
	end    context.CancelFunc
	done   chan struct{}
	output output.Buffer
}

// Beside runs kedge with arguments on the machine, beside the kedge that is there, until the test ends or Stop is called.
func (n *Node) Beside(args ...string) *Program {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Program{end: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = n.RunStreams(ctx, control.Command{Argv: append([]string{binaryPath}, args...), Stdout: &p.output, Stderr: &p.output})
	}()
	n.lab.t.Cleanup(p.Stop)
	return p
}

// Stop kills the program.
func (p *Program) Stop() { p.end(); <-p.done }

// Output is what it has written so far.
func (p *Program) Output() string { return p.output.String() }

func (n *Node) notReady() error {
	r, err := n.Status()
	if err != nil {
		return err
	}
	if r.Ready {
		return nil
	}
	var waiting []string
	for _, c := range r.Components {
		if c.Reason != "" {
			waiting = append(waiting, c.Name+": "+c.Reason)
		}
	}
	return fmt.Errorf("not ready: %s", strings.Join(waiting, "; "))
}

func (n *Node) isServer() bool { return len(n.role.Args) > 0 && n.role.Args[0] == "server" }

func (n *Node) hasArg(arg string) bool {
	for _, a := range n.role.Args {
		if a == arg {
			return true
		}
	}
	return false
}

// insidePath is a path of the machine as the host sees it, also for what only exists in its mount namespace.
func (n *Node) insidePath(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", n.on.cmd.Process.Pid, path)
}

// Log is everything that kedge has written on the node.
func (n *Node) Log() string {
	n.lab.t.Helper()
	text, err := os.ReadFile(n.HostPath(logPath))
	n.lab.must("read log of "+n.name, err)
	return string(text)
}

// AgentToken is the token with which agents join a server that is ready.
func (n *Node) AgentToken() string {
	n.lab.t.Helper()
	return n.Exec("cat", "/var/lib/kedge/server/agent-token")
}

// URL is where other machines reach the node's API, if it is a server.
func (n *Node) URL() string { return "https://" + n.IP() + ":6443" }
