package payload

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// DirEnv names the environment variable that gives a payload directory made by
// scripts/build-payload.sh; it wins over the bundle in the binary.
const DirEnv = "KEDGE_PAYLOAD_DIR"

// ArchiveDir is the directory inside the archive at the end of the binary.
const ArchiveDir = "payload"

// source is where the programs come from.
type source struct {
	fs.FS
	io.Closer
	// name is for messages.
	name string
}

type noCloser struct{}

func (noCloser) Close() error { return nil }

// findSource looks at the environment, then at the end of this executable, then
// beside it as the build scripts leave it.
func findSource() (*source, error) {
	if dir := os.Getenv(DirEnv); dir != "" {
		if _, err := os.Stat(filepath.Join(dir, ManifestName)); err != nil {
			return nil, fmt.Errorf("%s=%s is not a payload directory: %w: make it with scripts/build-payload.sh", DirEnv, dir, err)
		}
		return dirSource(dir), nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own executable: %w", err)
	}
	src, err := openBundle(self)
	if err != nil || src != nil {
		return src, err
	}
	dir := filepath.Join(filepath.Dir(self), "..", "build", "payload", runtime.GOARCH)
	if _, err := os.Stat(filepath.Join(dir, ManifestName)); err == nil {
		return dirSource(dir), nil
	}
	return nil, fmt.Errorf("this binary (%s) was built without its bundled programs: build it with scripts/build.sh, or set %s to a directory made by scripts/build-payload.sh", self, DirEnv)
}

func dirSource(dir string) *source {
	return &source{FS: os.DirFS(dir), Closer: noCloser{}, name: dir}
}

// openBundle opens the archive at the end of an executable; without one it
// returns nil.
func openBundle(path string) (*source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open own executable: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open own executable: %w", err)
	}
	archive, err := zip.NewReader(f, info.Size())
	if errors.Is(err, zip.ErrFormat) {
		f.Close()
		return nil, nil
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open the bundle in %s: %w: the file is damaged, install it again", path, err)
	}
	archive.RegisterDecompressor(zstd.ZipMethodWinZip, zstd.ZipDecompressor())
	sub, err := fs.Sub(archive, ArchiveDir)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open the bundle in %s: %w", path, err)
	}
	if _, err := fs.Stat(sub, ManifestName); err != nil {
		f.Close()
		return nil, nil
	}
	return &source{FS: sub, Closer: f, name: path}, nil
}
