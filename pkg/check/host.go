package check

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func checkUser(Config, *probes) Result {
	if uid := os.Geteuid(); uid != 0 {
		return fail(fmt.Sprintf("running as user %d", uid), "run kedge as root")
	}
	return pass("root")
}

func checkFiles(cfg Config, _ *probes) Result {
	for _, flag := range slices.Sorted(maps.Keys(cfg.Files)) {
		path := cfg.Files[flag]
		if path == "" {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return fail(fmt.Sprintf("--%s: %s", flag, err), "name a file that can be read")
		}
		_ = f.Close() // opened for reading only
	}
	return pass("those that settings name can be read")
}

// checkClockSync asks the kernel whether something keeps its clock right: adjtimex(2), STA_UNSYNC.
func checkClockSync(Config, *probes) Result {
	state, err := unix.Adjtimex(&unix.Timex{})
	if err != nil {
		return warn("the kernel does not say: "+err.Error(), "see that the clock is kept right")
	}
	const timeError = 5
	if state == timeError {
		return warn("the clock is not synchronised", "enable systemd-timesyncd or chrony; without a network, see that the clock is right")
	}
	return pass("the clock is synchronised")
}

func checkKernel(Config, *probes) Result {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return warn("the kernel does not say: "+err.Error(), "use Linux 5.13 or newer")
	}
	return judgeKernel(unix.ByteSliceToString(u.Release[:]))
}

// judgeKernel wants 5.13, what kube-proxy needs for nftables.
func judgeKernel(release string) Result {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return warn(release+" is not a version that can be read", "use Linux 5.13 or newer")
	}
	if major < 5 || major == 5 && minor < 13 {
		return fail("Linux "+release+" is too old for nftables in kube-proxy", "use Linux 5.13 or newer")
	}
	return pass("Linux " + release)
}

func checkCapabilities(Config, *probes) Result {
	data, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(data)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			if err == nil {
				return judgeCapabilities(mask)
			}
		}
	}
	return warn("the kernel does not say", "run kedge as root, outside an unprivileged container")
}

// judgeCapabilities wants what container runtimes need; without CAP_SYS_RESOURCE kedge works with a limit.
func judgeCapabilities(mask uint64) Result {
	var missing []string
	for _, c := range []struct {
		name string
		bit  int
	}{
		{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}, {"CAP_NET_RAW", unix.CAP_NET_RAW},
		{"CAP_CHOWN", unix.CAP_CHOWN}, {"CAP_DAC_OVERRIDE", unix.CAP_DAC_OVERRIDE}, {"CAP_FOWNER", unix.CAP_FOWNER},
		{"CAP_KILL", unix.CAP_KILL}, {"CAP_MKNOD", unix.CAP_MKNOD}, {"CAP_SETUID", unix.CAP_SETUID},
		{"CAP_SETGID", unix.CAP_SETGID}, {"CAP_SETPCAP", unix.CAP_SETPCAP}, {"CAP_SYS_CHROOT", unix.CAP_SYS_CHROOT},
		{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE},
	} {
		if mask&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return fail("missing "+strings.Join(missing, ", "), "run kedge as root, outside an unprivileged container")
	}
	if mask&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		return warn("missing CAP_SYS_RESOURCE: the OOM score of important pods cannot be lowered", "give kedge CAP_SYS_RESOURCE")
	}
	return pass("all that are needed")
}

func checkSeccomp(Config, *probes) Result {
	if _, err := os.Stat("/proc/sys/kernel/seccomp/actions_avail"); err != nil {
		return fail("the kernel has no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER")
	}
	return pass("present")
}

// checkSysctl looks whether the settings that kedge makes at start can be made: forwarding, bridge filtering.
func checkSysctl(Config, *probes) Result {
	if err := unix.Access("/proc/sys/net/ipv4/ip_forward", unix.W_OK); err != nil {
		return fail("/proc/sys cannot be written: "+err.Error(), "run kedge in a privileged container, or outside one")
	}
	return pass("/proc/sys can be written")
}

func checkKernelLog(Config, *probes) Result {
	f, err := os.Open("/dev/kmsg")
	if err != nil {
		return fail("the kubelet cannot read "+err.Error(), "give the container the device /dev/kmsg")
	}
	_ = f.Close() // opened for reading only
	return pass("/dev/kmsg can be read")
}

func checkInotify(Config, *probes) Result {
	return judgeInotify(readNumber("/proc/sys/fs/inotify/max_user_instances"), readNumber("/proc/sys/fs/inotify/max_user_watches"))
}

func judgeInotify(instances, watches int) Result {
	detail := fmt.Sprintf("%d instances, %d watches", instances, watches)
	if instances < 256 || watches < 16384 {
		return warn(detail+": programs in many pods that follow files will fail",
			"sysctl -w fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=524288, and the same in /etc/sysctl.d")
	}
	return pass(detail)
}

func checkOpenFiles(Config, *probes) Result {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return warn("the kernel does not say: "+err.Error(), "allow 65536 open files")
	}
	if l.Max < 65536 {
		return warn(fmt.Sprintf("at most %d", l.Max), "raise the limit: LimitNOFILE=1048576 in the unit, or ulimit -Hn")
	}
	return pass(fmt.Sprintf("at most %d", l.Max))
}

func checkMemory(Config, *probes) Result {
	info := meminfo()
	return judgeMemory(info["MemTotal"], info["MemAvailable"])
}

// judgeMemory takes KiB.
func judgeMemory(total, available int) Result {
	detail := fmt.Sprintf("%d MiB, %d MiB available", total/1024, available/1024)
	if total < 900*1024 {
		return warn(detail+": little room for pods", "use a machine with 1 GiB or more")
	}
	return pass(detail)
}

func checkSwap(Config, *probes) Result {
	if total := meminfo()["SwapTotal"]; total > 0 {
		return pass(fmt.Sprintf("on, %d MiB; pods do not use it", total/1024))
	}
	return pass("off")
}

// meminfo reads /proc/meminfo; values are in KiB.
func meminfo() map[string]int {
	data, _ := os.ReadFile("/proc/meminfo")
	info := map[string]int{}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		if f := strings.Fields(rest); len(f) > 0 {
			info[name], _ = strconv.Atoi(f[0]) // 0 when it is not a number
		}
	}
	return info
}

// readNumber is 0 when the file cannot be read.
func readNumber(file string) int {
	data, _ := os.ReadFile(file)
	n, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return n
}
