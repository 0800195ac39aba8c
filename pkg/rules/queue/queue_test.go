package queue

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kedge-io/kedge/pkg/rules/wire"
)

func open(t *testing.T, path string, most int64) *Queue {
	t.Helper()
	q, err := Open(Config{Path: path, Most: most, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

func add(t *testing.T, q *Queue, body string, rules ...string) (dropped int) {
	t.Helper()
	dropped, err := q.Append(rules, wire.Message{Time: 1, Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	return dropped
}

func bodies(t *testing.T, q *Queue, rule string) (text string, entries []Entry, lost int64) {
	t.Helper()
	entries, lost, err := q.Oldest(rule)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, string(e.Message.Body))
	}
	return strings.Join(out, " "), entries, lost
}

func TestOrderSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "messages.db")
	q := open(t, path, 1<<20)
	if _, err := os.Stat(path); err == nil {
		t.Error("a file without messages")
	}
	for i := range 12 {
		add(t, q, fmt.Sprint(i), "a/a")
	}
	add(t, q, "both", "a/a", "a/b")
	_, entries, _ := bodies(t, q, "a/a")
	if err := q.Remove("a/a", entries[:2], 0); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, path, 1<<20)
	got, again, _ := bodies(t, q, "a/a")
	if got != "2 3 4 5 6 7 8 9 10 11 both" || q.Waiting("a/a") != 11 {
		t.Errorf("%s, %d", got, q.Waiting("a/a"))
	}
	if again[0].Message.ID == "" || again[0].Message.ID != entries[2].Message.ID {
		t.Errorf("the id of a message changes: %q, %q", entries[2].Message.ID, again[0].Message.ID)
	}
	add(t, q, "later", "a/a")
	if got, _, _ := bodies(t, q, "a/a"); !strings.HasSuffix(got, "both later") {
		t.Error(got)
	}
	if n, err := q.Forget("a/a"); err != nil || n != 12 {
		t.Error(n, err)
	}
	if fmt.Sprint(q.Rules()) != "[a/b]" {
		t.Error(q.Rules())
	}
}

func TestTheOldestGoAndAreCounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages.db")
	q := open(t, path, 2000)
	add(t, q, "quiet", "a/quiet")
	dropped := 0
	for i := range 100 {
		dropped += add(t, q, fmt.Sprint(i), "a/loud")
	}
	if q.bytes > 2000 || dropped < 50 {
		t.Errorf("%d bytes wait, %d were dropped", q.bytes, dropped)
	}
	got, entries, lost := bodies(t, q, "a/loud")
	if !strings.HasSuffix(got, " 98 99") || lost+int64(len(entries)) != 100 || lost+1 != int64(dropped) {
		t.Errorf("%s, %d lost of %d", got, lost, dropped)
	}
	_, _, lostQuiet := bodies(t, q, "a/quiet")
	if lostQuiet != 1 || q.Waiting("a/quiet") != 0 {
		t.Errorf("%d lost", lostQuiet)
	}
	if err := q.Remove("a/loud", entries, lost); err != nil {
		t.Fatal(err)
	}
	if got, _, lost := bodies(t, q, "a/loud"); got != "" || lost != 0 || q.bytes != 0 {
		t.Errorf("%s, %d lost, %d bytes", got, lost, q.bytes)
	}
}

func TestBatchesAreBounded(t *testing.T) {
	q := open(t, filepath.Join(t.TempDir(), "messages.db"), 64<<20)
	large := strings.Repeat("x", wire.MaxMessage*2/3)
	for range 3 {
		add(t, q, large, "a/a")
	}
	if _, entries, _ := bodies(t, q, "a/a"); len(entries) != 1 {
		t.Errorf("%d large messages travel together", len(entries))
	}
}

func TestDamageIsSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	q := open(t, path, 1<<20)
	add(t, q, "1", "a/a")
	if kept, _ := filepath.Glob(path + ".damaged-*"); len(kept) != 1 {
		t.Error(kept)
	}
}
