package registries

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// Rewriter is a server on a loopback port through which containerd reaches mirrors that have images under other names. It reads from
// them only, and only for who knows the key in its addresses, which is another at every start.
type Rewriter struct {
	config   Config
	log      *slog.Logger
	key      string
	listener net.Listener
	routes   map[string]route // by host and number of the endpoint
}

// route leads to one endpoint.
type route struct {
	base     *url.URL // up to and with /v2
	rewrites []rewrite
	client   *http.Client
	auth     docker.Authorizer
}

type rewrite struct {
	pattern *regexp.Regexp
	with    string
}

// ErrNoRewrites says that no mirror has images under other names.
var ErrNoRewrites = errors.New("no mirror has rewrites")

// NewRewriter opens the port. It returns ErrNoRewrites when there is nothing to do.
func NewRewriter(c Config, log *slog.Logger) (*Rewriter, error) {
	r := &Rewriter{config: c, log: log, routes: map[string]route{}}
	for host, m := range c.Mirrors {
		for i := range m.Endpoints {
			if len(m.Rewrites) == 0 {
				continue
			}
			route, err := c.route(m, i)
			if err != nil {
				return nil, fmt.Errorf("mirrors[%q]: %w", host, err)
			}
			r.routes[routeName(host, i)] = route
		}
	}
	if len(r.routes) == 0 {
		return nil, ErrNoRewrites
	}
	r.key = rand.Text()
	var err error
	if r.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("listen for rewritten images: %w", err)
	}
	return r, nil
}

func routeName(host string, endpoint int) string { return host + "/" + strconv.Itoa(endpoint) }

// Through is the address of an endpoint of a mirror, as Config.Write wants it.
func (r *Rewriter) Through(host string, endpoint int) string {
	return "http://" + r.listener.Addr().String() + "/" + r.key + "/" + routeName(url.PathEscape(host), endpoint) + "/v2"
}

func (c Config) route(m Mirror, endpoint int) (route, error) {
	base, err := url.Parse(m.Endpoints[endpoint])
	if err != nil {
		return route{}, err
	}
	if strings.Trim(base.Path, "/") == "" {
		base.Path = "/v2"
	}
	base.Path = strings.TrimSuffix(base.Path, "/")
	host := c.of(base.Host)
	config, err := host.TLS.config()
	if err != nil {
		return route{}, err
	}
	transport := docker.DefaultHTTPTransport(config)
	timeout, err := time.ParseDuration(dialTimeout)
	if err != nil {
		return route{}, err
	}
	transport.DialContext = (&net.Dialer{Timeout: timeout}).DialContext
	out := route{base: base, client: &http.Client{Transport: transport}}
	out.auth = docker.NewDockerAuthorizer(docker.WithAuthClient(out.client), docker.WithAuthCreds(func(string) (string, string, error) { return host.Auth.credentials() }))
	for _, pattern := range slices.Sorted(maps.Keys(m.Rewrites)) {
		p, err := regexp.Compile(pattern)
		if err != nil {
			return route{}, err
		}
		out.rewrites = append(out.rewrites, rewrite{p, m.Rewrites[pattern]})
	}
	return out, nil
}

// config is nil for the defaults.
func (t *TLS) config() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	config := &tls.Config{InsecureSkipVerify: t.InsecureSkipVerify, MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		data, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, err
		}
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			config.RootCAs = x509.NewCertPool()
		}
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("ca_file %s holds no certificate", t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// credentials are a user and a password, or an empty user and a token.
func (a *Auth) credentials() (user, secret string, err error) {
	switch {
	case a == nil:
		return "", "", nil
	case a.Username != "":
		return a.Username, a.Password, nil
	case a.IdentityToken != "":
		return "", a.IdentityToken, nil
	case a.Auth == "":
		return "", "", nil
	}
	decoded, err := base64.StdEncoding.DecodeString(a.Auth)
	user, secret, ok := strings.Cut(string(decoded), ":")
	if err != nil || !ok {
		return "", "", errors.New("auth is not a user and a password, joined with a colon, in base64")
	}
	return user, strings.TrimRight(secret, "\x00"), nil
}

// Serve answers until ctx is done.
func (r *Rewriter) Serve(ctx context.Context) error {
	server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(r.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve rewritten images: %w", err)
	}
	return nil
}

// ServeHTTP carries one request to its mirror, under the image's name there.
func (r *Rewriter) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	// /KEY/HOST/N/v2/REPOSITORY/manifests/TAG
	parts := strings.SplitN(strings.TrimPrefix(req.URL.Path, "/"), "/", 5)
	if len(parts) < 4 || parts[0] != r.key || parts[3] != "v2" || req.Method != http.MethodGet && req.Method != http.MethodHead {
		http.NotFound(w, req)
		return
	}
	to, ok := r.routes[parts[1]+"/"+parts[2]]
	if !ok {
		http.NotFound(w, req)
		return
	}
	path := ""
	if len(parts) == 5 {
		path = parts[4]
	}
	response, err := to.fetch(req, path)
	if err != nil {
		r.log.Debug("ask mirror", "mirror", to.base.Host, "path", path, "error", err)
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	maps.Copy(w.Header(), response.Header)
	status := response.StatusCode
	if status == http.StatusUnauthorized { // containerd has no login for us: the next endpoint, please
		w.Header().Del("WWW-Authenticate")
		status = http.StatusForbidden
	}
	w.WriteHeader(status)
	_, _ = io.Copy(w, response.Body)
}

// attempts is how often a mirror may ask who we are.
const attempts = 3

// fetch asks the mirror for a path below /v2/, with a login if it wants one.
func (to route) fetch(in *http.Request, path string) (*http.Response, error) {
	repository, rest := splitPath(path)
	repository = to.rename(repository)
	target := *to.base
	target.Path += "/" + strings.TrimPrefix(repository+rest, "/")
	target.RawQuery = in.URL.RawQuery
	ctx := docker.ContextWithAppendPullRepositoryScope(in.Context(), repository)
	var responses []*http.Response
	for {
		req, err := http.NewRequestWithContext(ctx, in.Method, target.String(), nil)
		if err != nil {
			return nil, err
		}
		for _, header := range []string{"Accept", "Range", "User-Agent", "If-None-Match"} {
			if v := in.Header.Values(header); len(v) > 0 {
				req.Header[header] = v
			}
		}
		if err := to.auth.Authorize(ctx, req); err != nil {
			return nil, fmt.Errorf("log in to %s: %w", to.base.Host, err)
		}
		response, err := to.client.Do(req)
		if err != nil {
			return nil, err
		}
		if responses = append(responses, response); response.StatusCode != http.StatusUnauthorized || len(responses) == attempts {
			return response, nil
		}
		if err := to.auth.AddResponses(ctx, responses); err != nil {
			return response, nil //nolint:nilerr // the mirror's answer says more
		}
		_ = response.Body.Close()
	}
}

// splitPath cuts a path into the repository and the rest, which begins with a slash.
func splitPath(path string) (repository, rest string) {
	at := -1
	for _, kind := range []string{"/manifests/", "/blobs/", "/referrers/", "/tags/"} {
		at = max(at, strings.LastIndex(path, kind))
	}
	if at < 0 {
		return "", "/" + path
	}
	return path[:at], path[at:]
}

// rename is the name of a repository at the mirror.
func (to route) rename(repository string) string {
	for _, r := range to.rewrites {
		if r.pattern.MatchString(repository) {
			return r.pattern.ReplaceAllString(repository, r.with)
		}
	}
	return repository
}
