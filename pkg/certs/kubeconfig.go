package certs

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"sigs.k8s.io/yaml"
)

// The subset of the kubeconfig format that we write.
type kubeconfig struct {
	APIVersion     string         `json:"apiVersion"`
	Kind           string         `json:"kind"`
	Clusters       []namedCluster `json:"clusters"`
	Contexts       []namedContext `json:"contexts"`
	CurrentContext string         `json:"current-context"`
	Users          []namedUser    `json:"users"`
}

type namedCluster struct {
	Name    string  `json:"name"`
	Cluster cluster `json:"cluster"`
}

type cluster struct {
	Server string `json:"server"`
	CAFile string `json:"certificate-authority,omitempty"`
	CAData []byte `json:"certificate-authority-data,omitempty"`
}

type namedContext struct {
	Name    string      `json:"name"`
	Context kubeContext `json:"context"`
}

type kubeContext struct {
	Cluster string `json:"cluster"`
	User    string `json:"user"`
}

type namedUser struct {
	Name string   `json:"name"`
	User kubeUser `json:"user"`
}

type kubeUser struct {
	CertFile string `json:"client-certificate,omitempty"`
	KeyFile  string `json:"client-key,omitempty"`
	CertData []byte `json:"client-certificate-data,omitempty"`
	KeyData  []byte `json:"client-key-data,omitempty"`
}

func renderKubeconfig(c cluster, u kubeUser) ([]byte, error) {
	const name = "default"
	return yaml.Marshal(kubeconfig{
		APIVersion:     "v1",
		Kind:           "Config",
		Clusters:       []namedCluster{{name, c}},
		Contexts:       []namedContext{{name, kubeContext{name, name}}},
		CurrentContext: name,
		Users:          []namedUser{{name, u}},
	})
}

// writeReferringKubeconfig writes a kubeconfig that names the files, so that clients pick up a renewed certificate.
func writeReferringKubeconfig(path, serverURL, caFile string, pair KeyPair) (changed bool, err error) {
	data, err := renderKubeconfig(cluster{Server: serverURL, CAFile: caFile}, kubeUser{CertFile: pair.Cert, KeyFile: pair.Key})
	if err != nil {
		return false, err
	}
	return writeFile(path, data, keyMode)
}

// UserKubeconfig says where the operator's own kubeconfig goes. It embeds its certificate and key.
type UserKubeconfig struct {
	Path  string      // empty writes none
	Mode  os.FileMode // 0 means 0600
	Group string      // group name or number that owns the file; empty keeps the process's
}

func (u UserKubeconfig) write(serverURL, caFile string, pair KeyPair) (changed bool, err error) {
	if u.Path == "" {
		return false, nil
	}
	data, err := embeddingKubeconfig(serverURL, caFile, pair)
	if err != nil {
		return false, err
	}
	gid, err := groupID(u.Group)
	if err != nil {
		return false, err
	}
	mode := u.Mode
	if mode == 0 {
		mode = keyMode
	}
	if u.isCurrent(data, mode, gid) {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(u.Path), 0o755); err != nil {
		return false, err
	}
	return true, replaceFile(u.Path, data, mode, gid)
}

func (u UserKubeconfig) isCurrent(data []byte, mode os.FileMode, gid int) bool {
	info, err := os.Stat(u.Path)
	if err != nil || info.Mode().Perm() != mode {
		return false
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && gid >= 0 && int(stat.Gid) != gid {
		return false
	}
	old, err := os.ReadFile(u.Path)
	return err == nil && bytes.Equal(old, data)
}

func embeddingKubeconfig(serverURL, caFile string, pair KeyPair) ([]byte, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	cert, err := os.ReadFile(pair.Cert)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(pair.Key)
	if err != nil {
		return nil, err
	}
	return renderKubeconfig(cluster{Server: serverURL, CAData: ca}, kubeUser{CertData: cert, KeyData: key})
}

// groupID resolves a group name or number; -1 for none.
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	if id, err := strconv.Atoi(group); err == nil && id >= 0 {
		return id, nil
	}
	found, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("write-kubeconfig-group %q does not exist: create the group or name another: %w", group, err)
	}
	return strconv.Atoi(found.Gid)
}
