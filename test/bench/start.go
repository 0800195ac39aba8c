package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kedge-io/kedge/test/lab"
	"github.com/kedge-io/kedge/test/workload"
)

// starts measures cold starts on empty directories and restarts after a kill.
func (b *bench) starts() error {
	var ready, node, pod, gap []time.Duration
	for i := range b.opt.runs {
		n := b.machine(fmt.Sprintf("cold%d", i))
		begin := time.Now()
		n.Start()
		client, err := b.awaitAPI(n)
		if err != nil {
			return err
		}
		ready = append(ready, time.Since(begin))
		if err := b.startPod(client, "first"); err != nil {
			return err
		}
		if err := b.awaitNode(client, n.Name()); err != nil {
			return err
		}
		node = append(node, time.Since(begin))
		if err := b.awaitRunning(client, "first"); err != nil {
			return err
		}
		pod = append(pod, time.Since(begin))
		n.AwaitReady()
		g, err := b.killGap(n)
		if err != nil {
			return err
		}
		gap = append(gap, g)
		n.AwaitReady()
		n.PowerOff()
	}
	note := fmt.Sprintf("median of %d, image archive imported on the way", b.opt.runs)
	b.report.add(
		row{"cold start to /readyz", percentile(ready, 50).Seconds(), "s", "3; 2.5", note},
		row{"cold start to node Ready", percentile(node, 50).Seconds(), "s", "8; 4", note},
		row{"cold start to first pod Running", percentile(pod, 50).Seconds(), "s", "10; 5", note},
		row{"API gap of kill -9 and start", percentile(gap, 50).Seconds(), "s", "4; 2.5", fmt.Sprintf("median of %d, 10 ms prober", b.opt.runs)},
	)
	return nil
}

// every calls done each interval until it returns nil, the step's time is up, or a minute has passed.
func (b *bench) every(interval time.Duration, what string, done func() error) error {
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		err := done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("await %s: %w", what, errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

// awaitAPI waits until /readyz answers 200.
func (b *bench) awaitAPI(n *lab.Node) (client *kubernetes.Clientset, err error) {
	err = b.every(10*time.Millisecond, "API", func() error {
		if client, err = n.Client(); err != nil {
			return err
		}
		return client.RESTClient().Get().AbsPath("/readyz").Do(b.ctx).Error()
	})
	return client, err
}

// awaitNode waits until the node is ready.
func (b *bench) awaitNode(client *kubernetes.Clientset, name string) error {
	return b.every(20*time.Millisecond, "node", func() error {
		node, err := client.CoreV1().Nodes().Get(b.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return errors.New("not ready")
	})
}

func (b *bench) awaitRunning(client *kubernetes.Clientset, name string) error {
	return b.every(20*time.Millisecond, "pod", func() error {
		pod, err := client.CoreV1().Pods("default").Get(b.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("pod is %s", pod.Status.Phase)
		}
		return nil
	})
}

// startPod creates a small pod; the first has to wait for its namespace's service account.
func (b *bench) startPod(client *kubernetes.Clientset, name string) error {
	return b.every(20*time.Millisecond, "service account", func() error {
		_, err := client.CoreV1().Pods("default").Create(b.ctx, smallPod(name), metav1.CreateOptions{})
		return err
	})
}

func smallPod(name string) *corev1.Pod {
	grace := int64(0)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"bench": "pod"}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			Containers:                    []corev1.Container{{Name: "c", Image: "kedge.local/busybox:1", Command: []string{"sleep", "1000000"}}},
		},
	}
}

// killGap kills kedge, starts it at once and returns how long /readyz did not answer.
func (b *bench) killGap(n *lab.Node) (time.Duration, error) {
	cfg, err := n.RESTConfig()
	if err != nil {
		return 0, err
	}
	cfg.Timeout = time.Second
	probe := func() error {
		client, err := rest.HTTPClientFor(cfg)
		if err != nil {
			return err
		}
		defer client.CloseIdleConnections()
		resp, err := client.Get(cfg.Host + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	}
	if err := probe(); err != nil {
		return 0, fmt.Errorf("before the kill: %w", err)
	}
	begin := time.Now()
	n.Kill()
	n.Start()
	if err := b.every(10*time.Millisecond, "API after the kill", probe); err != nil {
		return 0, err
	}
	return time.Since(begin), nil
}

// offlineReboot measures how long a node that is cut off needs, after everything in it has died, from the start of kedge to ten ready pods.
func (b *bench) offlineReboot() error {
	farm, server, n := b.pair()
	n.AddBusybox()
	n.Start()
	server.AwaitNodes("node")
	server.Apply(workload.Manifest("node", "/opt/kedge/bin/kedge"))
	pods, err := b.localPods(n, nil)
	if err != nil {
		return err
	}
	var state struct{ Prepared bool }
	if err := b.every(time.Second, "roles and keys", func() error {
		data, err := b.askNode(n, "/kedge/state")
		if err == nil && (json.Unmarshal(data, &state) != nil || !state.Prepared) {
			err = errors.New("not yet")
		}
		return err
	}); err != nil {
		return err
	}
	farm.Uplink().Cut()
	var took []time.Duration
	for range b.opt.runs {
		n.Reboot()
		begin := time.Now()
		n.Start()
		if pods, err = b.localPods(n, pods); err != nil {
			return err
		}
		took = append(took, time.Since(begin))
	}
	b.report.add(row{"offline reboot, 10 pods ready", percentile(took, 50).Seconds(), "s", "20; 8",
		fmt.Sprintf("median of %d, from the start of kedge on a node without its server", b.opt.runs)})
	return nil
}

// localPods waits until all pods are ready as the node itself sees it, in other containers than those of before.
func (b *bench) localPods(n *lab.Node, before map[string]corev1.Pod) (pods map[string]corev1.Pod, err error) {
	err = b.every(20*time.Millisecond, "pods of the node", func() error {
		data, err := b.askNode(n, "/api/v1/namespaces/default/pods")
		if err != nil {
			return err
		}
		if pods, err = workload.Read(data); err != nil {
			return err
		}
		return workload.AllReady(pods, before)
	})
	return pods, err
}

// askNode reads from the plain port of a node.
func (b *bench) askNode(n *lab.Node, path string) ([]byte, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: n.Dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(b.ctx, http.MethodGet, "http://127.0.0.1:10550"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return data, err
}
