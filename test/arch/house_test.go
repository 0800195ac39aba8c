package arch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// plan lists every package with its level; the number behind a level is how far inside its feature a room lies. A new
// package is a new line here: decide where it belongs before writing it.
const plan = `
leaf        manifests
leaf        pkg/apis/addons/v1alpha1
leaf        pkg/apis/devices/v1beta1
leaf        pkg/apis/helm/v1
leaf        pkg/apis/openyurt/v1alpha1
leaf        pkg/apis/openyurt/v1beta1
leaf        pkg/apis/openyurt/v1beta2
leaf        pkg/apis/rules/v1
leaf        pkg/apis/site/v1alpha2
leaf        pkg/apis/superedge/v1
leaf        pkg/version
foundation  pkg/boltfile
foundation  pkg/certs
foundation  pkg/check
foundation  pkg/conversion
foundation  pkg/dropin
foundation  pkg/ipam
foundation  pkg/kube
foundation  pkg/logs
foundation  pkg/memory
foundation  pkg/payload
foundation  pkg/peers
foundation  pkg/resume
foundation  pkg/seal
foundation  pkg/socket
foundation  pkg/supervisor
feature     pkg/addons
feature/1   pkg/addons/manifest
feature     pkg/autonomy
feature/3   pkg/autonomy/cache
feature/8   pkg/autonomy/filter
feature/4   pkg/autonomy/identity
feature/5   pkg/autonomy/link
feature/7   pkg/autonomy/object
feature/1   pkg/autonomy/proxy
feature/6   pkg/autonomy/slim
feature/6   pkg/autonomy/store
feature     pkg/autonomy/health
feature     pkg/autonomy/health/gossip
feature/8   pkg/autonomy/health/note
feature/9   pkg/autonomy/health/verdict
feature     pkg/controlplane
feature/1   pkg/controlplane/backend
feature/1   pkg/controlplane/evictions
feature/1   pkg/controlplane/history
feature/1   pkg/controlplane/openapi
feature/1   pkg/controlplane/kinds
feature/1   pkg/controlplane/localapi
feature/1   pkg/controlplane/policies
feature/1   pkg/controlplane/serving
feature     pkg/cri
feature/1   pkg/cri/registries
feature/1   pkg/cri/runtimes
feature     pkg/datastore
feature     pkg/datastore/etcd
feature/1   pkg/datastore/etcdapi
feature/4   pkg/datastore/expiry
feature/5   pkg/datastore/keyindex
feature/1   pkg/datastore/measure
feature/3   pkg/datastore/mvcc
feature/2   pkg/datastore/snapshot
feature/4   pkg/datastore/sqlite
feature/2   pkg/datastore/watch
feature     pkg/dns
feature     pkg/helm
feature/1   pkg/helm/fetch
feature     pkg/grid
feature/2   pkg/grid/check
feature/1   pkg/grid/controller
feature/4   pkg/grid/convert
feature/3   pkg/grid/dialect
feature/4   pkg/grid/membership
feature/5   pkg/grid/object
feature/5   pkg/grid/placement
feature/4   pkg/grid/report
feature/6   pkg/grid/traffic
feature/4   pkg/grid/units
feature/1   pkg/grid/view
feature     pkg/ingress
feature/1   pkg/ingress/proxy
feature/2   pkg/ingress/route
feature     pkg/join
feature     pkg/kubelet
feature     pkg/loadbalancer
feature     pkg/metrics
feature     pkg/network
feature/1   pkg/network/overlay
feature     pkg/network/policy
feature/1   pkg/network/policy/compile
feature/2   pkg/network/policy/ruleset
feature     pkg/rules
feature/1   pkg/rules/edge
feature/5   pkg/rules/plan
feature/3   pkg/rules/queue
feature/1   pkg/rules/router
feature/4   pkg/rules/wire
feature     pkg/status
feature     pkg/storage
feature     pkg/tunnel
feature/1   pkg/tunnel/wire
feature     pkg/twin
feature/2   pkg/twin/cluster
feature/7   pkg/twin/convert
feature/4   pkg/twin/dmi
feature/7   pkg/twin/dmi/api
feature/6   pkg/twin/dmi/wire
feature/2   pkg/twin/fleet
feature/5   pkg/twin/hub
feature/3   pkg/twin/local
feature     pkg/twin/mapper
feature/6   pkg/twin/mapper/driver
feature/5   pkg/twin/mapper/modbus
feature/5   pkg/twin/mapper/virtual
feature/7   pkg/twin/merge
feature/7   pkg/twin/model
feature/2   pkg/twin/mqtt
feature/2   pkg/twin/mqtt/bridge
feature/6   pkg/twin/mqtt/clients
feature/4   pkg/twin/mqtt/desk
feature/6   pkg/twin/mqtt/message
feature/6   pkg/twin/push
feature/7   pkg/twin/store
feature     pkg/upstream
settings    pkg/config
mode        pkg/agent
mode        pkg/server
mode/1      pkg/server/cluster
mode/1      pkg/server/encryption
mode/1      pkg/server/self
frontend    pkg/cli
command     cmd/kedge
command     cmd/kedge-ipam
support     scripts/payload
support     scripts/sbom
support     scripts/testreport
support     test/arch
support     test/bench
support     test/bench/fleet
support     test/bench/outage
support     test/bench/twins
support     test/built
support     test/crowd
support     test/crowd/node
support     test/conformance/critest
support     test/conformance/critest/guest
support     test/e2e/addons
support     test/e2e/autonomy
support     test/e2e/install
support     test/e2e/helm
support     test/conformance/ginkgo
support     test/conformance/kubernetes
support     test/e2e/ingress
support     test/e2e/grid
support     test/e2e/health
support     test/e2e/devices
support     test/e2e/join
support     test/e2e/link
support     test/e2e/metrics
support     test/e2e/network
support     test/e2e/policy
support     test/e2e/policy/probe
support     test/e2e/registry
support     test/e2e/rules
support     test/e2e/secrets
support     test/e2e/servers
support     test/e2e/site
support     test/golden
support     test/images
support     test/images/echo
support     test/images/make
support     test/lab
support     test/lab/cgroup
support     test/lab/machine
support     test/lab/netns
support     test/lab/node
support     test/lab/slowlink
support     test/output
support     test/database
support     test/plc
support     test/plane
support     test/vm
support     test/vm/control
support     test/vm/disk
support     test/vm/guest
support     test/vm/scenario
support     test/vm/scenario/appender
support     test/workload
`

