// Package dropin knows about files that people and programs drop into a folder: whether one is whole yet.
// It is a foundation: features that watch a folder may import it.
package dropin

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Writing asks the kernel for a read lease on file, which it refuses while any process has it open for writing; see
// fcntl(2), F_SETLEASE. known is false on file systems without leases: there only time can tell.
func Writing(file *os.File) (writing, known bool) {
	_, err := unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, _ = unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		return false, true
	}
	busy := errors.Is(err, unix.EAGAIN)
	return busy, busy
}
