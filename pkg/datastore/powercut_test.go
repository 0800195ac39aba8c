package datastore_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kedge-io/kedge/pkg/datastore/mvcc"
)

var powerCuts = flag.Int("power-cuts", 60, "how many power cuts TestPowerCut simulates")

// TestPowerCut records every write and sync of a datastore under load, and then cuts the power at random
// points: what was not synced is kept, lost or torn at random, in any order. Each disk that results must
// open and have every write that was acknowledged before the cut.
func TestPowerCut(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace to record what the datastore does to the disk")
	}
	dir, trace := filepath.Join(socketDir(t), "d"), filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-f", "-qq", "-xx", "-s", "5000000", "-o", trace,
		"-e", "trace=open,openat,unlink,pwrite64,write,fdatasync,fsync,ftruncate,close", os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashWrites+"=150")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("cannot trace here: %v\n%.2000s", err, out)
	}
	disk := newDisk(dir)
	steps := disk.read(t, trace)
	if disk.syncs < 20 || disk.acks < 200 {
		t.Fatalf("the trace has only %d syncs and %d acknowledged writes in %d steps", disk.syncs, disk.acks, len(steps))
	}
	cuts := map[int]int{}
	for range *powerCuts {
		cuts[rand.IntN(len(steps))]++
	}
	keys := map[string]known{}
	var revision int64
	for i, s := range steps {
		if s.said != "" {
			revision = max(revision, learn(t, keys, s.said))
		} else {
			disk.apply(s)
		}
		for range cuts[i] {
			image := filepath.Join(t.TempDir(), "image")
			disk.image(t, image)
			checkImage(t, image, maps.Clone(keys), revision)
			if err := os.RemoveAll(image); err != nil { // hundreds of them would fill the disk
				t.Fatal(err)
			}
		}
		if t.Failed() {
			t.Fatalf("power cut at step %d of %d", i, len(steps))
		}
	}
	t.Logf("%d power cuts in %d steps with %d syncs and %d acknowledged writes", *powerCuts, len(steps), disk.syncs, disk.acks)
}

