// Package version says which kedge this is. The build stamps it with
// -ldflags "-X github.com/kedge-io/kedge/pkg/version.version=v0.1.0" and likewise commit and date (RFC 3339, of the commit).
// It is a leaf: everything may import it.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// Written by the linker only; a build without stamps is a development build.
var version, commit, date = "dev", "", ""

// Info describes a build.
type Info struct {
	Version string `json:"version"`
	// Commit is the source's commit, empty when not stamped.
	Commit string `json:"commit,omitempty"`
	// Date is when the commit was made, zero when not stamped.
	Date       time.Time `json:"date,omitzero"`
	Kubernetes string    `json:"kubernetes,omitempty"`
	Containerd string    `json:"containerd,omitempty"`
	Go         string    `json:"go"`
	Platform   string    `json:"platform"`
}

// Get returns what was stamped, and the versions of the parts that are linked in.
func Get() Info {
	info := Info{Version: version, Commit: commit, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if t, err := time.Parse(time.RFC3339, date); err == nil {
		info.Date = t
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, m := range build.Deps {
			switch m.Path {
			case "k8s.io/kubernetes":
				info.Kubernetes = m.Version
			case "github.com/containerd/containerd/v2":
				info.Containerd = m.Version
			}
		}
	}
	return info
}

// Release is major.minor.patch of a version; what follows them is of no weight for what kedge decides.
type Release struct{ Major, Minor, Patch int }

// ParseRelease reads v1.2.3, also without v and with -rc1 or +build behind it. A development build is no release.
func ParseRelease(s string) (Release, error) {
	numbers, _, _ := strings.Cut(strings.TrimPrefix(s, "v"), "+")
	numbers, _, _ = strings.Cut(numbers, "-")
	parts := strings.Split(numbers, ".")
	if len(parts) != 3 {
		return Release{}, fmt.Errorf("%q is not a version of the form v1.2.3", s)
	}
	var n [3]int
	for i, p := range parts {
		v, err := strconv.Atoi(p)
		if err != nil || v < 0 {
			return Release{}, fmt.Errorf("%q is not a version of the form v1.2.3", s)
		}
		n[i] = v
	}
	return Release{n[0], n[1], n[2]}, nil
}

// NewerMinor reports whether r has a greater major or minor number than other.
func (r Release) NewerMinor(other Release) bool {
	return r.Major > other.Major || r.Major == other.Major && r.Minor > other.Minor
}
