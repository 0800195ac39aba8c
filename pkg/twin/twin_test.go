package twin

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const nowhere = `
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: c, context: {cluster: c}}]
current-context: c
`

func TestBusesOfANode(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(nowhere), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		bus  Bus
		want []string
	}{
		{Bus{}, []string{"devices-bus"}},
		{Bus{Off: true}, nil},
		{Bus{Off: true, Existing: &ExistingBus{Broker: "tcp://mqtt.example:1883"}}, []string{"devices-existing-bus"}},
		{Bus{Existing: &ExistingBus{Broker: "ssl://mqtt.example:8883"}}, []string{"devices-bus", "devices-existing-bus"}},
	} {
		n, err := NewNode(NodeConfig{Kubeconfig: kubeconfig, NodeName: "n1", Dir: t.TempDir(), Bus: c.bus, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range n.parts {
			if strings.HasSuffix(p.Name(), "-bus") {
				got = append(got, p.Name())
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v", c.bus, got)
		}
		if err := n.Publish("a", nil); err == nil {
			t.Error("a message to nobody was taken")
		}
	}
	bad := NodeConfig{Kubeconfig: kubeconfig, NodeName: "n1", Dir: t.TempDir(), Bus: Bus{Existing: &ExistingBus{Broker: "mqtt.example"}}, Log: slog.New(slog.DiscardHandler)}
	if _, err := NewNode(bad); err == nil || !strings.Contains(err.Error(), "tcp://HOST:PORT") {
		t.Errorf("a bad address of a broker: %v", err)
	}
}
