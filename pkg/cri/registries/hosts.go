package registries

import (
	"bytes"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// dialTimeout bounds the time for finding and reaching one endpoint. A registry that is out of reach must not hold up the pod for
// longer: the image may come in an archive, or be at the next endpoint.
const dialTimeout = "10s"

// Write replaces the hosts.toml files below dir with those of c: one folder a registry, as containerd reads them. through leads to a mirror
// that has images under other names; it is only asked for such mirrors.
func (c Config) Write(dir string, through func(host string, endpoint int) string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear registry configuration: %w", err)
	}
	hosts := map[string]bool{anyHost: true}
	for host := range c.Mirrors {
		hosts[host] = true
	}
	for host := range c.Configs {
		hosts[host] = true
	}
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		folder := host
		if host == anyHost {
			folder = "_default"
		}
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o700); err != nil {
			return fmt.Errorf("write registry configuration: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, folder, "hosts.toml"), c.hostsFile(host, through), 0o600); err != nil {
			return fmt.Errorf("write registry configuration: %w", err)
		}
	}
	return nil
}

// hostsFile is the hosts.toml of one registry: the registry itself, which is tried last, and its mirrors in order.
func (c Config) hostsFile(host string, through func(host string, endpoint int) string) []byte {
	var b bytes.Buffer
	block := func(indent string, tls *TLS) {
		fmt.Fprintf(&b, "%sdial_timeout = %q\n", indent, dialTimeout)
		if tls != nil {
			tls.write(&b, indent)
		}
	}
	self := host
	if host == "docker.io" {
		self = dockerHub
	}
	block("", c.of(self).TLS)
	mirror, ok := c.Mirrors[host]
	if !ok { // one that only has a login or TLS settings is mirrored like all others
		mirror = c.Mirrors[anyHost]
		host = anyHost
	}
	for i, e := range mirror.Endpoints {
		u, err := url.Parse(e)
		if err != nil { // validate has refused it
			continue
		}
		if len(mirror.Rewrites) > 0 {
			fmt.Fprintf(&b, "[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n", through(host, i))
			continue
		}
		fmt.Fprintf(&b, "[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", strings.TrimSuffix(e, "/"))
		if strings.Trim(u.Path, "/") != "" {
			b.WriteString("  override_path = true\n")
		}
		block("  ", c.of(u.Host).TLS)
	}
	return b.Bytes()
}

func (t TLS) write(b *bytes.Buffer, indent string) {
	if t.CAFile != "" {
		fmt.Fprintf(b, "%sca = %q\n", indent, t.CAFile)
	}
	if t.CertFile != "" {
		fmt.Fprintf(b, "%sclient = [[%q, %q]]\n", indent, t.CertFile, t.KeyFile)
	}
	if t.InsecureSkipVerify {
		fmt.Fprintf(b, "%sskip_verify = true\n", indent)
	}
}
