package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// backupPart goes back to a snapshot and has certificates issued anew, where openrcScript says BACKUP.
const backupPart = `
kedge snapshot save --name keep
kubectl create namespace later
kedge snapshot restore keep 2>&1 || echo 'not while kedge runs'
old=$(sha256sum </var/lib/kedge/server/tls/$(ls /var/lib/kedge/server/tls | grep admin.*crt))
rc-service kedge stop
kedge etcd-snapshot restore keep
kedge certificate rotate
rc-service kedge start
ready
kubectl get namespace later 2>&1 || true
[ "$old" != "$(sha256sum </var/lib/kedge/server/tls/$(ls /var/lib/kedge/server/tls | grep admin.*crt))" ] && echo 'the certificates are new'
echo CERTIFICATES; kedge certificate list; echo END
echo SNAPSHOTS; kedge snapshot list; echo END
kedge snapshot delete keep
kedge snapshot delete keep 2>&1 || echo 'only once'
`

// openrcScript installs a server under OpenRC, watches it come back after a kill, upgrades to what is there already, and removes it.
const openrcScript = `
export K3S_TOKEN=a-secret-of-mine INSTALL_K3S_BASE_URL=/release INSTALL_K3S_SYMLINK=force
# Character devices are the layer's marks for removed files of the machine below; OpenRC keeps a cache.
changes() { find /changes -not -type c -not -type d -not -path '/changes/usr/share/*' | LC_ALL=C sort; }
install() { sh /release/install.sh server --disable-agent --write-kubeconfig-mode 0640 2>&1; }
# The site is ready within the limit, or the log says why not.
ready() {
	for _ in $(seq 120); do
		kedge status >/tmp/status 2>&1 && return
		sleep 1
	done
	cat /tmp/status /var/log/kedge.log
	exit 1
}
pid() { sed -n 's/.*, pid \([0-9]*\),.*/\1/p' /tmp/status; }
set -e
changes >/tmp/before
echo FIRST; install; echo END
ready
first=$(pid)
stat -c 'mode of the environment file: %a' /etc/kedge/kedge.env
stat -c 'mode of the kubeconfig: %a' /etc/kedge/kedge.yaml
rc-update show default
grep -q :a-secret-of-mine /var/lib/kedge/server/token && echo 'the token is kept'
kubectl get namespaces
echo AGAIN; install; echo END
ready
[ "$(pid)" = "$first" ] && echo 'the second run left it alone'
kill -KILL "$first"
for _ in $(seq 60); do [ ! -d "/proc/$first" ] && break; sleep 1; done
ready
[ "$(pid)" != "$first" ] && echo 'it came back'
BACKUP
echo UNINSTALL; kedge-uninstall.sh; echo END
changes >/tmp/after
echo LEFT; diff /tmp/before /tmp/after || true; 
ls -d /etc/kedge /var/lib/kedge /var/lib/kubelet /var/log/pods /var/log/containers /run/kedge /etc/init.d/* /run/netns 2>/dev/null || true
nft list tables; ls /sys/class/net | grep -vx -e lo -e site || true; echo END
echo PROCESSES; for p in /proc/[0-9]*; do [ "$p" = /proc/1 ] || [ "$p" = /proc/$$ ] || tr '\0' ' ' <$p/cmdline 2>/dev/null | grep kedge || true; done; echo END
`

// TestOpenRC shows the life of a server under OpenRC, as far as a machine of namespaces can: the control plane, without a node.
func TestOpenRC(t *testing.T) {
	binary := os.Getenv("KEDGE_BIN")
	if binary == "" {
		binary = filepath.Join(repo, "bin", "kedge")
	}
	if _, err := os.Stat(binary); err != nil {
		t.Skip("needs the built binary (make build): ", err)
	}
	release := t.TempDir()
	if err := os.Link(absolute(t, binary), filepath.Join(release, "kedge-amd64")); err != nil {
		if err := os.Symlink(absolute(t, binary), filepath.Join(release, "kedge-amd64")); err != nil {
			t.Fatal(err)
		}
	}
	pack(t, release, "ZSTD_LEVEL=0", "XZ_LEVEL=0", "GZIP_LEVEL=0")
	out := machine{openrc: true, release: release}.mustRun(t, strings.Replace(openrcScript, "BACKUP\n", backupPart, 1))
	for _, want := range []string{
		"mode of the environment file: 600", "mode of the kubeconfig: 640", "kedge |", "the token is kept", "kube-system",
		"the second run left it alone", "it came back",
		"not while kedge runs", "the datastore is that of", "certificates will be issued", "the certificates are new", `namespaces "later" not found`, "only once",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("missing: %q", want)
		}
	}
	if again := between(t, out, "AGAIN", "END"); !strings.Contains(again, "nothing changed") || strings.Contains(again, "wrote") {
		t.Errorf("the second run:\n%s", again)
	}
	if list := between(t, out, "SNAPSHOTS", "END"); !strings.Contains(list, "keep ") || !strings.Contains(list, "by hand") {
		t.Errorf("snapshots:\n%s", list)
	}
	if list := between(t, out, "CERTIFICATES", "END"); strings.Count(list, "authority") < 3 || strings.Count(list, " in 36") < 3 {
		t.Errorf("certificates:\n%s", list)
	}
	for _, part := range []string{"LEFT", "PROCESSES"} {
		if left := strings.TrimSpace(between(t, out, part, "END")); left != "" {
			t.Errorf("after the removal, %s:\n%s", part, left)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}