// checkImage opens a disk and compares it with what was acknowledged.
func checkImage(t *testing.T, dir string, keys map[string]known, revision int64) {
	t.Helper()
	store, err := mvcc.Open(mvcc.Config{Path: filepath.Join(dir, "state.db"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Errorf("open: %v", err)
		return
	}
	kvs, page, err := store.Range("/crash/", "/crash0", 0, 0, true)
	if err != nil {
		t.Errorf("read: %v", err)
	}
	if page.Rev < revision {
		t.Errorf("revision %d, but %d was acknowledged", page.Rev, revision)
	}
	found := map[string]string{}
	for _, kv := range kvs {
		found[string(kv.Key)], _, _ = strings.Cut(string(kv.Value), " ")
	}
	for key, k := range keys {
		got := found[key]
		if got == "" {
			got = "0"
		}
		if got != k.tried && got != k.acknowledged && !(got == "0" && k.acknowledged == "") {
			t.Errorf("%s is %s: acknowledged %q, tried %q", key, got, k.acknowledged, k.tried)
		}
	}
	if err := store.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// step is one thing the traced process did to a file, or said.
type step struct {
	file            string // base name
	sync            bool
	size            int64 // of a truncation, if data is nil and it is no sync
	at              int64
	data            []byte
	said            string
	opened, removed bool
}

// disk is a model of a disk that keeps what was synced and anything of what was not.
type disk struct {
	dir         string
	durable     map[string][]byte
	volatile    map[string][]step
	syncs, acks int
}

func newDisk(dir string) *disk {
	return &disk{dir: dir, durable: map[string][]byte{}, volatile: map[string][]step{}}
}

func (d *disk) apply(s step) {
	switch {
	case s.removed:
		delete(d.durable, s.file)
		delete(d.volatile, s.file)
	case s.opened:
		if _, ok := d.durable[s.file]; !ok {
			d.durable[s.file] = nil
		}
	case s.sync:
		for _, v := range d.volatile[s.file] {
			d.durable[s.file] = change(d.durable[s.file], v)
		}
		delete(d.volatile, s.file)
	default:
		d.volatile[s.file] = append(d.volatile[s.file], s)
	}
}

// change applies a write or truncation to a file's content, in place where it can.
func change(content []byte, s step) []byte {
	if s.data == nil {
		return resize(content, int(s.size))
	}
	if end := int(s.at) + len(s.data); end > len(content) {
		content = resize(content, end)
	}
	copy(content[s.at:], s.data)
	return content
}

func resize(content []byte, size int) []byte {
	if size <= len(content) {
		return content[:size]
	}
	return append(content, make([]byte, size-len(content))...)
}

const sector = 512

// image makes a directory with what a power cut now would leave.
func (d *disk) image(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	keep := []float64{0, 0.1, 0.5, 0.9, 1}[rand.IntN(5)]
	for file, content := range d.durable {
		content = bytes.Clone(content)
		for _, s := range d.volatile[file] {
			if rand.Float64() >= keep {
				continue
			}
			if s.data == nil || rand.IntN(3) > 0 {
				content = change(content, s)
				continue
			}
			for at := 0; at < len(s.data); at += sector { // torn
				if rand.IntN(2) == 0 {
					content = change(content, step{at: s.at + int64(at), data: s.data[at:min(at+sector, len(s.data))]})
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

var (
	callLine    = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumedLine = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
	result      = regexp.MustCompile(`= (-?\d+)[^"]*$`)
)

// read turns the trace into steps. A call that other threads interrupted counts from its end.
func (d *disk) read(t *testing.T, trace string) []step {
	t.Helper()
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var steps []step
	started, fds := map[string]string{}, map[string]string{}
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 64<<20)
	for scanner.Scan() {
		line := scanner.Text()
		var call, args string
		if m := callLine.FindStringSubmatch(line); m != nil {
			call, args = m[2], m[3]
			if head, ok := strings.CutSuffix(args, "<unfinished ...>"); ok {
				started[m[1]] = head
				continue
			}
		} else if m := resumedLine.FindStringSubmatch(line); m != nil {
			call, args = m[2], started[m[1]]+m[3]
		} else {
			continue
		}
		r := result.FindStringSubmatch(args)
		if r == nil || strings.HasPrefix(r[1], "-") {
			continue
		}
		steps = append(steps, d.steps(t, call, args, r[1], fds)...)
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	return steps
}

// steps reads one call; fds maps descriptors to the files of the database.
func (d *disk) steps(t *testing.T, call, args, result string, fds map[string]string) []step {
	t.Helper()
	fields := strings.SplitN(args, ", ", 3)
	fd := strings.TrimRight(strings.SplitN(fields[0], ")", 2)[0], " ")
	file := fds[fd]
	switch {
	case call == "open" || call == "openat" || call == "unlink":
		path := fields[0]
		if call == "openat" {
			path = fields[1]
		}
		name := d.database(string(unhex(t, path)))
		if call == "unlink" && name != "" {
			return []step{{file: name, removed: true}}
		}
		fds[result] = name
		if name != "" {
			return []step{{file: name, opened: true}}
		}
	case call == "close":
		delete(fds, fd)
	case call == "write" && fd == "1":
		var said []step
		for line := range strings.Lines(string(unhex(t, fields[1]))) {
			said = append(said, step{said: strings.TrimSpace(line)})
			if strings.HasPrefix(line, "ok ") {
				d.acks++
			}
		}
		return said
	case file == "":
	case call == "fdatasync" || call == "fsync":
		d.syncs++
		return []step{{file: file, sync: true}}
	case call == "ftruncate":
		return []step{{file: file, size: number(t, strings.SplitN(fields[1], ")", 2)[0])}}
	case call == "pwrite64":
		end := strings.LastIndex(fields[2], ")")
		tail := strings.SplitN(fields[2][:end], ", ", 2)
		return []step{{file: file, at: number(t, tail[1]), data: unhex(t, fields[1])}}
	case call == "write":
		t.Fatalf("a write without an offset: %.200s", args)
	}
	return nil
}

// database returns the base name of a file of the database, or "".
func (d *disk) database(path string) string {
	name := filepath.Base(path)
	if filepath.Dir(path) == d.dir && slices.Contains([]string{"state.db", "state.db-wal", "state.db-journal"}, name) {
		return name
	}
	return ""
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// unhex reads a string as strace -xx prints it.
func unhex(t *testing.T, s string) []byte {
	t.Helper()
	s = strings.TrimSpace(s)
	s = s[strings.Index(s, `"`)+1:]
	s, _, _ = strings.Cut(s, `"`)
	raw, err := hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
	if err != nil {
		t.Fatal(fmt.Errorf("trace: %w in %.80q", err, s))
	}
	return raw
}
