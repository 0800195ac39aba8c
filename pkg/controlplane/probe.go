package controlplane

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// probeTimeout bounds one question to a local health endpoint.
const probeTimeout = 3 * time.Second

// probe asks a health endpoint of this machine over one kept connection.
type probe struct {
	url        string
	want       string // that the answer must contain, besides being 200
	kubeconfig string
	client     *http.Client
}

// newProbe returns a probe that identifies itself with kubeconfig; with "" it asks anonymously
// and does not check the certificate, which suits ports on loopback.
func newProbe(url, kubeconfig string) *probe { return &probe{url: url, kubeconfig: kubeconfig} }

// check returns nil when the endpoint answers 200, else what it complains of.
func (p *probe) check(ctx context.Context) error {
	if err := p.connect(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", p.url, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("read %s: %w", p.url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, failedChecks(string(body)))
	}
	if !strings.Contains(string(body), p.want) {
		return fmt.Errorf("%s does not say %q yet", p.url, p.want)
	}
	return nil
}

// connect builds the client at the first question, because the certificates may be younger than the probe.
func (p *probe) connect() error {
	if p.client != nil {
		return nil
	}
	if p.kubeconfig == "" {
		p.client = &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the port is ours, on loopback
			MaxIdleConns:    1,
		}}
		return nil
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", p.kubeconfig)
	if err != nil {
		return fmt.Errorf("read %s: %w", p.kubeconfig, err)
	}
	cfg.QPS = -1
	p.client, err = rest.HTTPClientFor(cfg)
	return err
}

// failedChecks keeps the lines of a health report that name a failed check.
func failedChecks(body string) string {
	var failed []string
	for _, line := range strings.Split(body, "\n") {
		if name, ok := strings.CutPrefix(line, "[-]"); ok {
			name, _, _ = strings.Cut(name, " ")
			failed = append(failed, name)
		}
	}
	if len(failed) == 0 {
		return strings.TrimSpace(body)
	}
	return "waiting for " + strings.Join(failed, ", ")
}
