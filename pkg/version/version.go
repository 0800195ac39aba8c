// Package version holds the version that the build stamps into kedge. It is a
// leaf: everyone may import it, it imports nothing of kedge.
package version

// Version is the release, for example "v1.36.4+kedge1"; set by -ldflags.
var Version = "dev"

// GitCommit is the commit the binary was built from; set by -ldflags.
var GitCommit = "dev"

// String is the version and the commit in one line.
func String() string { return Version + " (" + GitCommit + ")" }
