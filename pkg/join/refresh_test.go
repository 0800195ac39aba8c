package join_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestSettingsAreReadAgain starts a node without its server, and lets that come back with other settings.
func TestSettingsAreReadAgain(t *testing.T) {
	s := newSite(t)
	m := s.machine("a", s.token("agent-token"))
	m.mustStart()
	kept := func() string {
		data, err := os.ReadFile(filepath.Join(m.dir, "agent", "cluster.json"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	var away atomic.Bool
	away.Store(true)
	s.before = func(w http.ResponseWriter, _ *http.Request) bool {
		if away.Load() {
			http.Error(w, "away", http.StatusBadGateway)
		}
		return away.Load()
	}
	c := m.client()
	if _, err := c.Settings(t.Context()); err != nil || !c.Alone() {
		t.Fatalf("alone %v, %v", c.Alone(), err)
	}
	away.Store(false)
	if err := os.WriteFile(filepath.Join(m.dir, "agent", "cluster.json"), []byte(`{"Domain":"of.before"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.Refresh(ctx) }()
	for !strings.Contains(m.log.String(), "settings changed while this node was cut off") && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	if !strings.Contains(kept(), "cluster.local") {
		t.Errorf("kept: %s, log %s", kept(), m.log.String())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
