package store

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// shelf is what a test keeps in a store: values by bucket and key.
type shelf map[string]string

func (s shelf) put(e Entry) {
	switch {
	case e.Value != nil:
		s[e.Bucket+" "+e.Key] = string(e.Value)
	case e.Key != "":
		delete(s, e.Bucket+" "+e.Key)
	default:
		maps.DeleteFunc(s, func(k, _ string) bool { return strings.HasPrefix(k, e.Bucket+" ") })
	}
}

func (s shelf) all(yield func(Entry) bool) {
	for k, v := range s {
		bucket, key, _ := strings.Cut(k, " ")
		if !yield(Entry{Bucket: bucket, Key: key, Value: []byte(v)}) {
			return
		}
	}
}

func key(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func open(t *testing.T, path string, k []byte, log *bytes.Buffer) (*Store, shelf) {
	t.Helper()
	s := shelf{}
	st, err := Open(Config{Path: path, Key: k, Restore: s.put, Snapshot: s.all, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() }) // it may be closed already
	return st, s
}

func (s shelf) write(st *Store, e Entry) {
	s.put(e)
	st.Put(e)
}

func mustSync(t *testing.T, st *Store) {
	t.Helper()
	if err := st.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestStoreKeepsWhatWasWritten(t *testing.T) {
	path, log := filepath.Join(t.TempDir(), "db"), &bytes.Buffer{}
	st, s := open(t, path, key(1), log)
	for i := range 100 {
		s.write(st, Entry{Bucket: "a", Key: strconv.Itoa(i), Version: uint64(i), Value: []byte("secret value")})
		s.write(st, Entry{Bucket: "b", Key: strconv.Itoa(i), Value: []byte{}})
		mustSync(t, st)
	}
	s.write(st, Entry{Bucket: "a", Key: "7"})
	s.write(st, Entry{Bucket: "b"})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || bytes.Contains(data, []byte("secret")) {
		t.Errorf("the file can be read by anybody: %v", err)
	}
	if _, again := open(t, path, key(1), log); !maps.Equal(again, s) || len(again) != 99 {
		t.Errorf("%d values of %d came back", len(again), len(s))
	}
	if log.Len() > 0 {
		t.Errorf("log: %s", log)
	}
}

func TestFileIsRewrittenWhenOld(t *testing.T) {
	path, log := filepath.Join(t.TempDir(), "db"), &bytes.Buffer{}
	st, s := open(t, path, key(1), log)
	for i := range 2000 {
		s.write(st, Entry{Bucket: "a", Key: strconv.Itoa(i % 10), Value: bytes.Repeat([]byte{byte(i)}, 10000)})
		if i%10 == 0 {
			mustSync(t, st)
		}
	}
	mustSync(t, st)
	if info, err := os.Stat(path); err != nil || info.Size() > 3<<20 {
		t.Errorf("%v bytes, %v", info.Size(), err)
	}
	if _, again := open(t, path, key(1), log); !maps.Equal(again, s) {
		t.Error("values differ after rewriting")
	}
}

// TestTornEnd cuts a file at every place within its last records: all before the cut is found.
func TestTornEnd(t *testing.T) {
	path, log := filepath.Join(t.TempDir(), "db"), &bytes.Buffer{}
	st, s := open(t, path, key(1), log)
	mustSync(t, st)
	var sizes []int64
	for i := range 5 {
		s.write(st, Entry{Bucket: "a", Key: strconv.Itoa(i), Value: []byte("value")})
		mustSync(t, st)
		sizes = append(sizes, st.size)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for end := sizes[1]; end < sizes[4]; end++ {
		garbage := append(bytes.Clone(whole[:end]), make([]byte, end%3)...) // a page of zeros, sometimes
		if err := os.WriteFile(path, garbage, 0o600); err != nil {
			t.Fatal(err)
		}
		torn, found := open(t, path, key(1), log)
		want := 0
		for want < len(sizes) && sizes[want] <= end {
			want++
		}
		if len(found) != want {
			t.Fatalf("cut at %d: %d values, want %d", end, len(found), want)
		}
		found.write(torn, Entry{Bucket: "a", Key: "new", Value: []byte("new")})
		if err := torn.Close(); err != nil {
			t.Fatal(err)
		}
		if _, again := open(t, path, key(1), log); again["a new"] != "new" || len(again) != want+1 {
			t.Fatalf("cut at %d: after one more write %v", end, again)
		}
	}
	if log.Len() > 0 {
		t.Errorf("log: %s", log)
	}
}

func TestDamageIsSaid(t *testing.T) {
	path, log := filepath.Join(t.TempDir(), "db"), &bytes.Buffer{}
	st, s := open(t, path, key(1), log)
	for i := range 10 {
		s.write(st, Entry{Bucket: "a", Key: strconv.Itoa(i), Value: []byte("value")})
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	hurt, found := open(t, path, key(1), log)
	if len(found) != 9 || !hurt.Damaged() || !strings.Contains(log.String(), "damaged and is lost") {
		t.Errorf("%d values, log %s", len(found), log)
	}
	log.Reset()
	if err := hurt.Close(); err != nil {
		t.Fatal(err)
	}
	if mended, found := open(t, path, key(1), log); len(found) != 9 || mended.Damaged() || log.Len() > 0 {
		t.Errorf("after mending: %d values, log %s", len(found), log)
	}
}

func TestStoreOfAnotherNode(t *testing.T) {
	path, log := filepath.Join(t.TempDir(), "db"), &bytes.Buffer{}
	st, s := open(t, path, key(1), log)
	s.write(st, Entry{Bucket: "a", Key: "k", Value: []byte("v")})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	other, found := open(t, path, key(2), log)
	if len(found) != 0 || !strings.Contains(log.String(), "of another node") {
		t.Errorf("%v, log %s", found, log)
	}
	found.write(other, Entry{Bucket: "a", Key: "mine", Value: []byte("v")})
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if _, again := open(t, path, key(2), log); again["a mine"] != "v" || len(again) != 1 {
		t.Errorf("%v", again)
	}
}

// TestDiskFull fills a small file system: the store works on in memory, says so once, and catches up.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts a small file system: run as root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("no tmpfs here: %s", out)
	}
	t.Cleanup(func() { // after the stores in it are closed
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	path, log := filepath.Join(dir, "db"), &bytes.Buffer{}
	st, s := open(t, path, key(1), log)
	s.write(st, Entry{Bucket: "a", Key: "first", Value: []byte("v")})
	mustSync(t, st)
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 180<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		s.write(st, Entry{Bucket: "a", Key: "big" + strconv.Itoa(i), Value: make([]byte, 30<<10)})
		_ = st.Sync() // fails from the second or third on
	}
	if err := st.Sync(); err == nil || strings.Count(log.String(), "cannot be written") != 1 {
		t.Fatalf("a full disk: %v, log %s", err, log)
	}
	if _, found := open(t, path, key(1), &bytes.Buffer{}); found["a first"] != "v" {
		t.Errorf("what was written before is lost: %d values", len(found))
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	mustSync(t, st)
	if _, found := open(t, path, key(1), &bytes.Buffer{}); !maps.Equal(found, s) {
		t.Errorf("with space again: %d values of %d", len(found), len(s))
	}
}

// TestKill ends a writer without a warning, again and again: what it had synced is there, and nothing that it never wrote.
func TestKill(t *testing.T) {
	if path := os.Getenv("STORE_KILL_PATH"); path != "" {
		writeForEver(path)
	}
	path := filepath.Join(t.TempDir(), "db")
	for round := range 12 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "STORE_KILL_PATH="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		synced, buffer := -1, make([]byte, 1<<16)
		for end := time.Now().Add(20*time.Millisecond + rand.N(60*time.Millisecond)); time.Now().Before(end) || synced < 0; {
			n, err := out.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(string(buffer[:n]), "\n")
			if len(lines) > 1 {
				synced, _ = strconv.Atoi(lines[len(lines)-2]) // the last whole line
			}
		}
		_ = cmd.Process.Kill() // SIGKILL
		_ = cmd.Wait()         // says that it was killed
		log := &bytes.Buffer{}
		_, found := open(t, path, key(1), log)
		count, _ := strconv.Atoi(found["n count"])
		if count < synced || log.Len() > 0 {
			t.Fatalf("round %d: %d was synced, %d is there; log %s", round, synced, count, log)
		}
		for i := range 10 {
			v := found["a "+strconv.Itoa(i)]
			next := strings.HasPrefix(v, strconv.Itoa(count+1)+":") // written just before its count
			if count > 10 && !next && !strings.HasPrefix(v, strconv.Itoa(count-(count-i)%10)+":") {
				t.Fatalf("round %d: with count %d, value %d is %.10q", round, count, i, v)
			}
		}
	}
}

// writeForEver writes numbered values to ten keys in turn, and prints a number when it is on the disk.
func writeForEver(path string) {
	s := shelf{}
	st, err := Open(Config{Path: path, Key: key(1), Restore: s.put, Snapshot: s.all, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	n, _ := strconv.Atoi(s["n count"])
	for {
		n++
		s.write(st, Entry{Bucket: "a", Key: strconv.Itoa(n % 10), Value: append([]byte(strconv.Itoa(n)+":"), make([]byte, rand.N(20000))...)})
		s.write(st, Entry{Bucket: "n", Key: "count", Value: []byte(strconv.Itoa(n))})
		if n%3 == 0 {
			if err := st.Sync(); err != nil {
				panic(err)
			}
			fmt.Println(n)
		}
	}
}

func BenchmarkStore(b *testing.B) {
	path := filepath.Join(b.TempDir(), "db")
	s := shelf{}
	st, err := Open(Config{Path: path, Key: key(1), Restore: s.put, Snapshot: s.all, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 1024)
	for b.Loop() {
		for i := range 10000 {
			s.write(st, Entry{Bucket: "a", Key: strconv.Itoa(i), Value: value})
		}
		if err := st.Close(); err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		if _, err := Open(Config{Path: path, Key: key(1), Restore: shelf{}.put, Snapshot: s.all, Log: slog.New(slog.DiscardHandler)}); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(begin).Milliseconds()), "ms/open10000")
	}
}
