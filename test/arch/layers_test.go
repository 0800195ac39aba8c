package arch

import (
	"fmt"
	"slices"
	"strings"
)

// level is a floor of the house: imports go down only, never sideways.
type level int

const (
	leaf       level = iota // data only
	foundation              // what features stand on
	feature                 // usable and testable alone; none imports another
	settings                // pkg/config
	mode                    // server, agent
	frontend                // pkg/cli
	command                 // programs
	support                 // tests and build tools: they import what they like, and only tests and tools import them
)

// place says where a package lives. A feature or mode may have inner rooms, which only it imports; inner orders them: a room
// imports rooms with a greater number.
type place struct {
	level level
	inner int
}

// root is the feature that a package is a room of: the first two elements of its path.
func root(pkg string) string {
	parts := strings.SplitN(pkg, "/", 3)
	return strings.Join(parts[:min(2, len(parts))], "/")
}

// checkLayers checks imports between our own packages. Tests may use real neighbours, so they are free.
func checkLayers(files []source, house map[string]place) []violation {
	var vs []violation
	for _, f := range files {
		from := f.dir()
		if _, ok := house[from]; !ok {
			vs = append(vs, violation{"layers", from, "not in the table of packages: give it a level in test/arch/house_test.go"})
			continue
		}
		if f.test {
			continue
		}
		for _, imported := range f.imports() {
			to, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			if reason := forbidden(from, to, house); reason != "" {
				vs = append(vs, violation{"layers", f.path, fmt.Sprintf("imports %s: %s", to, reason)})
			}
		}
	}
	return dedupe(vs)
}

// forbidden says why one package may not import another, or "".
func forbidden(from, to string, house map[string]place) string {
	a, b := house[from], house[to]
	_, known := house[to]
	sameRoot := (a.level == feature || a.level == mode) && a.level == b.level && root(from) == root(to)
	switch {
	case !known:
		return "that package is not in the table of packages"
	case a.level == support:
		return ""
	case b.level == support:
		return "tests and tools are imported by tests and tools only"
	case to == "pkg/config" && a.level != frontend && a.level != mode:
		return "only cli, server and agent import config: declare the few values that are needed"
	case b.inner > 0 && !sameRoot:
		return "that is an inner room of " + root(to)
	case sameRoot && a.inner < b.inner:
		return ""
	case sameRoot:
		return "rooms of one feature or mode import only rooms further in"
	case a.level <= b.level:
		return "imports point down only, never up or sideways"
	}
	return ""
}

func dedupe(vs []violation) []violation {
	slices.SortFunc(vs, func(a, b violation) int {
		return strings.Compare(a.key()+a.what, b.key()+b.what)
	})
	return slices.Compact(vs)
}

// fence says which packages alone may import a library.
type fence struct {
	library string   // import path, with everything below it
	allowed []string // packages, with everything below them
	reason  string
}

func fences() []fence {
	kubernetes := []string{"pkg/controlplane", "pkg/kubelet", "pkg/network"}
	return []fence{
		{"k8s.io/kubernetes", kubernetes, "its process-wide state stays where it is started"},
		{"github.com/containerd/containerd/v2/cmd/containerd", []string{"pkg/cri"}, "containerd's server is started in one place"},
		{"github.com/containerd/containerd/v2/plugins", []string{"pkg/cri"}, "containerd's plugins register themselves"},
		{"github.com/containerd/containerd/v2/cmd/ctr", []string{"pkg/cli"}, "a command line belongs to the command line"},
		{"k8s.io/kubectl", []string{"pkg/cli"}, "a command line belongs to the command line"},
		{"github.com/urfave/cli", []string{"pkg/cli"}, "a command line belongs to the command line"},
		{"github.com/k3s-io/kine", []string{"pkg/datastore"}, "the datastore hides what it is made of"},
		{"modernc.org/sqlite", []string{"pkg/datastore"}, "the datastore hides what it is made of"},
		{"go.etcd.io/etcd/server", []string{"pkg/datastore"}, "the datastore hides what it is made of"},
		{"github.com/coredns", []string{"pkg/dns"}, "DNS is served in one place"},
		{"github.com/mochi-mqtt", []string{"pkg/twin/mqtt"}, "the broker is one adapter of the twin"},
		{"github.com/rancher/remotedialer", []string{"pkg/tunnel"}, "the tunnel hides what carries it"},
		{"testing", []string{"test"}, "test code stays out of the program"},
	}
}

// checkFences checks imports of libraries, in the program and in its tests; tests may use test support and real parts.
func checkFences(files []source, fences []fence) []violation {
	var vs []violation
	for _, f := range files {
		if f.test {
			continue
		}
		for _, imported := range f.imports() {
			for _, fence := range fences {
				inside := slices.ContainsFunc(fence.allowed, func(p string) bool { return below(f.dir(), p) })
				if below(imported, fence.library) && !inside {
					what := fmt.Sprintf("imports %s, which only %s may: %s", imported, strings.Join(fence.allowed, ", "), fence.reason)
					vs = append(vs, violation{"fences", f.path, what})
				}
			}
		}
	}
	return vs
}

// below reports whether p is parent or lies below it.
func below(p, parent string) bool { return p == parent || strings.HasPrefix(p, parent+"/") }
