package install

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
	"github.com/kedge-io/kedge/test/vm/control"
)

// containerScript starts the program as the image of the Dockerfile has it: in a file system with nothing else, and what a
// privileged container is given. The arguments are the root directory and the program's own.
const containerScript = `
set -eu
root=$1
shift
echo $$ >/run/container.pid
mount --make-rprivate /
mkdir -p "$root"
mount --bind "$root" "$root"
mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp" "$root/etc" "$root/var/lib" "$root/var/log" "$root/old"
: >"$root/bin/kedge"
mount --bind /opt/kedge/bin/kedge "$root/bin/kedge"
echo root:x:0:0:root:/:/bin/kedge >"$root/etc/passwd"
for name in hosts hostname resolv.conf; do cat "/etc/$name" >"$root/etc/$name"; done
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
cd "$root"
pivot_root . old
cd /
PATH=/bin exec /bin/kedge "$@"
`

// TestContainer runs a whole site, with a pod, from the program alone: no shell, no library, no other program is there.
func TestContainer(t *testing.T) {
	checkDockerfile(t)
	const root = "/var/container"
	l := lab.New(t)
	n := l.AddSite("shop").AddNode("s1", lab.Server())
	n.AddBusybox()
	n.Exec("mkdir", "-p", root+"/var/lib/kedge/agent")
	n.Exec("mv", "/var/lib/kedge/agent/images", root+"/var/lib/kedge/agent/images")
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ended := make(chan error, 1)
	go func() {
		ended <- n.RunStreams(t.Context(), control.Command{
			Argv: []string{"unshare", "--mount", "sh", "-c", containerScript, "container", root, "server"}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
			Stdout: log, Stderr: log,
		})
	}()
	inside := func(args ...string) (string, error) {
		pid, err := n.Run("cat", "/run/container.pid")
		if err != nil {
			return pid, err
		}
		return n.Run(append([]string{"nsenter", "--mount", "--target", strings.TrimSpace(pid), "/bin/kedge"}, args...)...)
	}
	fail := func(what string, err error) {
		t.Helper()
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("%s: %v\n%s", what, err, text[max(0, len(text)-4000):])
	}
	awaitOr(t, "the site is ready", fail, func() error {
		select {
		case err := <-ended:
			fail("kedge ended", err)
		default:
		}
		out, err := inside("status")
		return problem(out, err)
	})
	if out, err := inside("kubectl", "run", "one", "--image=kedge.local/busybox:1", "--image-pull-policy=Never", "--restart=Never", "--", "/bin/sh", "-c", "echo from the pod; exec busybox sleep 1000"); err != nil {
		fail("run a pod: "+out, err)
	}
	awaitOr(t, "the pod runs", fail, func() error {
		out, err := inside("kubectl", "logs", "one")
		if err == nil && !strings.Contains(out, "from the pod") {
			err = fmt.Errorf("its log is empty")
		}
		return problem(out, err)
	})
}

// checkDockerfile wants the lines that containerScript stands for.
func checkDockerfile(t *testing.T) {
	t.Helper()
	dockerfile, err := os.ReadFile(filepath.Join(repo, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"FROM scratch\n", "COPY --chmod=0755 dist/kedge-${TARGETARCH} /bin/kedge\n", "/etc/passwd\nroot:x:0:0:root:/:/bin/kedge\n", `ENTRYPOINT ["/bin/kedge"]`, `CMD ["server"]`} {
		if !strings.Contains(string(dockerfile), want) {
			t.Errorf("the Dockerfile has no line %q: this test shows something else", want)
		}
	}
}

func problem(out string, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// awaitOr asks again until ok, for two minutes.
func awaitOr(t *testing.T, what string, fail func(string, error), ok func() error) {
	t.Helper()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(2 * time.Minute)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			fail(what, err)
		}
		<-tick.C
	}
}
