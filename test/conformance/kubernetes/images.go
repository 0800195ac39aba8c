package kubernetes

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kedge-io/kedge/test/images"
)

// e2e is where upstream keeps the images of its tests.
const e2e = "registry.k8s.io/e2e-test-images/"

// catalogue makes the images that the specs use. The references are those of the suite of Kubernetes 1.36.
func (w *workshop) catalogue() ([]images.Image, error) {
	base, err := images.Busybox("/bin/busybox")
	if err != nil {
		return nil, err
	}
	program, err := w.agnhost()
	if err != nil {
		return nil, err
	}
	host, err := w.agnhostImage(base, program)
	if err != nil {
		return nil, err
	}
	named := func(i images.Image, ref string, argv ...string) images.Image {
		i.Ref = ref
		i.Entries = append(slices.Clone(i.Entries), images.Entry{Path: "ref", Mode: 0o644, Data: []byte(ref)}) // no two are equal
		if len(argv) > 0 {
			i.Entrypoint, i.Cmd = argv, nil
		}
		return i
	}
	setuid := base
	setuid.Entries = append(slices.Clone(base.Entries), images.Entry{Path: "nnp", Mode: 0o755 | fs.ModeSetuid, Data: program})
	nonRoot := named(base, e2e+"nonroot:1.5", "id")
	nonRoot.User = "1234"
	return []images.Image{
		host, named(host, e2e+"agnhost:2.55"), named(host, e2e+"glibc-dns-testing:2.0.0", "sleep", "infinity"),
		named(base, e2e+"busybox:1.37.0-1"), nonRoot,
		named(base, e2e+"nginx:1.15-4", "sleep", "infinity"), named(base, e2e+"nginx:1.27-0", "sleep", "infinity"),
		named(base, "registry.k8s.io/pause:3.10.2", "sleep", "infinity"),
		named(setuid, e2e+"nonewprivs:1.4", "/nnp", "nonewprivs"),
	}, nil
}

// agnhostImage has what the specs call in it: the program, a shell, and the tools that its Dockerfile installs.
func (w *workshop) agnhostImage(base images.Image, program []byte) (images.Image, error) {
	var entries []images.Entry
	for _, e := range base.Entries {
		switch {
		case slices.Contains([]string{"bin/nc", "usr/bin/nc", "bin/sh"}, e.Path): // the specs use OpenBSD's nc, and busybox' shell its own
		case e.Path == "etc/passwd":
			e.Data = append(slices.Clone(e.Data), "user-defined-in-image:x:1000:1000::/home:/bin/sh\n"...)
			entries = append(entries, e)
		case e.Path == "etc/group":
			e.Data = append(slices.Clone(e.Data), "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"...)
			entries = append(entries, e)
		default:
			entries = append(entries, e)
		}
	}
	tools, err := programs("bash", "curl", "dig", "getent", "nc.openbsd", "ss")
	if err != nil {
		return images.Image{}, err
	}
	entries = append(entries, tools...)
	entries = append(entries,
		images.Entry{Path: "usr/bin/nc", Link: "/bin/nc.openbsd"}, images.Entry{Path: "bin/nc", Link: "/bin/nc.openbsd"},
		images.Entry{Path: "bin/sh", Link: "/bin/bash"},
		images.Entry{Path: "agnhost", Mode: 0o755, Data: program}, images.Entry{Path: "agnhost-2", Link: "agnhost"},
		images.Entry{Path: "uploads", Mode: fs.ModeDir | 0o755})
	for _, file := range []string{"localhost.crt", "localhost.key"} {
		data, err := os.ReadFile(filepath.Join(w.kubernetes, "test/images/agnhost/porter", file))
		if err != nil {
			return images.Image{}, err
		}
		entries = append(entries, images.Entry{Path: file, Mode: 0o644, Data: data})
	}
	return images.Image{Ref: e2e + "agnhost:2.63.0", Entries: entries, Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}, Env: base.Env}, nil
}

// programs are dynamic programs of this machine, put into /bin, with the loader and libraries they need where they expect them.
func programs(names ...string) ([]images.Entry, error) {
	var entries []images.Entry
	have := map[string]bool{}
	add := func(path, source string) error {
		if have[path] {
			return nil
		}
		have[path] = true
		data, err := os.ReadFile(source)
		entries = append(entries, images.Entry{Path: strings.TrimPrefix(path, "/"), Mode: 0o755, Data: data})
		return err
	}
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("%w: install Debian's curl, bind9-dnsutils, netcat-openbsd and iproute2", err)
		}
		if err := add("/bin/"+name, path); err != nil {
			return nil, err
		}
		libraries, err := exec.Command("ldd", path).Output()
		if err != nil {
			return nil, fmt.Errorf("list the libraries of %s: %w", path, err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(libraries)); lines.Scan(); {
			for _, word := range strings.Fields(lines.Text()) {
				if filepath.IsAbs(word) {
					if err := add(word, word); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	return entries, nil
}
