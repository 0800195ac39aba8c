// Package registries reads registries.yaml and makes it work with containerd: it writes what containerd reads, and carries requests to
// mirrors that have images under other names, which containerd cannot. It is an inner room of pkg/cri.
package registries

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Config is the content of registries.yaml, in the format that users of the family have.
type Config struct {
	// Mirrors says, by registry host ("*" for all others), where its images are asked for first.
	Mirrors map[string]Mirror `json:"mirrors"`
	// Configs says, by registry host[:port], how to log in and whom to trust; "*" is for hosts that are not named.
	Configs map[string]HostConfig `json:"configs"`
}

// Mirror lists the endpoints of one registry in the order they are tried; the registry itself comes last.
type Mirror struct {
	Endpoints []string `json:"endpoint"`
	// Rewrites are what images are called at the endpoints: patterns of repositories, and what replaces them. The first pattern in
	// alphabetical order that matches counts.
	Rewrites map[string]string `json:"rewrite"`
}

// HostConfig is how one registry or mirror is reached.
type HostConfig struct {
	Auth *Auth `json:"auth"`
	TLS  *TLS  `json:"tls"`
}

// Auth is a login: a user with password, the two joined in base64, or a token.
type Auth struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identity_token"`
}

// TLS names files, and may switch verification off.
type TLS struct {
	CAFile             string `json:"ca_file"`
	CertFile           string `json:"cert_file"`
	KeyFile            string `json:"key_file"`
	InsecureSkipVerify bool   `json:"insecure_skip_verify"`
}

// anyHost stands for all hosts that are not named.
const anyHost = "*"

// dockerHub is what images of docker.io come from.
const dockerHub = "registry-1.docker.io"

// Read reads registries.yaml; a file that is not there is an empty one. The error names the field.
func Read(path string) (Config, error) {
	var c Config
	data, err := os.ReadFile(path)
	if path == "" || errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	if err := c.validate(); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func (c Config) validate() error {
	for _, host := range slices.Sorted(maps.Keys(c.Mirrors)) {
		if err := c.Mirrors[host].validate(host); err != nil {
			return err
		}
	}
	for _, host := range slices.Sorted(maps.Keys(c.Configs)) {
		h := c.Configs[host]
		if strings.ContainsAny(host, "/\\") || host == "" || host == "." || host == ".." {
			return fmt.Errorf("configs[%q] must be a host, with a port if it has one, and no path", host)
		}
		if host == anyHost && h.Auth != nil {
			return fmt.Errorf("configs[%q].auth would show the login to every registry: name the registry", host)
		}
		if err := h.validate(); err != nil {
			return fmt.Errorf("configs[%q].%w", host, err)
		}
	}
	return nil
}

func (m Mirror) validate(host string) error {
	if strings.ContainsAny(host, "/\\") || host == "" || host == "." || host == ".." {
		return fmt.Errorf("mirrors[%q] must be the host of a registry, with a port if it has one, and no path", host)
	}
	for _, e := range m.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("mirrors[%q].endpoint %q must be a URL such as https://mirror.example:5000", host, e)
		}
	}
	for pattern := range m.Rewrites {
		if _, err := regexp.Compile(pattern); err != nil {
			return fmt.Errorf("mirrors[%q].rewrite: %w", host, err)
		}
	}
	return nil
}

func (h HostConfig) validate() error {
	t := h.TLS
	if t == nil {
		return nil
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return errors.New("tls: cert_file and key_file go together")
	}
	for field, path := range map[string]string{"ca_file": t.CAFile, "cert_file": t.CertFile, "key_file": t.KeyFile} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("tls.%s: %w", field, err)
		}
	}
	return nil
}

// of is how a host is reached.
func (c Config) of(host string) HostConfig {
	if h, ok := c.Configs[host]; ok {
		return h
	}
	if host == dockerHub {
		return c.of("docker.io")
	}
	return c.Configs[anyHost]
}

// Logins are the logins by host, for the configuration of containerd, which knows Docker's registry by the name of its server.
func (c Config) Logins() map[string]Auth {
	out := map[string]Auth{}
	for host, h := range c.Configs {
		if h.Auth != nil {
			out[host] = *h.Auth
		}
	}
	if hub, ok := out["docker.io"]; ok && c.Configs[dockerHub].Auth == nil {
		out[dockerHub] = hub
	}
	return out
}
