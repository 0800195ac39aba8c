package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/test/bench/fleet"
	"github.com/kedge-io/kedge/test/bench/outage"
	"github.com/kedge-io/kedge/test/crowd"
	"github.com/kedge-io/kedge/test/lab"
	"github.com/kedge-io/kedge/test/lab/slowlink"
)

// ticks a second in /proc/PID/stat (USER_HZ, the same on all Linux architectures we build for).
const userHz = 100

// idleSite watches a site that does nothing: first without pods for memory, then with five for CPU and disk.
func (b *bench) idleSite() error {
	n, client, err := b.site("idle", profiling)
	if err != nil {
		return err
	}
	status, err := n.Status()
	if err != nil {
		return err
	}
	pid := strconv.Itoa(status.PID)
	b.wait(b.opt.idle)
	if err := b.memory(n, pid, fmt.Sprintf("%s after Ready, default add-ons, no pods", b.opt.idle)); err != nil {
		return err
	}
	for i := range 5 {
		if err := b.startPod(client, fmt.Sprintf("idle%d", i)); err != nil {
			return err
		}
	}
	n.AwaitPods("default", "bench=pod", 5)
	b.wait(30 * time.Second)
	cpu, disk, begin := cpuSeconds(n, pid), writtenBytes(n, pid), time.Now()
	b.wait(b.opt.idle)
	took := time.Since(begin)
	note := fmt.Sprintf("over %s, 5 pods", took.Round(time.Second))
	b.report.add(
		row{"idle CPU", (cpuSeconds(n, pid) - cpu) / took.Seconds() * 100, "% of a core", "4; 2", note},
		row{"idle disk writes", (writtenBytes(n, pid) - disk) / took.Hours() * 24 / 1e6, "MB a day", "1000; 200", note + ", write_bytes of the process"},
	)
	return nil
}

// agent watches a node that joined from behind address translation: how long joining takes, what it costs while nothing happens,
// and how long exec takes through the tunnel.
func (b *bench) agent() error {
	farm, server, n := b.pair()
	n.AddBusybox()
	begin := time.Now()
	n.Start()
	server.AwaitNodes("node")
	b.report.add(row{"agent join", time.Since(begin).Seconds(), "s", "", "start of kedge on an empty machine to Ready"})
	n.AwaitReady()
	status, err := n.Status()
	if err != nil {
		return err
	}
	client, err := server.Client()
	if err != nil {
		return err
	}
	for i := range 5 {
		pod := smallPod(fmt.Sprintf("behind%d", i))
		pod.Spec.NodeName = "node"
		if _, err := client.CoreV1().Pods("default").Create(b.ctx, pod, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	server.AwaitPods("default", "bench=pod", 5)
	b.tunnelExec(server, "behind0")
	b.wait(150 * time.Second) // a pod's status is written once more after a minute
	before, begin := farm.Uplink().Bytes(), time.Now()
	cpu, pid := cpuSeconds(n, strconv.Itoa(status.PID)), strconv.Itoa(status.PID)
	b.wait(b.opt.idle)
	used, took := farm.Uplink().Bytes().Since(before), time.Since(begin)
	note := fmt.Sprintf("over %s, 5 pods", took.Round(time.Second))
	rollup := kilobytes(n.Exec("cat", "/proc/"+pid+"/smaps_rollup"))
	b.report.add(
		row{"agent, bytes on the link", float64(used.Total()) / 1000 / took.Minutes(), "KB a minute", "10; 2", note + ", both directions with IP headers"},
		row{"  up", float64(used.Sent) / 1000 / took.Minutes(), "KB a minute", "", fmt.Sprintf("%.0f packets a minute in all", float64(used.PacketsSent+used.PacketsReceived)/took.Minutes())},
		row{"agent memory, idle, PSS", rollup["Pss"] / 1024, "MiB", "200; 90", note},
		row{"  anonymous", rollup["Pss_Anon"] / 1024, "MiB", "", ""},
		row{"agent CPU, idle", (cpuSeconds(n, pid) - cpu) / took.Seconds() * 100, "% of a core", "4; 0.7", note},
	)
	return nil
}

// tunnelExec times a small command in a pod on the node behind the tunnel, with kubectl's own start.
func (b *bench) tunnelExec(server *lab.Node, pod string) {
	times := make([]time.Duration, 20)
	for i := range times {
		begin := time.Now()
		server.Kubectl("exec", pod, "--", "true")
		times[i] = time.Since(begin)
	}
	b.report.add(row{"exec through the tunnel", percentile(times, 50).Seconds() * 1000, "ms", "", "median of 20, kubectl's start included"})
}

// memory reports where the memory of the one process is.
func (b *bench) memory(n *lab.Node, pid, note string) error {
	rollup := kilobytes(n.Exec("cat", "/proc/"+pid+"/smaps_rollup"))
	b.report.add(
		row{"site memory, idle, PSS", rollup["Pss"] / 1024, "MiB", "400; 220", note},
		row{"  anonymous", rollup["Pss_Anon"] / 1024, "MiB", "; 150", "huge pages " + fmt.Sprint(rollup["AnonHugePages"]) + " kB"},
		row{"  files", rollup["Pss_File"] / 1024, "MiB", "", "pages of the binary"},
	)
	b.report.add(
		row{"  live heap after a forced GC", liveHeap(n), "MiB", "", ""},
		row{"  goroutines", gauge(n.Kubectl("get", "--raw", "/metrics"), "go_goroutines"), "", "", ""},
	)
	return nil
}

// wait lets time pass: what is measured here is what happens meanwhile.
func (b *bench) wait(d time.Duration) {
	select {
	case <-b.ctx.Done():
	case <-time.After(d):
	}
}

// kilobytes reads lines such as "Pss_Anon:  123 kB".
func kilobytes(text string) map[string]float64 {
	out := map[string]float64{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) == 3 && f[2] == "kB" {
			if v, err := strconv.ParseFloat(f[1], 64); err == nil {
				out[strings.TrimSuffix(f[0], ":")] = v
			}
		}
	}
	return out
}

// gauge is the value of a metric without labels, in the Prometheus text format.
func gauge(metrics, name string) float64 {
	for _, line := range strings.Split(metrics, "\n") {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			if v, err := strconv.ParseFloat(value, 64); err == nil {
				return v
			}
		}
	}
	return 0
}

