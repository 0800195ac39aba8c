package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kedge-io/kedge/test/lab/cgroup"
	"github.com/kedge-io/kedge/test/lab/machine"
	"github.com/kedge-io/kedge/test/lab/netns"
	"github.com/kedge-io/kedge/test/vm/control"
)

// Node is one machine. Its files, name and address outlive its reboots.
type Node struct {
	lab    *Lab
	site   *Site
	name   string
	number int // in its site
	role   Role
	state  string // directory of its files on the host
	on     *power // nil: switched off
	kedge  *process
}

// power is what a machine has while it is switched on.
type power struct {
	cmd     *exec.Cmd
	control *control.Client
	ns      *netns.Namespace
}

// firstNumber is the host part of a site's first node's address.
const firstNumber = 11

// bootTimeout bounds the time from PowerOn to the first answer.
const bootTimeout = 20 * time.Second

// AddNode makes a machine in the site and switches it on. kedge is installed there and not started.
func (s *Site) AddNode(name string, role Role) *Node {
	s.lab.t.Helper()
	n := &Node{lab: s.lab, site: s, name: name, number: len(s.nodes) + firstNumber, role: role, state: filepath.Join(s.lab.dir, name)}
	for _, other := range s.lab.nodes() {
		if other.name == name {
			s.lab.t.Fatalf("add node %s: there is one of that name", name)
		}
	}
	s.nodes = append(s.nodes, n)
	n.PowerOn()
	return n
}

// AddAgent makes a machine that joins a server which is ready, with further arguments. It is switched on, and kedge is not started.
func (s *Site) AddAgent(name string, server *Node, args ...string) *Node {
	s.lab.t.Helper()
	return s.AddNode(name, Agent(append([]string{"--server", server.URL(), "--token", server.AgentToken()}, args...)...))
}

// Name is the node's host name, which is its node name too.
func (n *Node) Name() string { return n.name }

// IP is the node's address in its site.
func (n *Node) IP() string { return fmt.Sprintf("172.20.%d.%d", n.site.number, n.number) }

// HostPath is where a file of the machine below /var, /tmp or, as far as it was changed there, /etc is found on the host.
func (n *Node) HostPath(path string) string { return filepath.Join(n.state, path) }

// PowerOn switches the machine on; kedge is not started.
func (n *Node) PowerOn() {
	n.lab.t.Helper()
	n.lab.must("power on "+n.name, n.powerOn())
}

// PowerOff kills everything in the machine at once and takes its network away. Its files stay.
func (n *Node) PowerOff() {
	n.lab.t.Helper()
	if n.on == nil {
		n.lab.t.Fatalf("power off %s: it is off", n.name)
	}
	n.powerOff()
}

// Reboot is PowerOff and PowerOn: kedge, shims and containers are gone, /run is empty. Start starts kedge again.
func (n *Node) Reboot() {
	n.lab.t.Helper()
	n.PowerOff()
	n.PowerOn()
}

