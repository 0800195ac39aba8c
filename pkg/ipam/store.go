package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// grace is how long an address rests after its release, unless there is no other
// left: neighbours and connection tracking may still know its last owner.
const grace = 2 * time.Minute

// Store is a directory of address reservations. Every operation takes a lock on
// the directory, so any number of processes may use it.
//
//	held/<owner>@<interface>@<address>[+<address>]      reserved
//	released/<owner>@<interface>@<address>[+<address>]  released at the file's time
//	last                                                where the next search begins
//	lock
type Store struct {
	dir string
	now func() time.Time
}

// Open opens the store in dir, and makes it if it is missing.
func Open(dir string) (*Store, error) {
	if dir == "" {
		return nil, errors.New("open address store: the directory is empty: give dataDir")
	}
	for _, name := range []string{"held", "released"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return nil, fmt.Errorf("open address store: %w", err)
		}
	}
	return &Store{dir: dir, now: time.Now}, nil
}

func (s *Store) held(e entry) string     { return filepath.Join(s.dir, "held", e.name()) }
func (s *Store) released(e entry) string { return filepath.Join(s.dir, "released", e.name()) }

// lock keeps other processes and goroutines out until the returned function is
// called.
func (s *Store) lock() (func(), error) {
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock address store: %w", err)
	}
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err {
		case nil:
			return func() { f.Close() }, nil
		case unix.EINTR:
		default:
			f.Close()
			return nil, fmt.Errorf("lock address store: %w", err)
		}
	}
}

// list reads the entries of a directory. A temporary file is one that a process
// left when it was killed, because the caller holds the lock: it is removed.
func (s *Store) list(sub string) ([]entry, error) {
	dir := filepath.Join(s.dir, sub)
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	entries := make([]entry, 0, len(names))
	for _, name := range names {
		if strings.HasPrefix(name, ".") {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("remove unfinished record: %w", err)
			}
			continue
		}
		if e, err := parseEntry(name); err == nil { // else not ours: leave it alone
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// write makes or replaces the file of a held entry. When it returns, the record
// is on disk.
func (s *Store) write(e entry, c contents) error {
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	path := s.held(e)
	temp := filepath.Join(filepath.Dir(path), ".new")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// release moves a held entry to the released ones. It is not synced: a release
// that a power cut undoes is found again.
func (s *Store) release(e entry) error {
	now := s.now()
	if err := os.Chtimes(s.held(e), now, now); err != nil {
		return fmt.Errorf("release address: %w", err)
	}
	if err := os.Rename(s.held(e), s.released(e)); err != nil {
		return fmt.Errorf("release address: %w", err)
	}
	return nil
}

// rested removes a released entry whose grace has passed and says so. A time in
// the future comes from a clock that was set back and counts as passed.
func (s *Store) rested(e entry) (bool, error) {
	info, err := os.Stat(s.released(e))
	if err != nil {
		return false, fmt.Errorf("look at released address: %w", err)
	}
	if age := s.now().Sub(info.ModTime()); age >= 0 && age < grace {
		return false, nil
	}
	return true, s.forget(e)
}

// forget removes a released entry: its addresses may be given out again.
func (s *Store) forget(e entry) error {
	if err := os.Remove(s.released(e)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget released address: %w", err)
	}
	return nil
}

// readLast is the last address given out of each range set. It is a hint: what
// cannot be read is left out.
func (s *Store) readLast() map[string]netip.Addr {
	last := map[string]netip.Addr{}
	data, err := os.ReadFile(filepath.Join(s.dir, "last"))
	if err != nil {
		return last
	}
	for line := range strings.Lines(string(data)) {
		set, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if a, err := netip.ParseAddr(text); err == nil {
			last[set] = a
		}
	}
	return last
}

// writeLast stores the hint of readLast.
func (s *Store) writeLast(addrs []netip.Addr) error {
	var text strings.Builder
	for set, a := range addrs {
		text.WriteString(strconv.Itoa(set) + " " + a.String() + "\n")
	}
	temp := filepath.Join(s.dir, ".last")
	if err := os.WriteFile(temp, []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("write last address: %w", err)
	}
	if err := os.Rename(temp, filepath.Join(s.dir, "last")); err != nil {
		return fmt.Errorf("write last address: %w", err)
	}
	return nil
}
