package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const repo = "../../.."

// machineScript makes a machine of namespaces: this machine's files below a layer in memory that takes all changes, its own
// processes, network and /run. OpenRC's files are added, as on a machine that runs it. The rest of the arguments is run there.
const machineScript = `
set -eu
root=$1/root layer=$1/layer openrc=$2 release=$3
shift 3
mount --make-rprivate /
mount -t tmpfs tmpfs "$layer"
mkdir "$layer/upper" "$layer/work"
chmod 0755 "$layer/upper"
if [ -n "$openrc" ]; then
	mkdir -p "$layer/upper/usr" "$layer/upper/etc"
	for part in bin sbin lib usr/share; do
		mkdir -p "$layer/upper/usr/${part#usr/}"
		[ ! -d "$openrc/$part" ] || cp -a "$openrc/$part/." "$layer/upper/usr/${part#usr/}/"
	done
	cp -a "$openrc/etc/." "$layer/upper/etc/"
	: >"$layer/upper/etc/insserv.conf"
fi
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$root"
rm -rf "$root"/etc/init.d/*
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mkdir -p "$root/release" "$root/changes"
mount --bind "$layer/upper" "$root/changes"
mount --bind "$release" "$root/release"
ip link set lo up
ip link add site type bridge
ip addr add 10.90.3.2/24 dev site
ip link set site up
if [ -n "$openrc" ]; then
	for part in exclusive started starting stopping inactive wasinactive failed hotplugged daemons options scheduled; do
		mkdir -p "$root/run/openrc/$part"
	done
	: >"$root/run/openrc/softlevel"
fi
cd /
exec chroot "$root" env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -c "$@"
`

// machine describes where a script runs.
type machine struct {
	openrc  bool
	release string   // folder that is /release there
	env     []string // for the script
}

// run runs a shell script on a new machine and returns what it printed.
func (m machine) run(t *testing.T, script string) (string, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for namespaces")
	}
	dir, openrc := t.TempDir(), ""
	for _, sub := range []string{"root", "layer"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if m.openrc {
		openrc = absolute(t, repo+"/build/openrc/root")
		if _, err := os.Stat(openrc); err != nil {
			t.Skip("needs OpenRC's files from scripts/install-test-deps.sh: ", err)
		}
	}
	if m.release == "" {
		m.release = absolute(t, repo)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--uts",
		"sh", "-c", machineScript, "machine", dir, openrc, m.release, script)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/root"}, m.env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// mustRun is run that fails the test when the script does.
func (m machine) mustRun(t *testing.T, script string) string {
	t.Helper()
	out, err := m.run(t, script)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// between is the text between two lines of a script's output.
func between(t *testing.T, text, from, to string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, from+"\n")
	found, _, ended := strings.Cut(rest, to+"\n")
	if !ok || !ended {
		t.Fatalf("no %s … %s in:\n%s", from, to, text)
	}
	return found
}
