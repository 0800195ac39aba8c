package encryption

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kedge-io/kedge/pkg/kube"
)

// metricLoaded is the API server's metric that names the configuration it uses by its SHA-256.
const metricLoaded = "apiserver_encryption_config_controller_last_config_info"

// roleLabel marks the nodes of servers.
const roleLabel = "node-role.kubernetes.io/control-plane"

// fleet asks the API servers of the cluster.
type fleet struct {
	cfg            *rest.Config
	client         kubernetes.Interface
	alone, members bool
}

func newFleet(c Config) (*fleet, error) {
	cfg, err := kube.Config(c.Kubeconfig, "secrets-encryption")
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return &fleet{cfg, client, c.Alone, c.Members}, nil
}

// loaded says why not every API server works with this state yet, or nil.
func (f *fleet) loaded(ctx context.Context, s *store, state State) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	data, err := state.Configuration()
	if err != nil {
		return err
	}
	hash := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	servers, err := f.servers(ctx, s)
	if err != nil {
		return err
	}
	for _, s := range servers {
		got, err := f.hash(ctx, s)
		switch {
		case err != nil:
			return fmt.Errorf("server %s does not answer: %w", s, err)
		case got == "":
			return fmt.Errorf("server %s was started before secrets encryption was turned on: restart kedge on it", s)
		case got != hash:
			return fmt.Errorf("server %s has not loaded the keys yet", s)
		}
	}
	return nil
}

// servers returns host:port of each API server, the one of this machine first. A server that does not run is an error: it must not come back
// with keys that are no longer used, or without those that are.
func (f *fleet) servers(ctx context.Context, s *store) ([]string, error) {
	own := []string{strings.TrimPrefix(f.cfg.Host, "https://")}
	if f.alone {
		return own, nil
	}
	listed, err := f.client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=kubernetes"})
	if err != nil {
		return nil, fmt.Errorf("list servers: %w", err)
	}
	nodes, err := f.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: roleLabel})
	if err != nil {
		return nil, fmt.Errorf("list servers: %w", err)
	}
	found := endpoints(listed.Items)
	gone := missing(found, nodes.Items)
	if f.members && gone == "" {
		hosts, err := s.members(ctx)
		if err != nil {
			return nil, err
		}
		gone = missingHost(found, hosts)
	}
	if gone != "" {
		return nil, fmt.Errorf("server %s does not run: start it, or delete its Node when it is gone for good", gone)
	}
	return append(own, found...), nil
}

// missingHost names a member of the datastore beside which no API answers, or "".
func missingHost(found, hosts []string) string {
	for _, h := range hosts {
		if len(found) < len(hosts) && !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, net.JoinHostPort(h, "")) }) {
			return h
		}
	}
	return ""
}

// endpoints are the addresses of API servers, each once.
func endpoints(in []discoveryv1.EndpointSlice) []string {
	var out []string
	for _, s := range in {
		for _, e := range s.Endpoints {
			for _, p := range s.Ports {
				if p.Port != nil && len(e.Addresses) > 0 {
					out = append(out, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))))
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// missing names a server that has a Node and no API that answers, or "".
func missing(found []string, nodes []corev1.Node) string {
	if len(found) >= len(nodes) || len(nodes) < 2 {
		return ""
	}
	for _, n := range nodes {
		if !slices.ContainsFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool {
			return slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, net.JoinHostPort(a.Address, "")) })
		}) {
			return n.Name
		}
	}
	return ""
}

// hash is that of the configuration that a server uses; empty when it uses none.
func (f *fleet) hash(ctx context.Context, server string) (string, error) {
	cfg := rest.CopyConfig(f.cfg)
	cfg.Host = "https://" + server
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return "", err
	}
	body, err := client.CoreV1().RESTClient().Get().AbsPath("/metrics").Stream(ctx)
	if err != nil {
		return "", err
	}
	defer body.Close()
	return findHash(body)
}

// findHash reads the metric from an API server's metrics.
func findHash(metrics io.Reader) (string, error) {
	lines := bufio.NewScanner(metrics)
	lines.Buffer(nil, 1<<20)
	label := regexp.MustCompile(`[{,]hash="([^"]*)"`)
	found := ""
	for lines.Scan() { // to the end: an API server logs an answer that is cut short as an error
		if !strings.HasPrefix(lines.Text(), metricLoaded+"{") {
			continue
		}
		if m := label.FindStringSubmatch(lines.Text()); m != nil {
			found = m[1]
		}
	}
	return found, lines.Err()
}
