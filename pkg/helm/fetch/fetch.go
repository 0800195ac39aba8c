// Package fetch gets charts: from a registry, a repository, an address or the HelmChart itself. Only helm imports it.
package fetch

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/registry"
	"helm.sh/helm/v3/pkg/repo"
	"oras.land/oras-go/v2/registry/remote/auth"
	"sigs.k8s.io/yaml"

	v1 "github.com/kedge-io/kedge/pkg/apis/helm/v1"
)

const (
	// maxIndex and maxChart bound what a repository may send. The largest public indexes have 30 MB.
	maxIndex = 64 << 20
	maxChart = 32 << 20
	// fetchTime bounds one download.
	fetchTime = 2 * time.Minute
)

// Access is how to reach a repository or registry.
type Access struct {
	// CA is PEM text; empty for the machine's own authorities.
	CA string
	// Insecure checks no certificate, Plain speaks HTTP without TLS.
	Insecure, Plain    bool
	Username, Password string
	// Everywhere sends the credentials to other hosts too.
	Everywhere bool
	// ClientCert and ClientKey are PEM; empty for none.
	ClientCert, ClientKey []byte
	// Docker has credentials by host, for registries.
	Docker map[string]Login
}

// Login is who to be to a registry.
type Login struct{ Username, Password string }

// DockerLogins reads the credentials of a .dockerconfigjson.
func DockerLogins(data []byte) (map[string]Login, error) {
	var config struct {
		Auths map[string]struct{ Username, Password, Auth string }
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("key .dockerconfigjson: %w", err)
	}
	out := map[string]Login{}
	for host, a := range config.Auths {
		if both, err := base64.StdEncoding.DecodeString(a.Auth); err == nil && a.Username == "" {
			a.Username, a.Password, _ = strings.Cut(string(both), ":")
		}
		host = strings.TrimPrefix(strings.TrimPrefix(host, "https://"), "http://")
		host, _, _ = strings.Cut(host, "/")
		out[host] = Login{a.Username, a.Password}
	}
	return out, nil
}

var chartName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Chart gets the chart that spec names.
func Chart(ctx context.Context, spec v1.HelmChartSpec, a Access) (*chart.Chart, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	data, err := archive(ctx, spec, a)
	if err != nil {
		return nil, err
	}
	c, err := loader.LoadArchive(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	if c.Metadata.Type == "library" {
		return nil, fmt.Errorf("chart %s is a library: it cannot be installed", c.Name())
	}
	return c, nil
}

func archive(ctx context.Context, spec v1.HelmChartSpec, a Access) ([]byte, error) {
	name := spec.Chart
	if strings.HasPrefix(spec.Repo, "oci://") {
		name = strings.TrimSuffix(spec.Repo, "/") + "/" + spec.Chart
	}
	switch {
	case spec.ChartContent != "":
		data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(spec.ChartContent), ""))
		if err != nil {
			return nil, fmt.Errorf("chartContent: not base64: %w", err)
		}
		return data, nil
	case strings.HasPrefix(name, "oci://"):
		return fromRegistry(ctx, strings.TrimPrefix(name, "oci://"), spec.Version, a)
	case spec.Repo != "":
		return fromRepository(ctx, spec, a)
	case strings.HasPrefix(name, "https://"), strings.HasPrefix(name, "http://"):
		return a.get(ctx, name, name, maxChart)
	case name == "":
		return nil, errors.New("chart: empty: give chart (with repo, or as oci:// or https:// address) or chartContent")
	}
	return nil, fmt.Errorf("chart: %q is not an oci:// or https:// address: give repo as well", name)
}

