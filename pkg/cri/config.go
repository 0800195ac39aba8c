package cri

import (
	"bytes"
	"fmt"
	"text/template"

	"github.com/kedge-io/kedge/pkg/cri/registries"
	"github.com/kedge-io/kedge/pkg/cri/runtimes"
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
	// RegistriesFile is registries.yaml, which may be missing or have no name; RegistryDir is where it is written for containerd to read.
	RegistriesFile, RegistryDir string
	// Snapshotter is overlayfs or native.
	Snapshotter string
	// SystemdCgroup lets runc make cgroups through systemd instead of by itself.
	SystemdCgroup bool
	// SearchPath is where further container runtimes are looked for, as in PATH.
	SearchPath string
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
  stats_collect_period = 30

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = {{printf "%q" .PauseImage}}

[plugins."io.containerd.cri.v1.images".registry]
  config_path = {{printf "%q" .RegistryDir}}
{{range $host, $auth := .Logins}}{{with $auth}}
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
  stats_collect_period = "15s"

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
{{range $r := .Runtimes}}
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{{printf "%q" .Name}}]
  runtime_type = {{printf "%q" .Type}}
  runtime_path = {{printf "%q" (or .Shim $.Shim)}}
{{with .Binary}}
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{{printf "%q" $r.Name}}.options]
  BinaryName = {{printf "%q" .}}
  SystemdCgroup = {{$.SystemdCgroup}}
{{end}}{{end}}`

// settings is what the template reads.
type settings struct {
	Config
	Logins   map[string]registries.Auth
	Runtimes []runtimes.Runtime
}

// render is containerd's configuration file for c.
func render(c Config, logins map[string]registries.Auth, found []runtimes.Runtime) ([]byte, error) {
	t, err := template.New("config.toml").Parse(configTemplate)
	if err != nil {
		return nil, fmt.Errorf("parse containerd configuration: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, settings{c, logins, found}); err != nil {
		return nil, fmt.Errorf("render containerd configuration: %w", err)
	}
	return b.Bytes(), nil
}
