// Package install holds the tests of install.sh and of releases: what can be shown without booting a machine. The installation on real machines
// is test/vm/scenario. It has tests only; nothing imports it.
package install
