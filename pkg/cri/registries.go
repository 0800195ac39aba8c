package cri

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Registries is the content of registries.yaml, in the format that users of the family have.
type Registries struct {
	// Mirrors says, by registry host ("*" for all others), where its images are asked for first.
	Mirrors map[string]Mirror `json:"mirrors"`
	// Configs says, by registry host[:port], how to log in and whom to trust.
	Configs map[string]RegistryConfig `json:"configs"`
}

// Mirror lists the endpoints of one registry in the order they are tried; the registry itself comes last.
type Mirror struct {
	Endpoints []string          `json:"endpoint"`
	Rewrites  map[string]string `json:"rewrite"`
}

// RegistryConfig is how one registry or mirror is reached.
type RegistryConfig struct {
	Auth *Auth        `json:"auth"`
	TLS  *RegistryTLS `json:"tls"`
}

// Auth is a login: a user with password, the two joined in base64, or a token.
type Auth struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identity_token"`
}

// RegistryTLS names files, and may switch verification off.
type RegistryTLS struct {
	CAFile             string `json:"ca_file"`
	CertFile           string `json:"cert_file"`
	KeyFile            string `json:"key_file"`
	InsecureSkipVerify bool   `json:"insecure_skip_verify"`
}

// ReadRegistries reads registries.yaml; a file that is not there is an empty one. The error names the field.
func ReadRegistries(path string) (Registries, error) {
	var r Registries
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if err := yaml.UnmarshalStrict(data, &r); err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	if err := r.validate(); err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func (r Registries) validate() error {
	for host, m := range r.Mirrors {
		if len(m.Rewrites) > 0 {
			return fmt.Errorf("mirrors[%q].rewrite is not built yet: push the images to the mirror under their own names", host)
		}
		for _, e := range m.Endpoints {
			u, err := url.Parse(e)
			if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
				return fmt.Errorf("mirrors[%q].endpoint %q must be a URL such as https://mirror.example:5000", host, e)
			}
		}
	}
	for host, c := range r.Configs {
		if strings.Contains(host, "/") {
			return fmt.Errorf("configs[%q] must be a host, with a port if it has one, and no path", host)
		}
		if t := c.TLS; t != nil && (t.CertFile == "") != (t.KeyFile == "") {
			return fmt.Errorf("configs[%q].tls: cert_file and key_file go together", host)
		}
	}
	return nil
}

// write replaces the hosts.toml files below dir with those of r: one folder a registry, as containerd reads them.
func (r Registries) write(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear registry configuration: %w", err)
	}
	hosts := slices.Sorted(maps.Keys(r.Mirrors))
	for host := range r.Configs {
		if _, ok := r.Mirrors[host]; !ok {
			hosts = append(hosts, host)
		}
	}
	for _, host := range hosts {
		folder := host
		if host == "*" {
			folder = "_default"
		}
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o700); err != nil {
			return fmt.Errorf("write registry configuration: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, folder, "hosts.toml"), r.hostsFile(host), 0o600); err != nil {
			return fmt.Errorf("write registry configuration: %w", err)
		}
	}
	return nil
}

// hostsFile is the hosts.toml of one registry: its mirrors in order, then itself when it needs TLS settings.
func (r Registries) hostsFile(host string) []byte {
	var b bytes.Buffer
	endpoints := slices.Clone(r.Mirrors[host].Endpoints)
	if c, ok := r.Configs[host]; ok && c.TLS != nil && host != "*" {
		endpoints = append(endpoints, "https://"+host)
	}
	for _, e := range endpoints {
		u, err := url.Parse(e)
		if err != nil { // validate has refused it
			continue
		}
		fmt.Fprintf(&b, "[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", strings.TrimSuffix(e, "/"))
		if strings.Trim(u.Path, "/") != "" {
			b.WriteString("  override_path = true\n")
		}
		if t := r.Configs[u.Host].TLS; t != nil {
			t.write(&b)
		}
	}
	return b.Bytes()
}

func (t RegistryTLS) write(b *bytes.Buffer) {
	if t.CAFile != "" {
		fmt.Fprintf(b, "  ca = %q\n", t.CAFile)
	}
	if t.CertFile != "" {
		fmt.Fprintf(b, "  client = [[%q, %q]]\n", t.CertFile, t.KeyFile)
	}
	if t.InsecureSkipVerify {
		b.WriteString("  skip_verify = true\n")
	}
}
