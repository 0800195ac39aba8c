package agent

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/rules"
	"github.com/kedge-io/kedge/pkg/supervisor"
	"github.com/kedge-io/kedge/pkg/twin"
)

// devices keeps the twins of the devices that hang on this node, and carries messages of its bus and its programs as rules say.
func (a *Agent) devices() (supervisor.Component, error) {
	var parts []supervisor.Component
	var node *twin.Node
	messages, err := a.openRules(func(topic string, payload []byte) error {
		if node == nil {
			return errors.New("devices, and with them the message bus of this node, are switched off")
		}
		return node.Publish(topic, payload)
	})
	if err != nil {
		return nil, err
	}
	cfg := twin.NodeConfig{
		Kubeconfig: a.certs.ControllerKubeconfig, NodeName: a.cfg.NodeName, Dir: filepath.Join(a.cfg.DataDir, "agent", "devices"),
		Bus: bus(a.cfg.MQTT, twin.BusTLS{Cert: a.certs.ServingKubelet.Cert, Key: a.certs.ServingKubelet.Key}), Log: a.log,
	}
	if messages != nil {
		cfg.Tap, parts = messages, append(parts, messages)
	}
	if !a.cluster.NoDevices {
		if node, err = twin.NewNode(cfg); err != nil {
			return nil, err
		}
		parts = append(parts, node)
	}
	if len(parts) == 0 {
		return nil, nil
	}
	return supervisor.Group("devices-and-rules", parts...), nil
}

// bus is the message bus of the node; own is the node's certificate.
func bus(m config.MQTT, own twin.BusTLS) twin.Bus {
	b := twin.Bus{
		Off: m.Disable, Listen: m.Listen, Credentials: m.Credentials, Anonymous: m.Anonymous, TLS: own,
		Limits: twin.BusLimits{Connections: m.MaxConnections, Packet: m.MaxPacket, Queue: m.MaxQueue},
	}
	b.TLS.ClientCA = m.ClientCA
	if m.Cert != "" {
		b.TLS.Cert, b.TLS.Key = m.Cert, m.Key
	}
	if m.External != "" {
		b.Existing = &twin.ExistingBus{
			Broker: m.External, Credentials: m.ExternalCredentials, CA: m.ExternalCA, Cert: m.ExternalCert, Key: m.ExternalKey, QoS: byte(m.ExternalQoS),
		}
	}
	return b
}

// openRules prepares the node's end of rules, or nil; publish gives messages to the message bus.
func (a *Agent) openRules(publish func(topic string, payload []byte) error) (*rules.Node, error) {
	if a.cluster.NoRules {
		return nil, nil
	}
	return rules.NewNode(rules.NodeConfig{
		Dir: filepath.Join(a.cfg.DataDir, "agent", "rules"), Socket: rules.Socket, Server: a.cluster.ServerURL, TLS: a.serverTLS, Publish: publish, Log: a.log,
	})
}

// serverTLS is how this node and a server prove to each other who they are; it is read anew because certificates are renewed in place.
func (a *Agent) serverTLS() (*tls.Config, error) {
	if a.link != nil {
		return a.link.client.TLS()
	}
	bundle, err := os.ReadFile(a.certs.ServerCA)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return nil, errors.New("the cluster's authority holds no certificate")
	}
	pair, err := tls.LoadX509KeyPair(a.certs.ClientKubelet.Cert, a.certs.ClientKubelet.Key)
	if err != nil {
		return nil, fmt.Errorf("read this node's key: %w", err)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, ServerName: "127.0.0.1", Certificates: []tls.Certificate{pair}}, nil
}