// cpuSeconds is user and system time of a process, see proc(5); the name in brackets may hold spaces.
func cpuSeconds(n *lab.Node, pid string) float64 {
	stat := n.Exec("cat", "/proc/"+pid+"/stat")
	f := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	user, err1 := strconv.ParseFloat(f[11], 64)
	system, err2 := strconv.ParseFloat(f[12], 64)
	if err1 != nil || err2 != nil {
		return 0
	}
	return (user + system) / userHz
}

// writtenBytes is what a process caused to be sent to the disk.
func writtenBytes(n *lab.Node, pid string) float64 {
	for _, line := range strings.Split(n.Exec("cat", "/proc/"+pid+"/io"), "\n") {
		if value, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			if v, err := strconv.ParseFloat(value, 64); err == nil {
				return v
			}
		}
	}
	return 0
}

// grid measures units of simulated nodes with workloads in each: until all are there, and when one node moves to another unit.
func (b *bench) grid() error {
	units, grids := b.opt.units, b.opt.grids
	n := b.machine("grid", append(fleet.Arguments(), profiling)...)
	if err := os.WriteFile(n.HostPath(fleet.Policy), []byte(fleet.PolicyText), 0o600); err != nil {
		return err
	}
	n.Start()
	n.AwaitReady()
	cfg, err := n.RESTConfig()
	if err != nil {
		return err
	}
	f, err := fleet.New(cfg, n.HostPath(fleet.Log), units, grids)
	if err != nil {
		return err
	}
	if err := f.AddNodes(b.ctx); err != nil {
		return err
	}
	b.wait(settleTime)
	status, err := n.Status()
	if err != nil {
		return err
	}
	g := &gridBench{bench: b, n: n, fleet: f, pid: strconv.Itoa(status.PID)}
	if err := g.converge(); err != nil {
		return err
	}
	if err := g.own(); err != nil {
		return err
	}
	return g.move()
}

// gridBench is a fleet on a site.
type gridBench struct {
	*bench
	n     *lab.Node
	fleet *fleet.Fleet
	pid   string
}

// spend does something and returns the CPU seconds of the whole process and the requests until done says that it has happened.
func (g *gridBench) spend(change, done func() error) (float64, fleet.Requests, error) {
	mark, err := g.fleet.Mark()
	if err != nil {
		return 0, nil, err
	}
	cpu := cpuSeconds(g.n, g.pid)
	if err := change(); err != nil {
		return 0, nil, err
	}
	if err := done(); err != nil {
		return 0, nil, err
	}
	cpu = cpuSeconds(g.n, g.pid) - cpu
	requests, err := g.fleet.Since(mark)
	return cpu, requests, err
}

// converge makes the grids and waits for their workloads.
func (g *gridBench) converge() error {
	f := g.fleet
	heap, begin := liveHeap(g.n), time.Now()
	var made time.Duration
	cpu, calls, err := g.spend(func() error { return f.AddGrids(g.ctx) }, func() error {
		if err := g.slowly("workloads made", func() error { return f.Made(g.ctx) }); err != nil {
			return err
		}
		made = time.Since(begin)
		return g.slowly("units ready", func() error { return f.Settled(g.ctx, f.Units) })
	})
	if err != nil {
		return err
	}
	note := fmt.Sprintf("%d units, %d workloads without pods", f.Units, f.Units*f.Grids)
	g.report.add(
		row{"grids, all workloads made", made.Seconds(), "s", "", note},
		row{"  all units ready", time.Since(begin).Seconds(), "s", "", "Kubernetes' controllers make a ReplicaSet for each, at most 100 requests a second"},
		row{"  CPU until then", cpu, "s", "", "the whole process"},
		row{"  requests of the grid", float64(calls["grid"]), "", "", fmt.Sprint(calls)},
	)
	g.wait(settleTime)
	g.report.add(row{"  live heap for them", liveHeap(g.n) - heap, "MiB", "", "controllers, the API server's caches and Kubernetes' controllers"})
	return nil
}

