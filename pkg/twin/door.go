package twin

import (
	"context"
	"fmt"

	"k8s.io/client-go/dynamic"

	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/twin/fleet"
	"github.com/kedge-io/kedge/pkg/twin/local"
)

// Device is one device as people see it.
type Device = local.Device

// Value is one of its values.
type Value = local.Value

// Property is one of its properties.
type Property = local.Property

// Door is a way to devices: those of one node, or those of a cluster.
type Door interface {
	List(ctx context.Context) ([]Device, error)
	Get(ctx context.Context, namespace, name string) (Device, error)
	Set(ctx context.Context, namespace, name, property, value string) error
	// Watch calls do for each device, or only namespace/name, and again at each change, until ctx is done or do fails.
	Watch(ctx context.Context, only string, do func(Device) error) error
}

// NodeDoor leads to the devices of the node on this machine, with or without the API.
func NodeDoor() Door { return local.NewClient(LocalSocket) }

// ClusterDoor leads to all devices of the cluster.
func ClusterDoor(kubeconfig string) (Door, error) {
	rest, err := kube.Config(kubeconfig, "device")
	if err != nil {
		return nil, err
	}
	api, err := dynamic.NewForConfig(rest)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return fleet.Client{API: api}, nil
}