func fromRepository(ctx context.Context, spec v1.HelmChartSpec, a Access) ([]byte, error) {
	if !chartName.MatchString(spec.Chart) {
		return nil, fmt.Errorf("chart: %q is not the name of a chart in repo", spec.Chart)
	}
	base := strings.TrimSuffix(spec.Repo, "/")
	text, err := a.get(ctx, base, base+"/index.yaml", maxIndex)
	if err != nil {
		return nil, fmt.Errorf("repo: %w", err)
	}
	index := &repo.IndexFile{}
	if err := yaml.Unmarshal(text, index); err != nil {
		return nil, fmt.Errorf("repo: read index: %w", err)
	}
	index.SortEntries()
	version, err := index.Get(spec.Chart, spec.Version)
	if err != nil {
		return nil, fmt.Errorf("repo: chart %s %s: %w", spec.Chart, spec.Version, err)
	}
	if len(version.URLs) == 0 {
		return nil, fmt.Errorf("repo: chart %s %s has no address", spec.Chart, version.Version)
	}
	address, err := repo.ResolveReferenceURL(base, version.URLs[0])
	if err != nil {
		return nil, fmt.Errorf("repo: chart address: %w", err)
	}
	if rest, ok := strings.CutPrefix(address, "oci://"); ok {
		return fromRegistry(ctx, rest, version.Version, a)
	}
	return a.get(ctx, base, address, maxChart)
}

// fromRegistry pulls HOST/PATH[:TAG] or HOST/PATH@DIGEST.
func fromRegistry(ctx context.Context, name, version string, a Access) ([]byte, error) {
	transport, err := a.transport()
	if err != nil {
		return nil, err
	}
	defer transport.CloseIdleConnections()
	host, path, _ := strings.Cut(name, "/")
	who := Login{a.Username, a.Password}
	if l, ok := a.Docker[host]; ok && who.Username == "" {
		who = l
	}
	web := &http.Client{Transport: capped{transport, ctx}, Timeout: fetchTime}
	authorizer := auth.Client{Client: web, Cache: auth.NewCache()} // with credentials of the HelmChart only, never of this machine
	authorizer.Credential = func(_ context.Context, asks string) (auth.Credential, error) {
		if asks != host && !a.Everywhere {
			return auth.EmptyCredential, nil
		}
		return auth.Credential{Username: who.Username, Password: who.Password}, nil
	}
	options := []registry.ClientOption{registry.ClientOptHTTPClient(web), registry.ClientOptAuthorizer(authorizer)}
	if a.Plain {
		options = append(options, registry.ClientOptPlainHTTP())
	}
	client, err := registry.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("make registry client: %w", err)
	}
	if !strings.ContainsAny(path, ":@") {
		tags, err := client.Tags(name)
		if err != nil {
			return nil, fmt.Errorf("list versions of %s: %w", name, err)
		}
		if version, err = registry.GetTagMatchingVersionOrConstraint(tags, version); err != nil {
			return nil, fmt.Errorf("chart %s: %w", name, err)
		}
		name += ":" + version
	}
	pulled, err := client.Pull(name)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", name, err)
	}
	return pulled.Chart.Data, nil
}

// transport makes connections as the HelmChart says.
func (a Access) transport() (*http.Transport, error) {
	config := &tls.Config{InsecureSkipVerify: a.Insecure, MinVersion: tls.VersionTLS12} // insecureSkipTLSVerify is the user's own word
	if strings.TrimSpace(a.CA) != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(a.CA)) {
			return nil, errors.New("repoCA: holds no certificate in PEM form")
		}
	}
	if len(a.ClientCert) > 0 {
		pair, err := tls.X509KeyPair(a.ClientCert, a.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("authSecret: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true}, nil
}

// get downloads address with the credentials for base.
func (a Access) get(ctx context.Context, base, address string, limit int64) ([]byte, error) {
	transport, err := a.transport()
	if err != nil {
		return nil, err
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	home, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	if same := home.Scheme == req.URL.Scheme && home.Host == req.URL.Host; a.Username != "" && (same || a.Everywhere) {
		req.SetBasicAuth(a.Username, a.Password)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", address, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s sends more than %d MiB", address, limit>>20)
	}
	return data, err
}

// capped bounds every body, and ends with a context, where a library knows neither.
type capped struct {
	next http.RoundTripper
	ctx  context.Context //nolint:containedctx // of one download
}

// RoundTrip implements http.RoundTripper.
func (c capped) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.next.RoundTrip(r.WithContext(c.ctx))
	if err != nil {
		return nil, err
	}
	if resp.ContentLength > maxChart {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%s sends more than %d MiB", r.URL.Host, maxChart>>20)
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxChart), resp.Body}
	return resp, nil
}
