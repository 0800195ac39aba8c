package payload

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// ManifestName is the file that lists the contents of a payload directory.
const ManifestName = "manifest.json"

// maxManifest bounds a manifest's size in bytes.
const maxManifest = 1 << 20

// Manifest lists what a payload holds.
type Manifest struct {
	// Hash identifies the contents: equal hashes, equal files.
	Hash string `json:"hash"`
	// Pause is the name and tag of the sandbox image in images/pause.tar.
	Pause string `json:"pause"`
	// Files are all files of the payload, ordered by path.
	Files []File `json:"files"`
}

// File is one file of a payload.
type File struct {
	// Path is relative to the payload directory, with slashes.
	Path string `json:"path"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// Executable says that the file is a program or a loader.
	Executable bool `json:"executable,omitempty"`
	// SHA256 is the checksum of the contents in hexadecimal.
	SHA256 string `json:"sha256,omitempty"`
	// Link is the name of another file in the same directory when this one is a
	// symbolic link to it.
	Link string `json:"link,omitempty"`
	// Lazy says that the file is unpacked only when somebody asks for its path.
	Lazy bool `json:"lazy,omitempty"`
}

// NewManifest lists all files of a payload directory, except a manifest that is
// already there. The pause argument is the name of its sandbox image; lazy are the
// paths of the files to unpack only when they are asked for.
func NewManifest(dir fs.FS, pause string, lazy ...string) (*Manifest, error) {
	m := &Manifest{Pause: pause}
	err := fs.WalkDir(dir, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path == ManifestName {
			return err
		}
		file, err := describe(dir, path, entry.Type())
		file.Lazy = slices.Contains(lazy, path)
		m.Files = append(m.Files, file)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(m.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	m.Hash = m.contentHash()
	return m, nil
}

func describe(dir fs.FS, path string, kind fs.FileMode) (File, error) {
	if kind == fs.ModeSymlink {
		target, err := fs.ReadLink(dir, path)
		return File{Path: path, Link: target}, err
	}
	if !kind.IsRegular() {
		return File{}, fmt.Errorf("%s is neither a regular file nor a link", path)
	}
	f, err := dir.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return File{}, err
	}
	return File{Path: path, Size: size, Executable: info.Mode()&0o100 != 0, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// contentHash covers paths, modes, checksums and the image name. Half of a
// SHA-256 keeps the paths of the unpacked programs readable.
func (m *Manifest) contentHash() string {
	sum := sha256.New()
	fmt.Fprintf(sum, "pause %s\n", m.Pause)
	for _, f := range m.Files {
		fmt.Fprintf(sum, "%q %d %t %s %q %t\n", f.Path, f.Size, f.Executable, f.SHA256, f.Link, f.Lazy)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// Encode is the manifest as it is stored.
func (m *Manifest) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return append(data, '\n'), nil
}

// DecodeManifest reads and checks a stored manifest.
func DecodeManifest(data []byte) (*Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	if len(m.Files) == 0 {
		return nil, fmt.Errorf("decode manifest: it lists no files")
	}
	for _, f := range m.Files {
		if !fs.ValidPath(f.Path) || f.Path == "." {
			return nil, fmt.Errorf("decode manifest: bad path %q", f.Path)
		}
		if strings.Contains(f.Link, "/") || f.Link == ".." {
			return nil, fmt.Errorf("decode manifest: %s links out of its directory: %q", f.Path, f.Link)
		}
	}
	if m.Hash != m.contentHash() {
		return nil, fmt.Errorf("decode manifest: hash is %q but the contents give %q", m.Hash, m.contentHash())
	}
	return &m, nil
}

func readManifest(dir fs.FS) (*Manifest, []byte, error) {
	f, err := dir.Open(ManifestName)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest: %w", err)
	}
	m, err := DecodeManifest(data)
	return m, data, err
}
