package scenario

import (
	"strings"

	"github.com/kedge-io/kedge/test/vm"
)

// tracesScript prints a line for everything that a program can leave on a machine, and that does not change by itself.
const tracesScript = `
cd /
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log/journal \
	-o -path /var/lib/systemd -o -path /var/cache \) -prune -o -print | sed 's/^/file /'
find /run /tmp /var/tmp -xdev \( -path '/run/systemd' -o -path '/run/udev' -o -path '/run/log' -o -name 'systemd-private-*' \) -prune -o -print | sed 's/^/file /'
sed 's/^[^ ]* \([^ ]*\) \([^ ]*\) .*/mount \1 \2/' /proc/self/mounts
ls /sys/class/net | sed 's/^/link /'
ip route show table all | sed 's/^/route /'
ip rule | sed 's/^/rule /'
find /sys/fs/cgroup -type d | grep -v -e '/dev-' -e '/sys-' -e systemd-udevd.service/ | sed 's/^/cgroup /'
for p in /proc/[0-9]*; do
	[ "$p" = /proc/$$ ] || { read -r comm <$p/comm && [ -n "$(tr -d '\0' <$p/cmdline)" ] && echo "process $comm"; } 2>/dev/null
done
systemctl list-units --all --plain --no-legend | awk '$1 !~ /\.device$|^user|^session|^systemd-tmpfiles-clean/ {print "unit", $1}'
systemctl list-unit-files --no-legend | awk '{print "unit-file", $1, $2}'
[ ! -x /root/payload/bin/nft ] || /root/payload/bin/nft list tables | sed 's/^/nft /'
`

// passing are lines of processes that come and go, the ones of this look included.
func passing(line string) bool {
	for _, p := range []string{"process sh", "process find", "process sed", "process tr", "process systemctl", "process awk", "process mawk", "process (", "process systemd-"} {
		if strings.HasPrefix(line, p) {
			return true
		}
	}
	return false
}

// traces is the sorted list of what is on a machine.
func traces(g *vm.Guest) string { return g.MustRun("{ " + tracesScript + "} | LC_ALL=C sort -u") }

// difference is what is in only one of two lists of lines.
func difference(before, after string) string {
	old, now := lines(before), lines(after)
	var b strings.Builder
	for l := range old {
		if !now[l] && !passing(l) {
			b.WriteString("- " + l + "\n")
		}
	}
	for l := range now {
		if !old[l] && !passing(l) {
			b.WriteString("+ " + l + "\n")
		}
	}
	return b.String()
}

func lines(text string) map[string]bool {
	set := map[string]bool{}
	for l := range strings.Lines(text) {
		set[strings.TrimSpace(l)] = true
	}
	return set
}

// remove runs killall and the uninstall script on a machine full of pods, and compares the machine with what it was before.
func (s *installed) remove(g *vm.Guest, service string) {
	s.t.Helper()
	// The nft that is to see the tables must outlive the removal; the machine has none of its own.
	g.MustRun("cp -rL /var/lib/kedge/data/current /root/payload")
	full := traces(g)
	for _, kind := range []string{"process containerd-shim", "link cni0", "nft table", "cgroup /sys/fs/cgroup/kubepods", "mount /var/lib/kubelet/pods/"} {
		if !strings.Contains(full, kind) {
			s.t.Errorf("before the removal there is no %q: the comparison shows nothing", kind)
		}
	}
	s.t.Logf("kedge-killall.sh: %s", g.MustRun("kedge-killall.sh"))
	left := traces(g)
	for l := range strings.Lines(difference(s.clean[g.MustRun("hostname")], left)) {
		if !strings.HasPrefix(l, "+ file /") && !strings.HasPrefix(l, "+ unit") || strings.HasPrefix(l, "+ file /run/") {
			s.t.Errorf("after kedge-killall.sh: %s", l)
		}
	}
	if !strings.Contains(left, "file /var/lib/kedge/agent/containerd") {
		s.t.Error("kedge-killall.sh removed data")
	}
	s.t.Logf("%s-uninstall.sh: %s", service, g.MustRun(service+"-uninstall.sh"))
	rest := strings.TrimSpace(difference(s.clean[g.MustRun("hostname")], traces(g)))
	for l := range strings.Lines(rest) {
		if !strings.HasPrefix(l, "+ file /root/payload") {
			s.t.Errorf("after %s-uninstall.sh: %s", service, l)
		}
	}
}
