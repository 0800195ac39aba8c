package check

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func checkCgroups(Config, *probes) Result { return judgeCgroups(readCgroups("/sys/fs/cgroup")) }

// cgroups is what a machine has: version 2, 1, or 0 for none, and the controllers.
type cgroups struct {
	version     int
	controllers []string
}

// readCgroups looks at the cgroup file system mounted at root.
func readCgroups(root string) cgroups {
	if data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers")); err == nil {
		return cgroups{2, strings.Fields(string(data))}
	}
	c := cgroups{version: 1}
	for _, name := range []string{"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "devices", "freezer"} {
		if _, err := os.Stat(filepath.Join(root, name, "cgroup.procs")); err == nil {
			c.controllers = append(c.controllers, name)
		}
	}
	if len(c.controllers) == 0 {
		c.version = 0
	}
	return c
}

func judgeCgroups(c cgroups) Result {
	if c.version == 0 {
		return fail("no cgroups are mounted on /sys/fs/cgroup", "mount cgroup2 there, as systemd does")
	}
	for _, need := range []string{"cpu", "cpuset", "memory", "pids"} {
		if slices.Contains(c.controllers, need) {
			continue
		}
		fix := "use a kernel with it, and enable it"
		if need == "memory" {
			fix = "add cgroup_enable=memory to the kernel's command line and reboot"
		}
		return fail("the controller "+need+" is missing", fix)
	}
	if c.version == 1 {
		return warn("version 1, which Kubernetes will drop", "boot with systemd.unified_cgroup_hierarchy=1, or use a newer distribution")
	}
	return pass("version 2 with " + strings.Join(c.controllers, ", "))
}
