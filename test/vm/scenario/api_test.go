package scenario

import (
	"bytes"
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
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/vm"
	"sigs.k8s.io/yaml"
)

// api is a plain HTTPS client of the site's API server, connected through the guest's control channel.
type api struct {
	http *http.Client
	url  string
}

// kubeconfig is the part of the administrator's kubeconfig that a client needs.
type kubeconfig struct {
	Clusters []struct {
		Cluster struct {
			Server string `json:"server"`
			CA     []byte `json:"certificate-authority-data"`
		} `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		User struct {
			Cert []byte `json:"client-certificate-data"`
			Key  []byte `json:"client-key-data"`
		} `json:"user"`
	} `json:"users"`
}

// newAPI reads the kubeconfig that kedge wrote in the guest.
func newAPI(t *testing.T, g *vm.Guest) *api {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	g.CopyOut("/etc/kedge/kedge.yaml", path)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var k kubeconfig
	if err := yaml.Unmarshal(raw, &k); err != nil || len(k.Clusters) != 1 || len(k.Users) != 1 {
		t.Fatalf("kubeconfig has %d clusters and %d users: %v", len(k.Clusters), len(k.Users), err)
	}
	cert, err := tls.X509KeyPair(k.Users[0].User.Cert, k.Users[0].User.Key)
	if err != nil {
		t.Fatalf("kubeconfig: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(k.Clusters[0].Cluster.CA) {
		t.Fatal("kubeconfig has no certificate authority")
	}
	return &api{url: k.Clusters[0].Cluster.Server, http: &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}},
			ForceAttemptHTTP2: true,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return g.Dial(ctx, network, address)
			},
		},
	}}
}

// errStatus is an answer of the API server that is not a success.
var errStatus = errors.New("unexpected status")

// do sends a request with a JSON body, unless nil, and decodes the answer into out, unless nil.
func (a *api) do(ctx context.Context, method, path string, body, out any) error {
	var r io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, r)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %w %d: %.300s", method, path, errStatus, resp.StatusCode, raw)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(raw, out)
}

// condition is a condition of a node or a pod.
type condition struct{ Type, Status, Message string }

func isTrue(conditions []condition, kind string) bool {
	for _, c := range conditions {
		if c.Type == kind {
			return c.Status == "True"
		}
	}
	return false
}

// nodeReady is nil when the one node is Ready in this boot of the guest.
func (a *api) nodeReady(ctx context.Context, bootID string) error {
	var list struct {
		Items []struct {
			Status struct {
				Conditions []condition
				NodeInfo   struct{ BootID string }
			}
		}
	}
	if err := a.do(ctx, http.MethodGet, "/api/v1/nodes", nil, &list); err != nil {
		return err
	}
	if len(list.Items) != 1 {
		return fmt.Errorf("%d nodes", len(list.Items))
	}
	s := list.Items[0].Status
	if s.NodeInfo.BootID != bootID || !isTrue(s.Conditions, "Ready") {
		return fmt.Errorf("node of boot %s (want %s): %+v", s.NodeInfo.BootID, bootID, s.Conditions)
	}
	return nil
}

// pod is what the scenario looks at.
type pod struct {
	Metadata struct {
		Name string
		UID  string
	}
	Status struct {
		PodIP             string
		Conditions        []condition
		ContainerStatuses []struct {
			RestartCount int
			State        struct {
				Running *struct{ StartedAt time.Time }
				Waiting *struct{ Reason, Message string }
			}
		}
	}
}

// podsRunning returns the pods of the Deployment when n of them are Ready with containers started after since.
func (a *api) podsRunning(ctx context.Context, n int, since time.Time) ([]pod, error) {
	var list struct{ Items []pod }
	if err := a.do(ctx, http.MethodGet, "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb", nil, &list); err != nil {
		return nil, err
	}
	var running []pod
	var why strings.Builder
	for _, p := range list.Items {
		cs := p.Status.ContainerStatuses
		if isTrue(p.Status.Conditions, "Ready") && len(cs) == 1 && cs[0].State.Running != nil && cs[0].State.Running.StartedAt.After(since) {
			running = append(running, p)
			continue
		}
		raw, _ := json.Marshal(p.Status)
		fmt.Fprintf(&why, "%s: %.600s\n", p.Metadata.Name, raw)
	}
	if len(running) != n || len(list.Items) != n {
		return nil, fmt.Errorf("%d of %d pods run, want %d: %s", len(running), len(list.Items), n, why.String())
	}
	return running, nil
}
