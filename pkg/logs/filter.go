package logs

import (
	"bytes"
	"io"
)

// filter passes on Kubernetes' warnings and errors, except those that every healthy start prints;
// with all it passes on everything.
type filter struct {
	out io.Writer
	all bool
}

// Write implements io.Writer; klog hands over one whole line a call, its severity as the first letter.
func (f filter) Write(line []byte) (int, error) {
	if f.all {
		return f.out.Write(line)
	}
	if len(line) > 0 && line[0] == 'I' {
		return len(line), nil
	}
	for _, known := range harmless() {
		if bytes.Contains(line, []byte(known)) {
			return len(line), nil
		}
	}
	return f.out.Write(line)
}

// harmless lists parts of lines that upstream writes as warnings or errors during every good start
// or stop, each because of an order that settles by itself within a second.
func harmless() []string {
	return []string{
		"The manifest file is empty, ignoring", // egress selector and authorization files that are not given
		"because it has no resources",          // API versions without resources in this release
		"] [core] [Channel",                    // gRPC reconnecting; the part that needs the connection says so itself
		"Resetting endpoints for master service",
		`err="namespaces \"kube-system\" not found"`,   // the API server asks before it has made it
		"Error updating node status, will retry",       // the kubelet has not registered yet
		"failed to read memory cgroup",                 // a pod that is being made or removed; with version 1
		"read version",                                 // a controller's cache is a moment behind
		"Terminating all watchers from cacher",         // stopping
		"Failed to shutdown server",                    // stopping: watches that nobody closes any more
		"Found stale data, removed previous endpoints", // one API server, started again
		"nodes have not yet been registered",           // scheduler before the first node
		"Image garbage collection failed once",         // statistics are not there yet
		"Failed to set rlimit on max file handles",     // needs CAP_SYS_RESOURCE; check-config says so
		"Unable to register mirror pod because node is not registered yet",
		"Error getting the current node from lister", // the kubelet has not registered yet
		"Failed to get node when trying to set owner ref to the node lease",
		"container runtime status check may not have completed yet",
		"failed to check if we have separate container filesystem", // the kubelet asks before it knows its node
		"Eviction manager: failed to get summary stats",
		"Failed to initialize CSINode",
		"node updates may not change podCIDR", // the controller-manager gives a new node addresses twice, and the first ones stay
		"Failed to update lease",              // the server renewed it meanwhile; a failure that lasts has a line of its own
		"failed to recreate vxlan",            // it is made anew in another way
		"failed to get network config",        // the same
		"vxlan device is nil",                 // a cluster without IPv4
		"Failed to list existing nftables objects",
		"broadcaster already stopped", // stopping
		"PLEG is not healthy: pleg has yet to be successful",
		"Error on socket receive",                              // exec, cp and port-forward that ended
		"checkpoint is not found",                              // first start
		"Failed to ensure process in container with oom score", // process namespaces that hide init
	}
}
