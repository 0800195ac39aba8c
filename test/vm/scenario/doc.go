// Package scenario holds the VM scenarios: what kedge must show on a real Debian machine with systemd and cgroup v2. It has
// tests only; nothing imports it.
package scenario
