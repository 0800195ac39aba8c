package kubelet

import (
	"fmt"
	"slices"
	"sync"

	"k8s.io/kubernetes/pkg/volume"
	"k8s.io/kubernetes/pkg/volume/csi"
)

// csiHost remembers what the kubelet gives to volume plugins, as a volume plugin that supports nothing.
type csiHost struct {
	volume.VolumePlugin // that of CSI

	mu    sync.Mutex
	given volume.VolumeHost
}

// watch adds the csiHost to the kubelet's plugins.
func (c *csiHost) watch(plugins []volume.VolumePlugin) []volume.VolumePlugin {
	i := slices.IndexFunc(plugins, func(p volume.VolumePlugin) bool { return p.GetPluginName() == csi.CSIPluginName })
	if i < 0 {
		return plugins
	}
	c.VolumePlugin = plugins[i]
	return append(plugins, c)
}

// Init implements volume.VolumePlugin.
func (c *csiHost) Init(host volume.VolumeHost) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.given = host
	return nil
}

// GetPluginName implements volume.VolumePlugin.
func (*csiHost) GetPluginName() string { return "kedge.io/csi-host" }

// CanSupport implements volume.VolumePlugin.
func (*csiHost) CanSupport(*volume.Spec) bool { return false }

// reclaim has CSI's plugin begin again with the kubelet's host, if the kubelet has begun.
func (c *csiHost) reclaim() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.given == nil {
		return nil
	}
	if err := c.VolumePlugin.Init(c.given); err != nil {
		return fmt.Errorf("give the CSI plugin back to the kubelet: %w", err)
	}
	return nil
}
