package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/join"
	"github.com/kedge-io/kedge/test/golden"
)

func TestRotateToken(t *testing.T) {
	cfg := config.Server{Agent: config.Agent{DataDir: t.TempDir()}}
	files := join.NewTokenFiles(cfg.DataDir)
	if err := files.Ensure([]byte("authority"), "", ""); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(cfg.DataDir, "server", "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	p := &program{out: &out}
	if err := p.rotateToken(t.Context(), cfg, true, "changed"); err != nil {
		t.Fatal(err)
	}
	stored, err := os.ReadFile(filepath.Join(cfg.DataDir, "server", "agent-token"))
	if err != nil || string(stored) != out.String() || !strings.HasSuffix(out.String(), "::node:changed\n") {
		t.Errorf("printed %q, stored %q, %v", out.String(), stored, err)
	}
	cfg.Token = "set"
	if err := p.rotateToken(t.Context(), cfg, false, ""); err == nil || !strings.Contains(err.Error(), "change it there") {
		t.Error(err)
	}
	cfg = config.Server{Agent: config.Agent{DataDir: t.TempDir()}}
	if err := p.rotateToken(t.Context(), cfg, false, ""); err == nil || !strings.Contains(err.Error(), "no server has run here") {
		t.Error(err)
	}
}

func TestTokenCommandsNeedAServer(t *testing.T) {
	t.Setenv("KEDGE_DATA_DIR", t.TempDir())
	for _, args := range [][]string{{"token", "create"}, {"token", "list"}, {"token", "delete", "abcdef"}, {"node", "readopt", "n1"}} {
		if _, err := run(t, args...); err == nil || !strings.Contains(err.Error(), "run this command on a server") {
			t.Errorf("%v: %v", args, err)
		}
	}
	for args, want := range map[string]string{
		"token crate":          "unknown command \"crate\", did you mean create?",
		"token delete":         "give the ID of a token",
		"node readopt":         "give the name of one node",
		"token list -o yaml":   "neither table nor json",
		"token create --tl 1h": "unknown flag --tl: did you mean --ttl?",
	} {
		if _, err := run(t, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
	for _, args := range [][]string{{"token"}, {"token", "--help"}, {"token", "rotate", "--help"}} {
		if out, err := run(t, args...); err != nil || !strings.Contains(out, "rotate [--agent]") {
			t.Errorf("%v: %q, %v", args, out, err)
		}
	}
}

func TestPrintTokens(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	var b bytes.Buffer
	if err := printTokens(&b, []join.BootstrapToken{
		{ID: "abcdef", Description: "for the shop", Expires: now.Add(90 * time.Minute)},
		{ID: "012345", Expires: now.Add(-time.Minute)}, {ID: "zzzzzz"},
	}, now); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "tokens.txt", b.String())
}

func TestNodeIDIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "node-id")
	first, err := nodeID(path)
	if err != nil || len(first) != 8 {
		t.Fatal(first, err)
	}
	if again, err := nodeID(path); err != nil || again != first {
		t.Error(again, err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := nodeID(path); err == nil {
		t.Error("a damaged id was taken")
	}
}
