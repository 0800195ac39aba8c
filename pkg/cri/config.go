package cri

import (
	"bytes"
	"fmt"
	"text/template"
)

// Config is what containerd needs to know about this node. All paths are absolute.
type Config struct {
	// Root keeps images and snapshots, State what may be lost at a reboot.
	Root, State string
	// Socket is where the CRI and containerd's own API are served.
	Socket string
	// ConfigFile is where the generated configuration is written for people to read.
	ConfigFile string
	// Runc, Shim and CNIBinDir are the bundled programs; CNIConfDir holds the pod network's configuration.
	Runc, Shim, CNIBinDir, CNIConfDir string
	// PauseImage is the reference of the sandbox image, PauseArchive the file it is imported from.
	PauseImage, PauseArchive string
	// RegistryDir is where Registries are written for containerd to read.
	RegistryDir string
	Registries  Registries
	// Snapshotter is overlayfs or native.
	Snapshotter string
	// SystemdCgroup lets runc make cgroups through systemd instead of by itself.
	SystemdCgroup bool
	// RestrictOOMScoreAdj keeps runc from lowering oom_score_adj, which needs CAP_SYS_RESOURCE.
	RestrictOOMScoreAdj bool
}

const configTemplate = `# Written by kedge at every start.
version = 4
root = {{printf "%q" .Root}}
state = {{printf "%q" .State}}
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.nri.v1.nri",
]

[plugins."io.containerd.server.v1.grpc"]
  address = {{printf "%q" .Socket}}

[plugins."io.containerd.server.v1.ttrpc"]
  address = {{printf "%q" (print .Socket ".ttrpc")}}

[plugins."io.containerd.shim.v1.manager"]
  socket_dir = {{printf "%q" (print .State "/s")}}

[plugins."io.containerd.cri.v1.images"]
  snapshotter = {{printf "%q" .Snapshotter}}

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = {{printf "%q" .PauseImage}}

[plugins."io.containerd.cri.v1.images".registry]
  config_path = {{printf "%q" .RegistryDir}}
{{range $host, $c := .Registries.Configs}}{{with $c.Auth}}
[plugins."io.containerd.cri.v1.images".registry.configs.{{printf "%q" $host}}.auth]
  username = {{printf "%q" .Username}}
  password = {{printf "%q" .Password}}
  auth = {{printf "%q" .Auth}}
  identitytoken = {{printf "%q" .IdentityToken}}
{{end}}{{end}}
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = {{.RestrictOOMScoreAdj}}
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [{{printf "%q" .CNIBinDir}}]
  conf_dir = {{printf "%q" .CNIConfDir}}
  use_internal_loopback = true

[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = {{printf "%q" .Shim}}

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = {{printf "%q" .Runc}}
  SystemdCgroup = {{.SystemdCgroup}}
`

// render is containerd's configuration file for c.
func render(c Config) ([]byte, error) {
	t, err := template.New("config.toml").Parse(configTemplate)
	if err != nil {
		return nil, fmt.Errorf("parse containerd configuration: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, c); err != nil {
		return nil, fmt.Errorf("render containerd configuration: %w", err)
	}
	return b.Bytes(), nil
}
