package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/config"
)

// material is what all servers of a cluster must have alike.
type material struct {
	Files    map[string][]byte `json:"files"`    // by path below the data directory
	Settings map[string]string `json:"settings"` // by flag
}

// sharedFiles are the paths below the data directory. Keys come before what says that they are complete.
func sharedFiles(dataDir string) []string {
	var out []string
	for _, path := range append(certs.NewServerPaths(dataDir).Shared(), filepath.Join(dataDir, "server", "agent-token")) {
		if rel, err := filepath.Rel(dataDir, path); err == nil {
			out = append(out, rel)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int { return strings.Compare(filepath.Ext(b), filepath.Ext(a)) })
	return out
}

// collect reads the material of this server.
func collect(cfg config.Server) (material, error) {
	m := material{Files: map[string][]byte{}, Settings: settings(cfg)}
	for _, rel := range sharedFiles(cfg.DataDir) {
		data, err := os.ReadFile(filepath.Join(cfg.DataDir, rel))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return m, fmt.Errorf("collect what servers share: %w", err)
		}
		m.Files[rel] = data
	}
	return m, nil
}

// Material is what a server that joins is given, as JSON.
func Material(cfg config.Server) ([]byte, error) {
	m, err := collect(cfg)
	if err != nil {
		return nil, err
	}
	return json.Marshal(m)
}

// put makes the material that of this server. Nothing that is there is replaced: a server that has other authorities has a cluster of its own.
func (m material) put(dataDir string) error {
	names := sharedFiles(dataDir)
	for _, rel := range names {
		old, err := os.ReadFile(filepath.Join(dataDir, rel))
		if err == nil && m.Files[rel] != nil && !bytes.Equal(old, m.Files[rel]) && filepath.Base(rel) != "agent-token" {
			return fmt.Errorf("this server has a cluster of its own: %s is not that of the other servers; to give that cluster up, remove %s and start again",
				filepath.Join(dataDir, rel), filepath.Join(dataDir, "server"))
		}
	}
	for _, rel := range names {
		path := filepath.Join(dataDir, rel)
		if _, err := os.Stat(path); err == nil || m.Files[rel] == nil {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("keep what servers share: %w", err)
		}
		if err := writeFile(path, m.Files[rel]); err != nil {
			return fmt.Errorf("keep what servers share: %w", err)
		}
	}
	return nil
}

func writeFile(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".kedge-tmp-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

// settings are those that must be alike, by flag.
func settings(cfg config.Server) map[string]string {
	disabled := slices.Compact(slices.Sorted(slices.Values(cfg.DisabledAddons())))
	return map[string]string{
		"cluster-cidr": list(cfg.ClusterCIDRs), "service-cidr": list(cfg.ServiceCIDRs), "service-node-port-range": cfg.NodePortRange,
		"cluster-dns": list(cfg.ClusterDNS), "cluster-domain": cfg.ClusterDomain, "flannel-backend": cfg.FlannelBackend,
		"flannel-external-ip": strconv.FormatBool(cfg.FlannelExternalIP), "disable": strings.Join(disabled, ","),
		"disable-kube-proxy": strconv.FormatBool(cfg.DisableKubeProxy), "disable-network-policy": strconv.FormatBool(cfg.DisableNetworkPolicy),
	}
}

func list[T netip.Addr | netip.Prefix](items []T) string {
	var out []string
	for _, one := range items {
		out = append(out, fmt.Sprint(one))
	}
	return strings.Join(out, ",")
}

// differs says which setting is not that of the other servers.
func (m material) differs(cfg config.Server) error {
	own := settings(cfg)
	for flag, theirs := range m.Settings {
		if mine, known := own[flag]; known && mine != theirs {
			return fmt.Errorf("--%s is %q here and %q on the other servers: give this server theirs", flag, mine, theirs)
		}
	}
	return nil
}
