// Package ipam gives pods their addresses and keeps each pod's address for as
// long as the pod exists, whatever happens to its sandbox, the node or kedge. It
// holds the store, which the agent uses to release the addresses of pods that are
// gone, and the CNI plugin kedge-ipam. cmd/kedge-ipam and the agent may import
// it; it imports nothing of kedge and no Kubernetes packages, for the plugin is
// started for every pod and must be quick.
package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Key names a pod. A pod that was created again under the same name has another
// UID and is another pod. Only the UID is compared.
type Key struct {
	Namespace string
	Name      string
	// UID is the pod's UID as the kubelet gives it to the container runtime: for
	// static pods that of the kubelet, not that of the mirror pod in the API.
	UID string
}

// Owner is who holds an address: a pod, or a container that belongs to no pod.
type Owner struct {
	// Pod is the pod, or the zero Key.
	Pod Key
	// Container is the container's id when there is no pod.
	Container string
}

// Sandbox is one use of an address: the network namespace it was given to.
type Sandbox struct {
	// ID is the container runtime's id of the sandbox.
	ID string `json:"id"`
	// Netns is the path of the network namespace. The sandbox is alive for as
	// long as there is a namespace at this path.
	Netns string `json:"netns"`
}

// Address is one address of a pod.
type Address struct {
	// Prefix is the address with the length of its subnet's prefix.
	Prefix netip.Prefix
	// Gateway is the subnet's gateway.
	Gateway netip.Addr
}

// ErrExhausted says that no address is left in a range.
var ErrExhausted = errors.New("no free address")

const (
	podPrefix       = "pod-"
	containerPrefix = "ctr-"
	maxID           = 128
)

// id is the owner as it appears in file names.
func (o Owner) id() (string, error) {
	prefix, field, value := podPrefix, "K8S_POD_UID", o.Pod.UID
	if value == "" {
		prefix, field, value = containerPrefix, "CNI_CONTAINERID", o.Container
	}
	if value == "" {
		return "", errors.New("neither a pod UID nor a container id is given: set K8S_POD_UID in CNI_ARGS, or CNI_CONTAINERID")
	}
	if !validID(value) {
		return "", fmt.Errorf("%s %q is not valid: use up to %d letters, digits, dots, dashes and underscores", field, value, maxID)
	}
	return prefix + value, nil
}

func validID(s string) bool {
	if s == "" || len(s) > maxID {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return false
		}
		return r != '.' && r != '-' && r != '_'
	}) < 0
}
