package site

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/vm/control"
)

// refusal is a command that must fail, and what its one line must say.
type refusal struct {
	name string
	argv []string
	says []string
	// release says that the kedge under test must know its version.
	release bool
	// before changes the machine and returns how to change it back.
	before func(*scene) func()
}

// TestBadInput makes mistakes on a machine with a site: each is refused with one clear line, and nothing is touched.
func TestBadInput(t *testing.T) {
	s := newScene(t)
	s.start()
	t.Run("second kedge", func(t *testing.T) {
		s.refuse(t, refusal{argv: []string{"kedge", "server"}, says: []string{"another kedge", "/var/lib/kedge", "stop it first"}})
	})
	s.s1.Stop()
	for _, r := range refusals() {
		t.Run(r.name, func(t *testing.T) {
			if r.release && strings.Contains(s.s1.Kedge("version"), "dev\n") {
				t.Skip("this kedge was built without a version: use scripts/build.sh")
			}
			before := s.fingerprint(t)
			if r.before != nil {
				defer r.before(s)()
				before = s.fingerprint(t)
			}
			s.refuse(t, r)
			if after := s.fingerprint(t); after != before {
				t.Errorf("the data directory was changed:\n%s", difference(before, after))
			}
		})
	}
	s.start() // nothing was damaged
}

func refusals() []refusal {
	server := func(args ...string) []string { return append([]string{"kedge", "server"}, args...) }
	return []refusal{
		{name: "unknown flag", argv: server("--write-kubeconfg-mode", "644"), says: []string{"unknown flag --write-kubeconfg-mode", "did you mean --write-kubeconfig-mode?"}},
		{name: "flag without value", argv: server("--data-dir"), says: []string{"--data-dir needs a value"}},
		{name: "unknown command", argv: []string{"kedge", "sever"}, says: []string{`unknown command "sever"`, "did you mean server?"}},
		{name: "bad value", argv: server("--cluster-cidr", "10.42.0.0/99"), says: []string{"cluster-cidr", "10.42.0.0/99"}},
		{name: "overlapping networks", argv: server("--cluster-cidr", "10.43.0.0/16"), says: []string{"cluster-cidr", "service-cidr"}},
		{name: "unknown config key", argv: server(), says: []string{"/etc/kedge/config.yaml", "unknown key", "did you mean write-kubeconfig?"},
			before: withFile("/etc/kedge/config.yaml", "wrte-kubeconfig: /tmp/x\n")},
		{name: "broken config", argv: server(), says: []string{"/etc/kedge/config.yaml"}, before: withFile("/etc/kedge/config.yaml", "a: [b\n")},
		{name: "missing config", argv: server("--config", "/etc/none.yaml"), says: []string{"/etc/none.yaml", "does not exist"}},
		{name: "setting that is not built", argv: server(), says: []string{"/etc/kedge/config.yaml:1", "selinux", "remove the setting"},
			before: withFile("/etc/kedge/config.yaml", "selinux: true\n")},
		{name: "missing registries file", argv: server("--private-registry", "/etc/none.yaml"), says: []string{"--private-registry", "/etc/none.yaml"}},
		{name: "no datastore", argv: []string{"kedge", "snapshot", "list", "--data-dir", "/var/none"}, says: []string{"/var/none/server/db", "run this command on a server"}},
		{name: "no server", argv: []string{"kedge", "secrets-encrypt", "status"}, says: []string{"no server runs on this machine"}},
		{name: "port in use", argv: server(), says: []string{"6443", "in use"}, before: withListener(":6443")},
		{name: "kubelet's port in use", argv: server(), says: []string{"10250", "in use"}, before: withListener(":10250")},
		{name: "read-only data directory", argv: server(), says: []string{"data directory", "read-only file system", "choose another --data-dir"},
			before: withReadOnly("/var/lib/kedge")},
		{name: "data of a newer version", argv: server(), says: []string{"/var/lib/kedge", "v99.1.0", "newer"}, release: true, before: withFile("/var/lib/kedge/version", "v99.1.0+kedge1\n")},
		{name: "not root", argv: []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "kedge", "server"}, says: []string{"must run as root", "sudo"}},
	}
}

// refuse runs a command that must end soon, with another exit code than 0 and one line that says what is wrong.
func (s *scene) refuse(t *testing.T, r refusal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out, errOut bytes.Buffer
	err := s.s1.RunStreams(ctx, control.Command{Argv: r.argv, Stdout: &out, Stderr: &errOut})
	var exit *control.ExitError
	if !errors.As(err, &exit) || exit.Code <= 0 {
		t.Errorf("it ended with %v", err)
	}
	said := strings.TrimSpace(errOut.String())
	if strings.Count(said, "\n") != 0 || out.Len() > 0 {
		t.Errorf("want one line on standard error, got\n%s\nand on standard output\n%s", said, out.String())
	}
	for _, want := range append(r.says, "kedge: ") {
		if !strings.Contains(said, want) {
			t.Errorf("%q does not say %q", said, want)
		}
	}
	t.Log(said)
}

func withFile(path, content string) func(*scene) func() {
	return func(s *scene) func() {
		if _, err := s.s1.RunInput(content, "sh", "-c", `mkdir -p "${0%/*}"; [ -e "$0" ] && cp -a "$0" "$0.kept"; cat > "$0"`, path); err != nil {
			s.Fatal(err)
		}
		return func() { s.s1.Exec("sh", "-c", `rm "$0"; [ ! -e "$0.kept" ] || mv "$0.kept" "$0"`, path) }
	}
}

func withListener(address string) func(*scene) func() {
	return func(s *scene) func() {
		l, err := s.s1.Listen("tcp", address)
		if err != nil {
			s.Fatal(err)
		}
		return func() { _ = l.Close() }
	}
}

func withReadOnly(dir string) func(*scene) func() {
	return func(s *scene) func() {
		s.s1.Exec("sh", "-c", `mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"`, dir)
		return func() { s.s1.Exec("umount", dir) }
	}
}

// fingerprint is a line for each file of the data directory, but for the lock, which holds a process number.
func (s *scene) fingerprint(t *testing.T) string {
	t.Helper()
	root := s.s1.HostPath("/var/lib/kedge")
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() == "kedge.lock" {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		sum := ""
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum = fmt.Sprintf("%x", sha256.Sum256(content))
		}
		fmt.Fprintf(&b, "%s %v %s\n", path, info.Mode(), sum)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// difference shows the lines that are in one text only.
func difference(before, after string) string {
	var b strings.Builder
	for line := range strings.Lines(before) {
		if !strings.Contains(after, line) {
			b.WriteString("- " + line)
		}
	}
	for line := range strings.Lines(after) {
		if !strings.Contains(before, line) {
			b.WriteString("+ " + line)
		}
	}
	return b.String()
}
