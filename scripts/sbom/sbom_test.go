package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

// TestInventory lists what is in the payload that was built for this machine, with this test as the program.
func TestInventory(t *testing.T) {
	payload := filepath.Join("..", "..", "build", "payload", runtime.GOARCH)
	if _, err := os.Stat(payload); err != nil {
		t.Skip("needs scripts/build-payload.sh: ", err)
	}
	pinned, err := pinnedModules("../versions.env")
	if err != nil {
		t.Fatal(err)
	}
	parts, err := inventory(os.Args[0], payload, pinned)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"github.com/opencontainers/runc", "github.com/containernetworking/plugins", "nftables", "libc6", "libseccomp-dev", "go"} {
		at := slices.IndexFunc(parts, func(p part) bool { return p.name == want })
		if at < 0 || parts[at].version == "" {
			t.Errorf("%s is not listed with a version", want)
		}
	}
	sum, err := fileSum(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	first, err := document("kedge-test", "v1", "2026-01-02T03:04:05Z", sum, parts)
	if err != nil {
		t.Fatal(err)
	}
	second, err := document("kedge-test", "v1", "2026-01-02T03:04:05Z", sum, parts)
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("the same parts give other bytes: %v", err)
	}
	var d spdx
	if err := json.Unmarshal(first, &d); err != nil || len(d.Packages) != len(parts)+1 || len(d.Relationships) != len(parts)+1 {
		t.Errorf("%d packages and %d relationships for %d parts: %v", len(d.Packages), len(d.Relationships), len(parts), err)
	}
	ids := map[string]bool{}
	for _, p := range d.Packages {
		if ids[p.ID] || p.Version == "" {
			t.Errorf("package %s has the identity %s of another one, or no version", p.Name, p.ID)
		}
		ids[p.ID] = true
	}
}