func (n *Node) powerOn() error {
	if n.on != nil {
		return errors.New("it is on")
	}
	if err := os.MkdirAll(n.state, 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(n.state, "machine.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	mine, theirs, err := socketPair()
	if err != nil {
		return err
	}
	configRead, configWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command(n.lab.first, machine.StepBoot)
	cmd.Stderr = log
	cmd.ExtraFiles = []*os.File{theirs, configRead}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
		Setsid:     true,
	}
	err = cmd.Start()
	_, _, _ = theirs.Close(), configRead.Close(), log.Close()
	if err != nil {
		return errors.Join(err, mine.Close(), configWrite.Close())
	}
	n.on = &power{cmd: cmd, control: control.NewClient(mine)}
	return n.settle(configWrite)
}

// settle gives the new machine its control groups, network and configuration, and waits until it answers.
func (n *Node) settle(config *os.File) error {
	defer func() { _ = config.Close() }()
	pid := n.on.cmd.Process.Pid
	if err := cgroup.Add(cgroupOf(n.lab.dir, n.name), pid); err != nil {
		return err
	}
	var err error
	if n.on.ns, err = netns.OfProcess(pid); err != nil {
		return err
	}
	if err := n.connect(); err != nil {
		return err
	}
	if err := json.NewEncoder(config).Encode(n.machine()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	if _, err := n.on.control.Ping(ctx); err != nil {
		log, _ := os.ReadFile(filepath.Join(n.state, "machine.log"))
		return fmt.Errorf("%w\n%s", err, log)
	}
	return nil
}

// card is the node's network interface.
const card = "eth0"

func (n *Node) cable() string { return fmt.Sprintf("node%d", n.number) }

// connect plugs the machine into its site.
func (n *Node) connect() error {
	ns := n.on.ns
	steps := []func() error{
		func() error { return ns.Sysctl("ipv6/conf/default/disable_ipv6", "1") },
		func() error { return n.site.ns.Veth(n.cable(), ns, card) },
		func() error { return n.site.ns.Bridge(lanBridge, n.cable()) },
		func() error { return ns.Sysctl("ipv6/conf/default/disable_ipv6", "0") },
		func() error { return ns.Address(card, n.IP()+"/24") },
		func() error { return ns.Route("default", card, n.site.Gateway()) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Where the machine has what the host brings.
const (
	binDir     = "/opt/kedge/bin"
	binaryPath = binDir + "/kedge"
	payloadDir = "/opt/kedge/payload"
)

func (n *Node) machine() machine.Config {
	cfg := machine.Config{
		Hostname: n.name, State: n.state, Nameserver: n.site.Gateway(),
		Mounts: map[string]string{binaryPath: n.lab.binary},
		Env: []string{"HOME=/root", "USER=root", "LANG=C.UTF-8",
			"PATH=" + binDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}
	for _, other := range n.lab.nodes() {
		cfg.Hosts = append(cfg.Hosts, other.IP()+" "+other.name)
	}
	if dir := os.Getenv(EnvPayload); dir != "" {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(n.lab.repo, dir)
		}
		cfg.Mounts[payloadDir] = dir
		cfg.Env = append(cfg.Env, EnvPayload+"="+payloadDir)
	}
	return cfg
}

// powerOff ends process 1, and with it the kernel ends all others before it reports the end.
func (n *Node) powerOff() {
	if n.on == nil {
		return
	}
	_ = n.on.cmd.Process.Kill()
	_ = n.on.cmd.Wait()
	_ = n.on.control.Close()
	if n.on.ns != nil {
		n.on.ns.Close()
	}
	if n.kedge != nil {
		<-n.kedge.done
	}
	n.on, n.kedge = nil, nil
	// The kernel takes the cable away some time after the machine's network ended; the next power-on does not wait for that.
	_ = n.site.ns.Delete(n.cable())
	if err := cgroup.Remove(cgroupOf(n.lab.dir, n.name)); err != nil {
		n.lab.t.Errorf("power off %s: %v", n.name, err)
	}
}

// Unplug pulls the node's network cable: its interface has no carrier. Plug ends it.
func (n *Node) Unplug() {
	n.lab.t.Helper()
	n.lab.must("unplug "+n.name, n.site.ns.SetUp(n.cable(), false))
}

// Plug puts the network cable in again.
func (n *Node) Plug() {
	n.lab.t.Helper()
	n.lab.must("plug "+n.name, n.site.ns.SetUp(n.cable(), true))
}

// Bytes is what the machine has sent and received on its network card since it was switched on.
func (n *Node) Bytes() Traffic {
	n.lab.t.Helper()
	link, err := n.site.ns.Links().LinkByName(n.cable())
	n.lab.must("count bytes of "+n.name, err)
	s := link.Attrs().Statistics // of the far end
	return traffic(ethernetHeader, s.RxBytes, s.TxBytes, s.RxPackets, s.TxPackets)
}

// socketPair is one end as a connection and the other as a file to inherit.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	mine := os.NewFile(uintptr(fds[0]), "test's end")
	defer func() { _ = mine.Close() }()
	conn, err := net.FileConn(mine)
	return conn, os.NewFile(uintptr(fds[1]), "machine's end"), err
}

// logTail is the last lines of kedge's log on the node.
func (n *Node) logTail(lines int) string {
	text, err := os.ReadFile(n.HostPath(logPath))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
