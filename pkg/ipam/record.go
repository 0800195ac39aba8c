package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// entry is what the name of a record's file says. It is complete: a file with
// damaged contents still blocks its addresses and still has its owner.
type entry struct {
	// owner is the owner's id with its prefix.
	owner string
	// iface is the interface inside the sandbox.
	iface string
	addrs []netip.Addr
}

// contents is what the file of a record says besides.
type contents struct {
	Namespace string    `json:"namespace,omitempty"`
	Name      string    `json:"name,omitempty"`
	Sandboxes []Sandbox `json:"sandboxes"`
}

// maxContents bounds the size of a record's file in bytes.
const maxContents = 64 << 10

// name is the entry as a file name: owner@interface@address+address.
func (e entry) name() string {
	addrs := make([]string, len(e.addrs))
	for i, a := range e.addrs {
		addrs[i] = a.String()
	}
	return e.owner + "@" + e.iface + "@" + strings.Join(addrs, "+")
}

// parseEntry reads a file name that name made.
func parseEntry(name string) (entry, error) {
	owner, rest, ok := strings.Cut(name, "@")
	split := strings.LastIndex(rest, "@")
	if !ok || split < 0 {
		return entry{}, fmt.Errorf("file name %q is not owner@interface@addresses", name)
	}
	_, id, ok := cutOwner(owner)
	if !ok || !validID(id) {
		return entry{}, fmt.Errorf("file name %q has no valid owner", name)
	}
	e := entry{owner: owner, iface: rest[:split]}
	if err := checkInterface(e.iface); err != nil {
		return entry{}, fmt.Errorf("file name %q: %w", name, err)
	}
	for text := range strings.SplitSeq(rest[split+1:], "+") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return entry{}, fmt.Errorf("file name %q has the bad address %q", name, text)
		}
		e.addrs = append(e.addrs, a)
	}
	return e, nil
}

func cutOwner(owner string) (prefix, id string, ok bool) {
	for _, prefix := range []string{podPrefix, containerPrefix} {
		if id, ok := strings.CutPrefix(owner, prefix); ok {
			return prefix, id, true
		}
	}
	return "", "", false
}

// podUID is the UID of the pod that owns the entry, or "" for a container.
func (e entry) podUID() string {
	uid, ok := strings.CutPrefix(e.owner, podPrefix)
	if !ok {
		return ""
	}
	return uid
}

// checkInterface allows what the kernel allows as a name (dev_valid_name in
// net/core/dev.c), less the slash that would leave the directory.
func checkInterface(name string) error {
	if name == "" || len(name) > 15 || strings.ContainsAny(name, "/ \t\n\x00") {
		return fmt.Errorf("interface name %q is not valid", name)
	}
	return nil
}

// parseContents reads a record's file. It accepts only what it would write.
func parseContents(data []byte) (contents, error) {
	if len(data) > maxContents {
		return contents{}, fmt.Errorf("record has %d bytes, more than %d", len(data), maxContents)
	}
	var c contents
	if err := json.Unmarshal(data, &c); err != nil {
		return contents{}, fmt.Errorf("decode record: %w", err)
	}
	return c, nil
}

// readContents reads a record's file. Damage (a power cut on a file system that
// does not order writes) costs the names and sandboxes, never the addresses.
func readContents(path string) (contents, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return contents{}, fmt.Errorf("read record: %w", err)
	}
	c, err := parseContents(data)
	if err != nil {
		return contents{}, nil
	}
	return c, nil
}

// alive says whether any sandbox that was given the address still exists.
func (c contents) alive() bool {
	for _, s := range c.Sandboxes {
		if namespaceAlive(s.Netns) {
			return true
		}
	}
	return false
}

// namespaceAlive says whether there is a namespace at a path. After a reboot, or
// when the runtime has removed the sandbox, there is none. When in doubt it is
// alive.
func namespaceAlive(path string) bool {
	if path == "" {
		return false
	}
	var st unix.Statfs_t
	for {
		switch err := unix.Statfs(path, &st); {
		case err == unix.EINTR:
			continue
		case errors.Is(err, fs.ErrNotExist), err == unix.ENOTDIR:
			return false
		case err != nil:
			return true
		}
		return int64(st.Type) == unix.NSFS_MAGIC
	}
}

// withSandbox is the contents with the living sandboxes and s, and whether that
// differs from before.
func (c contents) withSandbox(s Sandbox) (contents, bool) {
	for _, old := range c.Sandboxes {
		if old == s {
			return c, false
		}
	}
	kept := []Sandbox{s}
	for _, old := range c.Sandboxes {
		if old.ID != s.ID && namespaceAlive(old.Netns) {
			kept = append(kept, old)
		}
	}
	c.Sandboxes = kept
	return c, true
}
