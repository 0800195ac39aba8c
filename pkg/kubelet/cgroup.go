package kubelet

import (
	"os"

	"golang.org/x/sys/unix"
)

// CgroupV2 reports whether this host has the unified cgroup hierarchy.
func CgroupV2() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// SystemdCgroup reports whether pod cgroups should be made through systemd: it runs this host
// and owns a unified hierarchy. Elsewhere they are plain directories.
func SystemdCgroup() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil && CgroupV2()
}
