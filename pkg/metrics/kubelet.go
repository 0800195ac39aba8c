package metrics

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

const (
	kubeletPort = 10250
	// window is over which time kubelets average CPU usage: their eviction manager samples it each 10 s.
	window = 10 * time.Second
	// maxSummary bounds what a kubelet may answer: 250 pods of 10 containers take about 2 MiB.
	maxSummary = 16 << 20
	// idle is how long a connection is kept for the next question: an autoscaler asks each 15 s, and a handshake costs 4 KB of the link.
	idle = time.Minute
)

// point is the usage of a node or container.
type point struct {
	at     time.Time
	cpu    uint64 // nanocores
	memory uint64 // bytes, working set
}

// sample is what one kubelet said.
type sample struct {
	node *point
	pods map[types.NamespacedName]map[string]point // by container
}

// kubelets reads usage from kubelets.
type kubelets struct {
	cfg    Config
	client *http.Client
}

func newKubelets(cfg Config) *kubelets {
	k := &kubelets{cfg: cfg}
	transport := &http.Transport{DialTLSContext: k.dial, MaxIdleConnsPerHost: 1, IdleConnTimeout: idle, DisableCompression: false}
	k.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return k
}

// dial connects to a kubelet. Certificates are read each time: they are renewed while we run.
func (k *kubelets) dial(ctx context.Context, network, address string) (net.Conn, error) {
	pair, err := tls.LoadX509KeyPair(k.cfg.KubeletCert, k.cfg.KubeletKey)
	if err != nil {
		return nil, fmt.Errorf("read own certificate: %w", err)
	}
	pem, err := os.ReadFile(k.cfg.KubeletCA)
	if err != nil {
		return nil, fmt.Errorf("read kubelets' authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", k.cfg.KubeletCA)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	raw, err := k.cfg.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: host, MinVersion: tls.VersionTLS12})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

// read asks the kubelet of a node for usage of CPU and memory.
func (k *kubelets) read(ctx context.Context, node string) (*sample, error) {
	url := "https://" + net.JoinHostPort(node, strconv.Itoa(kubeletPort)) + "/stats/summary?only_cpu_and_memory=true"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask kubelet: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // only to say more
		return nil, fmt.Errorf("kubelet answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	var summary statsapi.Summary
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxSummary)).Decode(&summary); err != nil {
		return nil, fmt.Errorf("read kubelet's answer: %w", err)
	}
	return sampleOf(&summary), nil
}

// sampleOf keeps what the API tells. A pod of which a container has no usage yet is left out, as is the node.
func sampleOf(s *statsapi.Summary) *sample {
	out := &sample{pods: map[types.NamespacedName]map[string]point{}}
	if p, ok := pointOf(s.Node.CPU, s.Node.Memory); ok {
		out.node = &p
	}
	for _, pod := range s.Pods {
		containers, whole := map[string]point{}, len(pod.Containers) > 0
		for _, c := range pod.Containers {
			p, ok := pointOf(c.CPU, c.Memory)
			whole = whole && ok
			containers[c.Name] = p
		}
		if whole {
			out.pods[types.NamespacedName{Namespace: pod.PodRef.Namespace, Name: pod.PodRef.Name}] = containers
		}
	}
	return out
}

func pointOf(cpu *statsapi.CPUStats, memory *statsapi.MemoryStats) (point, bool) {
	if cpu == nil || memory == nil || cpu.UsageNanoCores == nil || memory.WorkingSetBytes == nil {
		return point{}, false
	}
	return point{at: cpu.Time.Time, cpu: *cpu.UsageNanoCores, memory: *memory.WorkingSetBytes}, true
}
