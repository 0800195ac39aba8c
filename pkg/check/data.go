package check

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kedge-io/kedge/pkg/version"
)

// existing returns dir, or the nearest directory above it that is there.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

func checkDataDir(cfg Config, _ *probes) Result {
	dir := existing(cfg.DataDir)
	const other = "or choose another --data-dir"
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return fail(dir+" is not a directory", "move it away "+other)
	}
	probe, err := os.MkdirTemp(dir, ".kedge-check-")
	if err != nil {
		return fail(fmt.Sprintf("%s cannot be written: %s", dir, errors.Unwrap(err)), "mend its permissions or its mount, "+other)
	}
	if err := os.Remove(probe); err != nil {
		return fail(fmt.Sprintf("a directory in %s cannot be removed: %s", dir, errors.Unwrap(err)), "mend the file system "+other)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil && cfg.Node && st.Flags&unix.MS_NOEXEC != 0 {
		return fail(dir+" is mounted noexec, and the bundled programs run from there", "mount it with exec "+other)
	}
	return pass(cfg.DataDir + " can be written")
}

func checkDisk(cfg Config, _ *probes) Result {
	var st unix.Statfs_t
	dir := existing(cfg.DataDir)
	if err := unix.Statfs(dir, &st); err != nil {
		return warn(fmt.Sprintf("the free space of %s is not known: %s", dir, err), "check it by hand")
	}
	return judgeDisk(dir, st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize), st.Ffree, st.Files)
}

// judgeDisk decides on free bytes and inodes. Below 15 % free, the kubelet begins to remove images.
func judgeDisk(dir string, free, size, freeInodes, inodes uint64) Result {
	const mib = 1 << 20
	detail := fmt.Sprintf("%d MiB of %d MiB free in %s", free/mib, size/mib, dir)
	const fix = "free some space, or put --data-dir on a larger disk"
	switch {
	case free < 200*mib:
		return fail(detail, fix)
	case inodes > 0 && freeInodes < 1000:
		return fail(fmt.Sprintf("%d inodes left in %s", freeInodes, dir), fix)
	case free < 2048*mib:
		return warn(detail+", which is little for images", fix)
	case free < size*15/100:
		return warn(detail+", less than 15 %: the kubelet will remove images and then pods", fix)
	}
	return pass(detail)
}

func checkClock(cfg Config, _ *probes) Result {
	return judgeClock(time.Now(), cfg.Built, birth(cfg.CAFile))
}

// birth is when a certificate becomes valid, zero when it cannot be read: other parts report that.
func birth(file string) time.Time {
	data, _ := os.ReadFile(file)
	block, _ := pem.Decode(data)
	if block == nil {
		return time.Time{}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}
	}
	return cert.NotBefore
}

// judgeClock decides whether now can be the true time: not a day before kedge was built, and not before the cluster's
// certificate authority was made. An unset clock would make certificates that nobody accepts.
func judgeClock(now, built, authority time.Time) Result {
	const fix = "set the clock, for example with: timedatectl set-time '2026-01-31 12:00:00'"
	const form = "2006-01-02 15:04 MST"
	says := "the clock says " + now.UTC().Format(form) + ", "
	switch {
	case !built.IsZero() && now.Before(built.Add(-24*time.Hour)):
		return fail(says+"before this kedge was built ("+built.UTC().Format(form)+")", fix)
	case !authority.IsZero() && now.Before(authority):
		return fail(says+"before the cluster's certificate authority was made ("+authority.UTC().Format(form)+")", fix)
	case now.Year() < 2024:
		return fail(says+"which cannot be true", fix)
	}
	return pass(now.UTC().Format(form))
}

// versionFile holds the version of the kedge that last started on a data directory.
func versionFile(dataDir string) string { return filepath.Join(dataDir, "version") }

func checkDataVersion(cfg Config, _ *probes) Result {
	if err := CanRead(cfg.DataDir, version.Get().Version); err != nil {
		return fail(err.Error(), "start that version, or restore a backup made with this one")
	}
	return pass("readable by this kedge")
}

// CanRead refuses a data directory that a kedge of a newer minor version has written. A development build, and a directory
// without a version, are taken as they are.
func CanRead(dataDir, current string) error {
	data, err := os.ReadFile(versionFile(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read version of the data directory: %w", err)
	}
	written := strings.TrimSpace(string(data))
	theirs, err := version.ParseRelease(written)
	ours, errOurs := version.ParseRelease(current)
	if err != nil || errOurs != nil {
		return nil // a development build on one side, or a torn file: nothing to compare
	}
	if theirs.NewerMinor(ours) {
		return fmt.Errorf("data directory %s was written by kedge %s, which is newer than this kedge %s: start %s or newer",
			dataDir, written, current, written)
	}
	return nil
}

// MarkVersion writes down that a kedge of the current version uses the data directory. It survives a power cut.
func MarkVersion(dataDir, current string) error {
	file := versionFile(dataDir)
	if data, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(data)) == current {
		return nil
	}
	tmp, err := os.CreateTemp(dataDir, ".version-")
	if err != nil {
		return fmt.Errorf("write version: %w", err)
	}
	_, errWrite := tmp.WriteString(current + "\n")
	if err := errors.Join(errWrite, tmp.Sync(), tmp.Close()); err != nil {
		return errors.Join(fmt.Errorf("write version: %w", err), os.Remove(tmp.Name()))
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return errors.Join(fmt.Errorf("write version: %w", err), os.Remove(tmp.Name()))
	}
	return nil
}

// Lock keeps other kedges off a data directory until unlock is called or the process ends. It makes the directory.
func Lock(dataDir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dataDir, 0o755); err != nil {
		return nil, fmt.Errorf("make data directory: %w: mend its permissions, or choose another --data-dir", err)
	}
	f, err := os.OpenFile(lockFile(dataDir), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w: mend its permissions, or choose another --data-dir", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("another kedge%s runs on %s: stop it first, or choose another --data-dir",
			withPID(lockPID(dataDir)), dataDir), f.Close())
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory: %w", err), f.Close())
	}
	return f.Close, nil
}

func lockFile(dataDir string) string { return filepath.Join(dataDir, "kedge.lock") }

// lockPID is the process id in the lock file, 0 when it is not written yet.
func lockPID(dataDir string) int {
	data, _ := os.ReadFile(lockFile(dataDir))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// holder is the process id of the other kedge that holds the lock of the data directory, 0 when none does.
func holder(dataDir string) int {
	f, err := os.Open(lockFile(dataDir))
	if err != nil {
		return 0
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return 0
	}
	if pid := lockPID(dataDir); pid != os.Getpid() {
		return pid
	}
	return 0
}

func withPID(pid int) string {
	if pid == 0 {
		return ""
	}
	return fmt.Sprintf(" (pid %d)", pid)
}
