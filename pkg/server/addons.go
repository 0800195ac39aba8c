package server

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/kedge-io/kedge/pkg/autonomy/health"
	"github.com/kedge-io/kedge/pkg/controlplane"
	"github.com/kedge-io/kedge/pkg/helm"
	"github.com/kedge-io/kedge/pkg/ingress"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/metrics"
	"github.com/kedge-io/kedge/pkg/rules"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// localAPIs are the APIs that packaged add-ons answer inside this process.
func (s *Server) localAPIs() ([]controlplane.LocalAPI, error) {
	if s.cfg.Disabled("metrics-server") {
		return nil, nil
	}
	p := s.certs.ServerPaths
	m, err := metrics.New(metrics.Config{
		Kubeconfig: p.SupervisorKubeconfig, Dial: s.gate.tunnel.Dial, Period: time.Duration(s.cfg.MetricsPeriod) * time.Second,
		KubeletCA: p.ServerCA.Cert, KubeletCert: p.KubeletClient.Cert, KubeletKey: p.KubeletClient.Key, Log: s.log,
	})
	if err != nil {
		return nil, fmt.Errorf("prepare metrics: %w", err)
	}
	return []controlplane.LocalAPI{{Group: metrics.Group, Version: metrics.Version, Resources: metrics.Resources(), Handler: m}}, nil
}

// addonParts are what applies the manifests folder, and the controllers of packaged add-ons with kinds of their own.
func (s *Server) addonParts() ([]supervisor.Component, error) {
	var parts []supervisor.Component
	if !s.cfg.Disabled("helm") {
		c, err := helm.New(helm.Config{Kubeconfig: s.certs.SupervisorKubeconfig, Server: s.cfg.NodeName, Single: true, Log: s.log}) // where it runs it is the only one
		if err != nil {
			return nil, fmt.Errorf("prepare helm: %w", err)
		}
		parts = append(parts, c)
	}
	if s.rules != nil {
		parts = append(parts, s.rules)
	}
	if s.grid != nil {
		parts = append(parts, s.grid)
	}
	a, err := s.addons()
	if err != nil {
		return nil, err
	}
	return append(parts, a), nil
}

// withIngress adds the way of HTTP into the cluster, which every server has.
func (s *Server) withIngress(parts []supervisor.Component) ([]supervisor.Component, error) {
	if !s.cfg.Disabled("ingress") && s.localNode() != "" { // pods are reached through the pod network of a node
		const ssh = 22
		c, err := ingress.New(ingress.Config{Kubeconfig: s.certs.SupervisorKubeconfig, ReservedPorts: []int{ssh, kubeletPort, s.cfg.Port}, Log: s.log})
		if err != nil {
			return nil, fmt.Errorf("prepare ingress: %w", err)
		}
		parts = append(parts, c)
	}
	return parts, nil
}

// keepPods lets neighbour health decide whose pods may be evicted.
func (s *Server) keepPods(api *controlplane.APIServer) (err error) {
	if s.cfg.Disabled("autonomy") {
		return nil
	}
	s.health, err = health.New(health.Config{
		Kubeconfig: s.certs.SupervisorKubeconfig, Server: s.cfg.NodeName, Single: s.single, Ask: s.ask, Log: s.log,
	})
	if err != nil {
		return fmt.Errorf("prepare neighbour health: %w", err)
	}
	api.Evictions = s.health
	return nil
}

// ask reaches the kubelet of a node.
func (s *Server) ask(ctx context.Context, node string) error {
	c, err := s.gate.tunnel.Dial(ctx, "tcp", net.JoinHostPort(node, strconv.Itoa(kubeletPort)))
	if err != nil {
		return err
	}
	return c.Close()
}

// GossipKey is the secret that the cluster's nodes know each other by, 32 bytes; nil when they shall not gossip. All servers derive the
// same from the authority that they share.
func (s *Server) GossipKey() ([]byte, error) {
	if s.cfg.Disabled("autonomy") {
		return nil, nil
	}
	authority, err := os.ReadFile(s.certs.ServerCA.Key)
	if err != nil {
		return nil, fmt.Errorf("derive gossip key: %w", err)
	}
	key, err := hkdf.Key(sha256.New, authority, nil, "kedge neighbour gossip", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive gossip key: %w", err)
	}
	return key, nil
}

// openRules prepares the servers' end of rules, and its part of the shared port.
func (s *Server) openRules() error {
	if s.cfg.Disabled("rules") {
		return nil
	}
	cfg, err := kube.Config(s.certs.SupervisorKubeconfig, "rules")
	if err != nil {
		return err
	}
	s.rules, err = rules.NewServer(rules.ServerConfig{
		Client: cfg, Dial: s.dialRules, Identify: s.gate.identifyHolder, Authenticate: s.gate.authenticate, Open: s.cfg.RulesListen, Log: s.log,
	})
	if err != nil {
		return fmt.Errorf("prepare rules: %w", err)
	}
	s.gate.rules = s.rules
	return nil
}

// dialRules connects to the node's end of rules.
func (s *Server) dialRules(ctx context.Context, node string) (net.Conn, error) {
	if node == s.localNode() {
		var d net.Dialer
		return d.DialContext(ctx, "unix", rules.Socket)
	}
	return s.gate.tunnel.DialNode(ctx, node, rules.Target)
}

// authenticate returns who makes a request, as the API server sees it.
func (g *gate) authenticate(r *http.Request) (user.Info, error) {
	auth, ok := g.auth.Load().(*authenticator.Request)
	if !ok {
		return nil, errors.New("the API server has not started")
	}
	who, ok, err := (*auth).AuthenticateRequest(r)
	if err != nil || !ok {
		return nil, errors.Join(errors.New("not authenticated"), err)
	}
	return who.User, nil
}