// levels names the levels in order, the lowest first.
func levels() []string {
	return []string{"leaf", "foundation", "feature", "settings", "mode", "frontend", "command", "support"}
}

// parsePlan reads lines of a level and a package.
func parsePlan(plan string) (map[string]place, error) {
	house := map[string]place{}
	for line := range strings.Lines(plan) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		name, depth, _ := strings.Cut(fields[0], "/")
		inner, err := strconv.Atoi("0" + depth)
		l := slices.Index(levels(), name)
		if len(fields) != 2 || err != nil || l < 0 {
			return nil, fmt.Errorf("plan: cannot read %q: want a level and a package", line)
		}
		if _, twice := house[fields[1]]; twice {
			return nil, fmt.Errorf("plan: %s is there twice", fields[1])
		}
		house[fields[1]] = place{level(l), inner}
	}
	return house, nil
}

func house(t *testing.T) map[string]place {
	t.Helper()
	h, err := parsePlan(plan)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestPlanIsRead(t *testing.T) {
	h, err := parsePlan("leaf a\n\nfeature/2  b/c\n")
	if err != nil || len(h) != 2 || h["a"] != (place{leaf, 0}) || h["b/c"] != (place{feature, 2}) {
		t.Errorf("%v, %v", h, err)
	}
	for _, bad := range []string{"leaf", "roof a", "feature/x a", "leaf a b", "leaf a\nmode a"} {
		if _, err := parsePlan(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
