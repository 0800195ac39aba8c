package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kedge-io/kedge/pkg/datastore"
	"github.com/kedge-io/kedge/pkg/datastore/measure"
	"github.com/kedge-io/kedge/test/bench/twins"
	"github.com/kedge-io/kedge/test/lab"
)

// podStarts creates pods one and five a second and times each from its creation to Running, as a watch sees it.
func (b *bench) podStarts() error {
	_, client, err := b.site("pods")
	if err != nil {
		return err
	}
	if err := b.startPod(client, "warmup"); err != nil {
		return err
	}
	if err := b.awaitRunning(client, "warmup"); err != nil {
		return err
	}
	for _, load := range []struct {
		name      string
		pods      int
		perSecond int
	}{{"one", b.opt.pods, 1}, {"five", b.opt.pods / 2, 5}} {
		took, err := b.timePods(client, load.name, load.pods, load.perSecond)
		if err != nil {
			return err
		}
		note := fmt.Sprintf("%d pods, %d a second, image present", load.pods, load.perSecond)
		b.report.add(
			row{"pod start p50", percentile(took, 50).Seconds(), "s", "; 0.7", note},
			row{"pod start p99", percentile(took, 99).Seconds(), "s", "2.5;", note},
		)
	}
	return nil
}

func (b *bench) timePods(client *kubernetes.Clientset, name string, pods, perSecond int) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Minute)
	defer cancel()
	w, err := client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{LabelSelector: "bench=pod"})
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	var mu sync.Mutex
	created := map[string]time.Time{}
	var took []time.Duration
	failed := make(chan error, 1)
	go func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for i := range pods {
			pod := smallPod(fmt.Sprintf("%s-%d", name, i))
			mu.Lock()
			created[pod.Name] = time.Now()
			mu.Unlock()
			if _, err := client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
				failed <- err
				return
			}
			<-tick.C
		}
	}()
	for len(took) < pods {
		select {
		case err := <-failed:
			return nil, err
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d pods are running: %w", len(took), pods, ctx.Err())
		case e := <-w.ResultChan():
			pod, ok := e.Object.(*corev1.Pod)
			if !ok || pod.Status.Phase != corev1.PodRunning {
				continue
			}
			mu.Lock()
			if at, ok := created[pod.Name]; ok {
				took = append(took, time.Since(at))
				delete(created, pod.Name)
			}
			mu.Unlock()
		}
	}
	return took, client.CoreV1().Pods("default").DeleteCollection(b.ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "bench=pod"})
}

// apiWrites creates ConfigMaps through the API server with 1, 16 and 64 clients.
func (b *bench) apiWrites() error {
	_, client, err := b.site("api", "--kube-apiserver-arg=max-mutating-requests-inflight=1000")
	if err != nil {
		return err
	}
	targets := map[int]string{16: "1500; 2400", 64: "p99 100; 50 ms"}
	for _, clients := range []int{1, 16, 64} {
		rate, p99, err := b.createFor(client, clients, 5*time.Second)
		if err != nil {
			return err
		}
		b.report.add(row{fmt.Sprintf("API creates, %d clients", clients), rate, "/s", targets[clients], fmt.Sprintf("p99 %s", p99.Round(100*time.Microsecond))})
	}
	return nil
}

