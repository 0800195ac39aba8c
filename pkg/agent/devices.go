package agent

import (
	"path/filepath"

	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/supervisor"
	"github.com/kedge-io/kedge/pkg/twin"
	"github.com/kedge-io/kedge/pkg/twin/mqtt"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/bridge"
)

// devices keeps the twins of the devices that hang on this node.
func (a *Agent) devices() (supervisor.Component, error) {
	if a.cluster.NoDevices {
		return nil, nil
	}
	return twin.NewNode(twin.NodeConfig{
		Kubeconfig: a.certs.ControllerKubeconfig, NodeName: a.cfg.NodeName, Dir: filepath.Join(a.cfg.DataDir, "agent", "devices"),
		Bus: bus(a.cfg.MQTT, mqtt.TLS{Cert: a.certs.ServingKubelet.Cert, Key: a.certs.ServingKubelet.Key}), Log: a.log,
	})
}

// bus is the message bus of the node; own is the node's certificate.
func bus(m config.MQTT, own mqtt.TLS) twin.Bus {
	b := twin.Bus{
		Off: m.Disable, Listen: m.Listen, Credentials: m.Credentials, Anonymous: m.Anonymous, TLS: own,
		Limits: mqtt.Limits{Connections: m.MaxConnections, Packet: m.MaxPacket, Queue: m.MaxQueue},
	}
	b.TLS.ClientCA = m.ClientCA
	if m.Cert != "" {
		b.TLS.Cert, b.TLS.Key = m.Cert, m.Key
	}
	if m.External != "" {
		b.Existing = &bridge.Config{
			Broker: m.External, Credentials: m.ExternalCredentials, CA: m.ExternalCA, Cert: m.ExternalCert, Key: m.ExternalKey, QoS: byte(m.ExternalQoS),
		}
	}
	return b
}
