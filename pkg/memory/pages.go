package memory

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// region is a part of the address space.
type region struct{ start, end uintptr }

// dropProgramPages unmaps the pages of the executable that are only read: code and constants. What is
// used again comes back from the page cache; the rest, needed once at the start, stays out. It returns
// how many bytes are mapped that way. See madvise(2), MADV_DONTNEED on file mappings.
func dropProgramPages() (int, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return 0, err
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	total := 0
	for _, r := range readOnlyRegions(string(maps), exe) {
		size := int(r.end - r.start)
		if err := unix.Madvise(unsafe.Slice((*byte)(pointer(r.start)), size), unix.MADV_DONTNEED); err != nil {
			return total, fmt.Errorf("release %d bytes: %w", size, err)
		}
		total += size
	}
	return total, nil
}

// pointer makes a pointer of an address that the kernel reported and the garbage collector does not own.
func pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

// readOnlyRegions finds the regions of maps, in the format of proc(5), that map exe and cannot be written:
// a writable one may hold changes that dropping would lose.
func readOnlyRegions(maps, exe string) []region {
	var out []region
	lines := bufio.NewScanner(strings.NewReader(maps))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 6 || strings.Join(f[5:], " ") != exe || strings.Contains(f[1], "w") {
			continue
		}
		from, to, ok := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if ok && err1 == nil && err2 == nil && end > start {
			out = append(out, region{uintptr(start), uintptr(end)})
		}
	}
	return out
}
