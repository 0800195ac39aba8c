// Package kubernetes runs conformance specs of sig-network and sig-node of the upstream end-to-end tests against a server and an agent
// in the lab. It is for tests only; nothing imports it.
//
// The suite is built from the version of Kubernetes in go.mod. Its images are made here under their public names: agnhost from its own source,
// the rest from Debian's programs. What may fail or be skipped, and why, is in testdata/expected.txt.
package kubernetes
