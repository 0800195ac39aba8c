package images

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Names of the images that Known makes.
const (
	// BusyboxRef is a small system: a shell and some 270 commands.
	BusyboxRef = "kedge.local/busybox:1"
	// EchoRef is a web server that answers with who it is; see its source in echo.
	EchoRef = "kedge.local/echo:1"
)

// Known makes one of the images "busybox" and "echo".
func Known(which string) (Image, error) {
	switch which {
	case "busybox":
		return Busybox("/bin/busybox")
	case "echo":
		return Echo()
	}
	return Image{}, fmt.Errorf("image %q is not known: use busybox or echo", which)
}

// Busybox makes an image of a static busybox with links for all its commands,
// and the few files that programs expect. It starts a shell.
func Busybox(program string) (Image, error) {
	data, err := os.ReadFile(program)
	if errors.Is(err, fs.ErrNotExist) {
		return Image{}, fmt.Errorf("read busybox: %w: install Debian's busybox-static", err)
	}
	if err != nil {
		return Image{}, fmt.Errorf("read busybox: %w", err)
	}
	list, err := exec.Command(program, "--list-full").Output()
	if err != nil {
		return Image{}, fmt.Errorf("list busybox's commands: %w", err)
	}
	entries := []Entry{}
	for _, dir := range []string{"bin", "dev", "etc", "home", "proc", "root", "run", "sbin", "sys", "usr", "usr/bin", "usr/sbin", "var", "var/log", "var/www", "www"} {
		entries = append(entries, Entry{Path: dir, Mode: fs.ModeDir | 0o755})
	}
	entries = append(entries,
		Entry{Path: "tmp", Mode: fs.ModeDir | 0o777, Sticky: true},
		Entry{Path: "bin/busybox", Mode: 0o755, Data: data},
		Entry{Path: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n")},
		Entry{Path: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n")},
		Entry{Path: "etc/nsswitch.conf", Mode: 0o644, Data: []byte("hosts: files dns\n")})
	have := map[string]bool{"bin/busybox": true}
	applets := strings.Fields(string(list))
	slices.Sort(applets)
	for _, applet := range applets {
		if dir := path.Dir(applet); have[applet] || !slices.Contains([]string{"bin", "sbin", "usr/bin", "usr/sbin"}, dir) {
			continue
		}
		have[applet] = true
		entries = append(entries, Entry{Path: applet, Link: "/bin/busybox"})
	}
	return Image{
		Ref:     BusyboxRef,
		Entries: entries,
		Cmd:     []string{"sh"},
		Env:     []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
	}, nil
}

// Echo makes an image of the web server in the directory echo, which it builds.
func Echo() (Image, error) {
	dir, err := os.MkdirTemp("", "kedge-echo-")
	if err != nil {
		return Image{}, fmt.Errorf("build echo: %w", err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "echo")
	cmd := exec.Command("go", "build", "-trimpath", "-tags=netgo,osusergo", "-ldflags=-s -w", "-o", program, "github.com/kedge-io/kedge/test/images/echo")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return Image{}, fmt.Errorf("build echo: %w: %s", err, out)
	}
	return Program(EchoRef, program)
}

// Program makes an image that holds nothing but one static program and runs it
// as an ordinary user.
func Program(ref, program string) (Image, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return Image{}, fmt.Errorf("read program: %w", err)
	}
	name := filepath.Base(program)
	return Image{
		Ref:        ref,
		Entries:    []Entry{{Path: name, Mode: 0o755, Data: data}},
		Entrypoint: []string{"/" + name},
		User:       "65534:65534",
	}, nil
}
