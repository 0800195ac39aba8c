// Package critest runs critest, the conformance suite for container runtimes, against the containerd of a built kedge on a machine of the
// lab. It is for tests only; nothing imports it.
//
// The suite is built from the version in scripts/versions.env. It pulls its images under their public names; a registry in the machine, which
// registries.yaml makes the mirror of all others, has images of our own under these names. What may fail or be skipped, and why, is in
// testdata/expected.txt.
package critest
