package autonomy

import (
	"context"
	"io"
	"net/http"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/kedge-io/kedge/pkg/autonomy/cache"
	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/link"
	"github.com/kedge-io/kedge/pkg/autonomy/proxy"
)

// Times of preparing for an outage.
const (
	// prepareAfter leaves a start to those who are waited for.
	prepareAfter = 6 * time.Second
	// prepareEvery is how often what is not watched is read again.
	prepareEvery = time.Hour
	prepareAgain = 5 * time.Second
	// readTime bounds one document.
	readTime = 30 * time.Second
)

const (
	keysBucket = "keys"
	keysPath   = "/openid/v1/jwks"
	// preparedKey says when all of it was read last.
	preparedKey = "at"
	maxKeys     = 64 << 10
)

// prepare learns what the node needs when it is cut off and nobody asks for before: the keys that tokens are verified with, the roles, and the
// kinds that kubectl wants to know.
func (n *NodeAPI) prepare(ctx context.Context) {
	release := n.followRoles(ctx)
	defer release()
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if wait = prepareAgain; !n.link.Up() {
			continue
		}
		if last, ok := n.cache.Value(keysBucket, preparedKey); ok {
			at, err := time.Parse(time.RFC3339, string(last))
			if wait = prepareEvery - time.Since(at); err == nil && wait > 0 && wait <= prepareEvery {
				continue // a link that comes and goes is not asked each time
			}
		}
		wait = prepareAgain
		if keys, ok := n.read(ctx, keysPath, ""); ok {
			n.cache.SetValue(keysBucket, keysPath, keys)
			n.cache.SetValue(keysBucket, preparedKey, []byte(time.Now().Format(time.RFC3339)))
			wait = prepareEvery
		}
		const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
		for _, path := range []string{"/api", "/apis", "/version"} {
			if contentType, data, ok := n.document(ctx, path, aggregated); ok {
				n.proxy.LearnDocument(path, contentType, data)
			}
		}
		n.proxy.TidyTokens()
	}
}

// keys are the server's keys for tokens.
func (n *NodeAPI) keys() []byte {
	keys, _ := n.cache.Value(keysBucket, keysPath)
	return keys
}

// followRoles keeps the roles current from shortly after the start.
func (n *NodeAPI) followRoles(ctx context.Context) (release func()) {
	select {
	case <-ctx.Done():
		return func() {}
	case <-time.After(prepareAfter):
	}
	var releases []func()
	for _, resource := range proxy.RBACResources() {
		key := cache.Key{Asker: filter.Controllers, Resource: rbacv1.SchemeGroupVersion.WithResource(resource)}
		releases = append(releases, n.cache.Scope(key, true).Use(credential(n.nodes.Controller)))
	}
	return func() {
		for _, r := range releases {
			r()
		}
	}
}

func (n *NodeAPI) read(ctx context.Context, path, accept string) ([]byte, bool) {
	_, data, ok := n.document(ctx, path, accept)
	return data, ok && len(data) <= maxKeys
}

// document reads what is not a resource.
func (n *NodeAPI) document(ctx context.Context, path, accept string) (contentType string, data []byte, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	transport, err := n.link.Transport(link.Credential{Cert: n.nodes.Controller.Cert, Key: n.nodes.Controller.Key}, false)
	if err != nil {
		return "", nil, false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.link.Server().JoinPath(path).String(), nil)
	if err != nil {
		return "", nil, false
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", nil, false
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.Header.Get("Content-Type"), data, err == nil && resp.StatusCode == http.StatusOK
}