func (b *bench) createFor(client *kubernetes.Clientset, clients int, d time.Duration) (perSecond float64, p99 time.Duration, err error) {
	ctx, cancel := context.WithTimeout(b.ctx, d)
	defer cancel()
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	begin := time.Now()
	for c := range clients {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m-%d-%d-%d", clients, c, i)}, Data: map[string]string{"k": "v"}}
				at := time.Now()
				_, e := client.CoreV1().ConfigMaps("default").Create(ctx, m, metav1.CreateOptions{})
				mu.Lock()
				if e == nil {
					took = append(took, time.Since(at))
				} else if ctx.Err() == nil {
					err = e
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return float64(len(took)) / time.Since(begin).Seconds(), percentile(took, 99), err
}

// store loads the datastore alone, with the durability that a site has.
func (b *bench) store() error {
	dir, err := os.MkdirTemp("build", "bench-store-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	store, err := datastore.New(datastore.Config{
		Dir: dir, Socket: filepath.Join(os.TempDir(), filepath.Base(dir)+".sock"), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(b.ctx)
	ended := make(chan error, 1)
	go func() { ended <- store.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	if err := b.every(10*time.Millisecond, "datastore", func() error { return store.Ready(ctx) }); err != nil {
		return err
	}
	results, err := measure.Run(ctx, measure.Config{Endpoint: store.Endpoint()})
	if err != nil {
		return err
	}
	targets := map[string]string{
		"create 1": "1700; 2000", "create 16": "5000; 8000", "create 64": "5000; 10000", "get 1": "7000; 10000",
	}
	for _, r := range results {
		b.report.add(row{fmt.Sprintf("store %s, %d clients", r.Name, r.Clients), r.PerSecond, "/s", targets[fmt.Sprintf("%s %d", r.Name, r.Clients)],
			fmt.Sprintf("p50 %.2f p99 %.2f max %.2f ms", r.P50ms, r.P99ms, r.Maxms)})
	}
	return nil
}

const (
	manifestFiles = 200
	perManifest   = 10
)

// addons measures the manifests folder of a large site.
func (b *bench) addons() error {
	n, client, err := b.site("addons", profiling)
	if err != nil {
		return err
	}
	return b.manyManifests(n, client)
}

// manyManifests times 200 files of 10 objects from the last write until all are there, and until they are gone again.
func (b *bench) manyManifests(n *lab.Node, client *kubernetes.Clientset) error {
	b.wait(settleTime)
	before := liveHeap(n)
	dir := filepath.Join(n.HostPath("/var/lib/kedge/server/manifests"), "bench")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for i := range manifestFiles {
		text := ""
		for j := range perManifest {
			text += fmt.Sprintf("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: f%d-%d, namespace: default, labels: {bench: manifest}}\ndata: {key: 'x%0400d'}\n", i, j, j)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d.yaml", i)), []byte(text), 0o600); err != nil {
			return err
		}
	}
	count := func(want int) func() error {
		return func() error {
			list, err := client.CoreV1().ConfigMaps("default").List(b.ctx, metav1.ListOptions{LabelSelector: "bench=manifest"})
			if err == nil && len(list.Items) != want {
				err = fmt.Errorf("%d objects of %d", len(list.Items), want)
			}
			return err
		}
	}
	note := fmt.Sprintf("%d files, %d objects", manifestFiles, manifestFiles*perManifest)
	begin := time.Now()
	if err := b.patiently("manifests applied", count(manifestFiles*perManifest)); err != nil {
		return err
	}
	b.report.add(row{"manifests applied", time.Since(begin).Seconds(), "s", "", note})
	b.wait(settleTime)
	b.report.add(row{"  live heap for them", liveHeap(n) - before, "MiB", "", "the API server's caches included"})
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	begin = time.Now()
	if err := b.patiently("manifests removed", count(0)); err != nil {
		return err
	}
	b.report.add(row{"manifests removed", time.Since(begin).Seconds(), "s", "", note})
	return nil
}

// patiently is every for what may take minutes on a busy machine.
func (b *bench) patiently(what string, done func() error) (err error) {
	for range 5 {
		if err = b.every(200*time.Millisecond, what, done); err == nil || b.ctx.Err() != nil {
			break
		}
	}
	return err
}

// devices measures a thousand devices on one node, each with a value that changes once a second, and the way of a desired value to the
// driver.
func (b *bench) devices() error {
	const count = 1000
	_, server, node := b.pair()
	node.Start()
	server.AwaitNodes("node")
	node.AwaitReady()
	b.wait(settleTime)
	site, err := twins.New(server, node)
	if err != nil {
		return err
	}
	before, err := b.twinLoad(server, node)
	if err != nil {
		return err
	}
	if err := site.Add(b.ctx, count); err != nil {
		return err
	}
	site.Drive()
	defer site.Stop()
	if err := b.patiently("reports of all devices", func() error { return site.Reporting(b.ctx, count) }); err != nil {
		return err
	}
	b.wait(settleTime)
	after, err := b.twinLoad(server, node)
	if err != nil {
		return err
	}
	note := fmt.Sprintf("%d devices at 1 Hz on one node, less the same time without", count)
	b.report.add(
		row{"devices, server CPU added", after.server - before.server, "% of a core", "15; 5", note},
		row{"devices, agent CPU added", after.node - before.node, "% of a core", "", note + ", without the driver's own process"},
		row{"devices, agent memory added", after.memory - before.memory, "MiB", "", note + ", PSS anonymous"},
		row{"devices, agent disk writes", after.disk - before.disk, "MB a day", "", note},
	)
	times := make([]time.Duration, 20)
	for i := range times {
		if times[i], err = site.Latency(b.ctx, i+1); err != nil {
			return err
		}
	}
	b.report.add(row{"desired value, API to driver", percentile(times, 50).Seconds() * 1000, "ms", "1000; 20", "median of 20, under that load"})
	return nil
}

// twinCost is what a server and a node use: shares of a core, MiB, MB a day.
type twinCost struct{ server, node, memory, disk float64 }

func (b *bench) twinLoad(server, node *lab.Node) (c twinCost, err error) {
	const watch = time.Minute
	var pids [2]string
	for i, n := range []*lab.Node{server, node} {
		status, err := n.Status()
		if err != nil {
			return c, err
		}
		pids[i] = strconv.Itoa(status.PID)
	}
	s, a, d := cpuSeconds(server, pids[0]), cpuSeconds(node, pids[1]), writtenBytes(node, pids[1])
	b.wait(watch)
	c.server = (cpuSeconds(server, pids[0]) - s) / watch.Seconds() * 100
	c.node = (cpuSeconds(node, pids[1]) - a) / watch.Seconds() * 100
	c.disk = (writtenBytes(node, pids[1]) - d) / watch.Hours() * 24 / 1e6
	c.memory = kilobytes(node.Exec("cat", "/proc/"+pids[1]+"/smaps_rollup"))["Pss_Anon"] / 1024
	return c, nil
}