// slowly asks seldom, because the answer is large, for half an hour at most.
func (g *gridBench) slowly(what string, done func() error) (err error) {
	for range 30 {
		if err = g.every(5*time.Second, what, done); err == nil || g.ctx.Err() != nil {
			break
		}
	}
	return err
}

// own measures the grid's controllers without their surroundings.
func (g *gridBench) own() error {
	own, err := g.fleet.MeasureOwn(g.ctx, time.Minute)
	if err != nil {
		return err
	}
	note := "controllers alone, in a process of their own"
	g.report.add(
		row{"  the grid's own live heap", own.HeapMiB, "MiB", "", note},
		row{"  the grid's own CPU to look at all", own.CPU.Seconds(), "s", "", fmt.Sprintf("%s; it wrote %d times", note, own.Writes)},
	)
	return nil
}

// move compares a quiet time with one in which a node changes its unit.
func (g *gridBench) move() error {
	quiet := func() error { g.wait(fleet.Quiet); return nil }
	idle, _, err := g.spend(func() error { return nil }, quiet)
	if err != nil {
		return err
	}
	cpu, calls, err := g.spend(func() error { return g.fleet.Move(g.ctx, 7, "u8") }, quiet)
	if err != nil {
		return err
	}
	note := fmt.Sprintf("%d workloads go, %d stay; in %s, less the same time before", g.fleet.Grids, g.fleet.Grids*(g.fleet.Units-1), fleet.Quiet)
	g.report.add(
		row{"a node changes its unit: requests", float64(calls["grid"]), "", "", fmt.Sprint(calls)},
		row{"  CPU", (cpu - idle) * 1000, "ms", "", note})
	return nil
}

// reconnect cuts a node off while objects change, over a line with a round trip of 50 ms.
func (b *bench) reconnect() error {
	s := b.outage()
	n := s.Farm.AddAgent("node", s.Server)
	n.Start()
	s.Server.AwaitNodes("node")
	n.AwaitReady()
	s.Farm.Uplink().Slow(slowlink.Quality{Delay: 25 * time.Millisecond})
	b.wait(settleTime)
	for _, changes := range []int{0, 100, 1000} {
		f, err := s.Node(n, changes, b.opt.cut)
		if err != nil {
			return err
		}
		note := fmt.Sprintf("%d objects changed, cut for %s, 50 ms round trip; %d full lists", changes, b.opt.cut, f.Lists)
		b.report.add(
			row{"reconnect, current after", f.Took.Seconds(), "s", "5; 1", note},
			row{"reconnect, bytes", float64(f.Bytes) / 1000, "KB", fmt.Sprintf("; %d", 8+changes*60/1000), note + ", ten seconds more"},
		)
	}
	return nil
}

// storm has many simulated nodes come back at once to a server that was restarted.
func (b *bench) storm() error {
	const changes = 100
	s := b.outage("--disable-agent")
	var crowds []*crowd.Crowd
	nodes := 0
	for i, each := range []int{50, 50, 125, 125} {
		c, err := s.Join(b.ctx, s.Farm.AddNode(fmt.Sprintf("crowd%d", i), lab.Agent()), each)
		if err != nil {
			return err
		}
		crowds = append(crowds, c)
		nodes += each
		if nodes == 225 { // half of the next
			continue
		}
		f, err := s.Storm(crowds, fmt.Sprintf("storm%d", nodes), changes)
		if err != nil {
			return err
		}
		note := fmt.Sprintf("%d simulated nodes, server restarted, %d objects changed; %d full lists", nodes, changes, f.Lists)
		b.report.add(
			row{"storm, all current after", f.Took.Seconds(), "s", "60; 30", note},
			row{"storm, server memory added at most", (f.Peak - f.Before) / 1024, "MiB", "; 150", fmt.Sprintf("RSS; %.0f MiB before", f.Before/1024)},
			row{"storm, bytes a node", float64(f.Bytes) / 1000 / float64(nodes), "KB", "", note},
		)
	}
	return nil
}

// outage is a server that is ready, and a site behind address translation.
func (b *bench) outage(args ...string) *outage.Scene {
	l := lab.New(b.tb)
	s := &outage.Scene{Server: l.AddSite("bench").AddNode("server", lab.Server(args...)), Farm: l.AddSiteBehindNAT("farm"), Await: b.patiently, Wait: b.wait}
	s.Server.Start()
	s.Server.AwaitReady()
	return s
}
