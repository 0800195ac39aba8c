package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/client-go/kubernetes"

	"github.com/kedge-io/kedge/pkg/autonomy"
	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/controlplane"
	"github.com/kedge-io/kedge/pkg/join"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/rules"
	"github.com/kedge-io/kedge/pkg/server/cluster"
	"github.com/kedge-io/kedge/pkg/supervisor"
	"github.com/kedge-io/kedge/pkg/tunnel"
)

// sessionsFile is where TLS sessions are while the server restarts: not on a disk, because they are secrets.
const sessionsFile = "/run/kedge/tls-sessions"

// kubeletPort is where kubelets listen.
const kubeletPort = 10250

// gate is what agents find on the API server's port beside the API: the join API and the server's end of the tunnel.
type gate struct {
	join   *join.Server
	tunnel *tunnel.Server
	names  join.Identities
	beats  *heartbeats
	rules  *rules.Server // nil when it is disabled
	auth   atomic.Value  // authenticator.Request, from when the API server starts
}

// openGate prepares the gate and puts it in front of the API server. settings is what joining nodes are told, as JSON.
func (s *Server) openGate(api *controlplane.APIServer, settings func() ([]byte, error)) (*gate, error) {
	g := &gate{beats: newHeartbeats()}
	bundle, _, err := s.certs.CABundles()
	if err != nil {
		return nil, err
	}
	cfg, err := kube.Config(s.certs.SupervisorKubeconfig, "join")
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	secrets := client.CoreV1().Secrets(join.Namespace)
	g.names = join.Identities{Secrets: secrets}
	if g.join, err = join.NewServer(join.ServerConfig{
		CABundle: bundle, Tokens: join.NewTokenFiles(s.cfg.DataDir), Several: cluster.Several(s.cfg, s.member), Secrets: secrets, Identify: g.identify, Signer: s.certs.NodeSigner,
		LocalNode: s.localNode(), Settings: settings, Ready: api.Ready, Log: s.log,
	}); err != nil {
		return nil, err
	}
	if g.tunnel, err = tunnel.NewServer(tunnel.ServerConfig{
		Identify: g.identifyHolder, LocalNode: s.localNode(), KubeletPort: kubeletPort, Beat: g.beats.beat, Log: s.log,
		URL: "https://" + net.JoinHostPort(s.cfg.AdvertiseAddress.String(), strconv.Itoa(s.cfg.Port)),
	}); err != nil {
		return nil, err
	}
	api.Dial, api.Wrap, api.Sessions = g.tunnel.Dial, g.wrap, sessionsFile
	return g, nil
}

// localNode is the node on this machine, or "".
func (s *Server) localNode() string {
	if s.cfg.DisableAgent {
		return ""
	}
	return s.cfg.NodeName
}

// wrap shares the port. Paths are compared as they are: cleaning them would change what the API server sees.
func (g *gate) wrap(api http.Handler, auth authenticator.Request) http.Handler {
	g.auth.Store(&auth)
	api = autonomy.ForNodes(api)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == tunnel.Path:
			g.tunnel.ServeHTTP(w, r)
		case g.rules != nil && rules.Handles(path):
			g.rules.ServeHTTP(w, r)
		case path == join.PathCACerts, path == join.PathPing, strings.HasPrefix(path, join.Prefix):
			g.join.ServeHTTP(w, r)
		default:
			api.ServeHTTP(w, r)
		}
	})
}

// identify returns the name of the node that a request comes from, going by its certificate only.
func (g *gate) identify(r *http.Request) (string, error) {
	auth, ok := g.auth.Load().(*authenticator.Request)
	if !ok || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return "", errors.New("no certificate")
	}
	bare := &http.Request{Method: r.Method, URL: r.URL, TLS: r.TLS, Header: http.Header{}, RemoteAddr: r.RemoteAddr}
	who, ok, err := (*auth).AuthenticateRequest(bare.WithContext(r.Context()))
	if err != nil || !ok {
		return "", errors.Join(errors.New("not authenticated"), err)
	}
	node, ok := strings.CutPrefix(who.User.GetName(), "system:node:")
	if !ok || !slices.Contains(who.User.GetGroups(), "system:nodes") {
		return "", fmt.Errorf("%s is not a node", who.User.GetName())
	}
	return node, nil
}

// identifyHolder is identify for the tunnel: it refuses the certificate of a machine whose name another one has by now.
func (g *gate) identifyHolder(r *http.Request) (string, error) {
	node, err := g.identify(r)
	if err != nil {
		return "", err
	}
	return node, g.names.Check(r.Context(), node, r.TLS.PeerCertificates[0].PublicKey)
}

// keepName is the component that reserves the name of the node on this machine for its key, so that no other server of the
// cluster gives it away.
func (s *Server) keepName() supervisor.Component {
	return supervisor.Func{ID: "node-name", Do: func(ctx context.Context) error {
		own := certs.NewNodePaths(s.cfg.DataDir).ClientKubelet
		pair, err := tls.LoadX509KeyPair(own.Cert, own.Key)
		if err != nil {
			return fmt.Errorf("read this node's key: %w", err)
		}
		for {
			err := s.gate.names.Bind(ctx, s.cfg.NodeName, pair.Leaf.PublicKey)
			if err == nil || ctx.Err() != nil {
				break
			}
			s.log.Warn("name of this node is not reserved for it", "node", s.cfg.NodeName, "error", err)
			if errors.Is(err, join.ErrNameTaken) { // by this machine before it was installed anew, or by another one
				s.log.Warn("make the name this machine's with kedge node readopt, and restart kedge", "node", s.cfg.NodeName)
				break
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
			}
		}
		<-ctx.Done()
		return nil
	}}
}
