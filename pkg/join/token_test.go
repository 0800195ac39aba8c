package join_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/join"
)

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func (s *site) identities() join.Identities { return join.Identities{Secrets: s.secrets} }

func TestTokenForms(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	for _, tc := range []struct {
		text string
		want join.Token
	}{
		{"secret", join.Token{Secret: "secret"}},
		{"K10" + hash + "::server:se:cret", join.Token{CAHash: hash, User: "server", Secret: "se:cret"}},
		{"K10" + hash + "::node:x", join.Token{CAHash: hash, User: "node", Secret: "x"}},
		{"abc123.0123456789abcdef", join.Token{BootstrapID: "abc123", Secret: "0123456789abcdef"}},
		{"K10" + hash + "::abc123.0123456789abcdef", join.Token{CAHash: hash, BootstrapID: "abc123", Secret: "0123456789abcdef"}},
	} {
		got, err := join.ParseToken(tc.text + "\n")
		if err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v", tc.text, got, err)
		}
		if got.String() != tc.text {
			t.Errorf("%s became %s", tc.text, got)
		}
	}
}

func TestTokenFiles(t *testing.T) {
	s := newSite(t)
	first := s.token("token")
	if s.token("node-token") != first || s.token("agent-token") == first || !strings.HasPrefix(first, "K10"+join.HashCA(s.ca)+"::server:") {
		t.Errorf("token %s, agent-token %s", first, s.token("agent-token"))
	}
	if err := s.files().Ensure(s.ca, "", ""); err != nil || s.token("token") != first {
		t.Errorf("a second start changed the token: %v", err)
	}
	if err := s.files().Ensure(s.ca, "chosen", "K10"+strings.Repeat("a", 64)+"::node:other"); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(s.token("node-token"), "::server:chosen") || !strings.HasSuffix(s.token("agent-token"), "::node:other") {
		t.Error(s.token("node-token"), s.token("agent-token"))
	}
	if err := s.files().Ensure(s.ca, "abc123.0123456789abcdef", ""); err == nil {
		t.Error("a static token in the form of a bootstrap token was taken")
	}
	for _, name := range []string{"token", "agent-token"} {
		if info, err := os.Stat(s.dir + "/server/" + name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestRotatedTokenCountsAtOnce(t *testing.T) {
	s := newSite(t)
	old := s.token("agent-token")
	s.machine("a", old).mustStart()
	rotated, err := s.files().Rotate(true, "")
	if err != nil || rotated.String() == old || rotated.String() != s.token("agent-token") {
		t.Fatalf("%s, %v", rotated, err)
	}
	wantIn(t, s.machine("b", old).refused(), "refuses the token")
	s.machine("b", rotated.String()).mustStart()
	if _, err := join.NewTokenFiles(t.TempDir()).Rotate(false, ""); err == nil {
		t.Error("a token was rotated where no server has been")
	}
}

func TestBootstrapTokens(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	long, err := s.bootstrap().Create(ctx, 0, "for ever")
	if err != nil {
		t.Fatal(err)
	}
	short, err := s.bootstrap().Create(ctx, time.Hour, "")
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.bootstrap().List(ctx)
	if err != nil || len(list) != 2 || list[0].ID != short.ID || list[1].ID != long.ID || list[0].Secret != "" || list[1].Description != "for ever" {
		t.Errorf("%+v, %v", list, err)
	}
	if err := s.bootstrap().Delete(ctx, short.ID+"."+short.Secret); err != nil {
		t.Error(err)
	}
	if err := s.bootstrap().Delete(ctx, short.ID); err == nil {
		t.Error("deleted twice")
	}
	if _, err := s.bootstrap().Create(ctx, -1, ""); err == nil {
		t.Error("a token with a negative life was made")
	}
}
