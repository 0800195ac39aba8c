// Command sbom writes the list of what is in a kedge program, for one architecture, as SPDX 2.3 in JSON: the Go modules of the program
// and of the bundled programs, as the linker recorded them, and the Debian packages whose files travel along. Equal input gives
// equal bytes. scripts/release.sh runs it; nobody imports it.
package main

import (
	"bufio"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "sbom: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	binary := flag.String("binary", "", "kedge program, as released")
	dir := flag.String("payload", "", "its payload directory, build/payload/ARCH")
	version := flag.String("version", "", "version of the release")
	versions := flag.String("versions", "scripts/versions.env", "versions of the bundled programs")
	created := flag.String("created", "", "time of the commit, RFC 3339")
	out := flag.String("o", "", "file to write")
	flag.Parse()
	if _, err := time.Parse(time.RFC3339, *created); err != nil {
		return fmt.Errorf("-created: %w", err)
	}
	pinned, err := pinnedModules(*versions)
	if err != nil {
		return err
	}
	found, err := inventory(*binary, *dir, pinned)
	if err != nil {
		return err
	}
	sum, err := fileSum(*binary)
	if err != nil {
		return err
	}
	data, err := document(filepath.Base(*binary), *version, *created, sum, found)
	if err != nil {
		return err
	}
	return os.WriteFile(*out, data, 0o644)
}

// part is one module or package.
type part struct {
	name, version, purl string
}

// inventory lists the parts of a program and its payload, each once, in order.
func inventory(binary, payload string, pinned map[string]string) ([]part, error) {
	programs, err := filepath.Glob(filepath.Join(payload, "bin", "*"))
	if err != nil {
		return nil, err
	}
	parts, err := goModules(binary, pinned)
	if err != nil {
		return nil, err
	}
	for _, program := range programs {
		more, err := goModules(program, pinned)
		if err != nil {
			return nil, err
		}
		parts = append(parts, more...)
	}
	debian, err := debianPackages(filepath.Join(payload, "lib", "nft", "LICENCES"))
	if err != nil {
		return nil, err
	}
	parts = append(parts, debian...)
	slices.SortFunc(parts, func(a, b part) int { return strings.Compare(a.purl, b.purl) })
	return slices.Compact(parts), nil
}

// pinnedModules are the modules that are built as programs of the payload, with their versions: the linker does not know those.
func pinnedModules(env string) (map[string]string, error) {
	data, err := os.ReadFile(env)
	if err != nil {
		return nil, err
	}
	pinned := map[string]string{"github.com/kedge-io/kedge": ""}
	for module, key := range map[string]string{
		"github.com/opencontainers/runc": "RUNC_VERSION", "github.com/containerd/containerd/v2": "CONTAINERD_VERSION",
		"github.com/containernetworking/plugins": "CNI_PLUGINS_VERSION", "sigs.k8s.io/cri-tools": "CRI_TOOLS_VERSION",
	} {
		m := regexp.MustCompile(`(?m)^` + key + `=(\S+)$`).FindSubmatch(data)
		if m == nil {
			return nil, fmt.Errorf("%s has no %s", env, key)
		}
		pinned[module] = string(m[1])
	}
	return pinned, nil
}

// goModules are the modules that the linker recorded in a Go program; a program in another language has none.
func goModules(path string, pinned map[string]string) ([]part, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil && strings.Contains(err.Error(), "not a Go executable") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read modules of %s: %w", path, err)
	}
	parts := []part{{name: "go", version: strings.TrimPrefix(info.GoVersion, "go"), purl: "pkg:generic/go@" + strings.TrimPrefix(info.GoVersion, "go")}}
	modules := info.Deps
	switch version, known := pinned[info.Main.Path]; {
	case !known:
		return nil, fmt.Errorf("%s is built from %s, whose version is not known: add it to pinnedModules", path, info.Main.Path)
	case version != "":
		modules = append(modules, &debug.Module{Path: info.Main.Path, Version: version})
	}
	for _, m := range modules {
		if m.Replace != nil {
			m = m.Replace
		}
		parts = append(parts, part{name: m.Path, version: m.Version, purl: "pkg:golang/" + m.Path + "@" + m.Version})
	}
	return parts, nil
}

// debianPackages reads the headings of the licence file that scripts/build-payload.sh writes.
func debianPackages(path string) ([]part, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	heading := regexp.MustCompile(`^==== Debian package (\S+) (\S+)$`)
	var parts []part
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if m := heading.FindStringSubmatch(lines.Text()); m != nil {
			parts = append(parts, part{name: m[1], version: m[2], purl: "pkg:deb/debian/" + m[1] + "@" + m[2]})
		}
	}
	if len(parts) == 0 {
		return nil, errors.Join(fmt.Errorf("%s names no Debian package with its version", path), lines.Err())
	}
	return parts, lines.Err()
}
