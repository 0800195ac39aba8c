// Package runtimes knows the container runtimes that a host may have besides the bundled runc, and finds them. It is an inner room of
// pkg/cri. A runtime is used by pods whose RuntimeClass has its name as handler; manifests/runtimes.yaml holds those classes.
package runtimes

import (
	"os"
	"path/filepath"
)

// Runtime is one that was found.
type Runtime struct {
	// Name is its handler.
	Name string
	// Type is what containerd calls its shim.
	Type string
	// Shim is the path of its own shim, or empty: then it works like runc, below the bundled shim.
	Shim string
	// Binary is the path of the program that takes runc's place, or empty.
	Binary string
}

// known says how a runtime is recognised: by a program in runc's place, or by a shim.
type known struct{ name, program, shim, typ string }

const runcType = "io.containerd.runc.v2"

// all are the runtimes that the family knows, and a few that are used at the edge.
func all() []known {
	return []known{
		{name: "crun", program: "crun"},
		{name: "youki", program: "youki"},
		{name: "nvidia", program: "nvidia-container-runtime"},
		{name: "nvidia-experimental", program: "nvidia-container-runtime-experimental"},
		{name: "nvidia-cdi", program: "nvidia-container-runtime.cdi"},
		{name: "nvidia-legacy", program: "nvidia-container-runtime.legacy"},
		{name: "runsc", shim: "containerd-shim-runsc-v1", typ: "io.containerd.runsc.v1"},
		{name: "kata", shim: "containerd-shim-kata-v2", typ: "io.containerd.kata.v2"},
		{name: "lunatic", shim: "containerd-shim-lunatic-v1", typ: "io.containerd.lunatic.v1"},
		{name: "slight", shim: "containerd-shim-slight-v1", typ: "io.containerd.slight.v1"},
		{name: "spin", shim: "containerd-shim-spin-v2", typ: "io.containerd.spin.v2"},
		{name: "wasmedge", shim: "containerd-shim-wasmedge-v1", typ: "io.containerd.wasmedge.v1"},
		{name: "wasmer", shim: "containerd-shim-wasmer-v1", typ: "io.containerd.wasmer.v1"},
		{name: "wasmtime", shim: "containerd-shim-wasmtime-v1", typ: "io.containerd.wasmtime.v1"},
		{name: "wws", shim: "containerd-shim-wws-v1", typ: "io.containerd.wws.v1"},
	}
}

// Names are the handlers of all runtimes that Find may find.
func Names() []string {
	var names []string
	for _, k := range all() {
		names = append(names, k.name)
	}
	return names
}

// elsewhere are directories outside a usual PATH in which installers put runtimes.
func elsewhere() []string {
	return []string{"/usr/local/nvidia/toolkit", "/opt/kata/bin", "/opt/kwasm/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"}
}

// Find looks for runtimes in the directories of a search path and in those of installers. The first file of a name counts.
func Find(path string) []Runtime {
	return find(append(filepath.SplitList(path), elsewhere()...))
}

func find(dirs []string) []Runtime {
	var found []Runtime
	for _, k := range all() {
		r := Runtime{Name: k.name, Type: runcType}
		if k.shim != "" {
			r.Type, r.Shim = k.typ, lookup(dirs, k.shim)
		} else {
			r.Binary = lookup(dirs, k.program)
		}
		if r.Shim+r.Binary != "" {
			found = append(found, r)
		}
	}
	return found
}

// lookup returns the path of an executable file, or nothing.
func lookup(dirs []string, name string) string {
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if !filepath.IsAbs(path) {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}
