// Package images makes image archives from local static programs, for tests and
// examples on machines that reach no registry. The archives go into the images
// folder of a node (DATA/agent/images). Tests and the build scripts may import it.
package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Image is what goes into an image: one layer and the defaults of its process.
// All times and owners are zero, so the same Image gives the same bytes.
type Image struct {
	// Ref is the name and tag, for example "kedge.local/busybox:1".
	Ref string
	// Arch is the architecture as Go names it; empty is this machine's.
	Arch string
	// Entries are the files of the only layer, directories before their contents.
	Entries    []Entry
	Entrypoint []string
	Cmd        []string
	Env        []string
	// User is "uid:gid", or empty for root.
	User string
}

// Entry is one file, directory or symbolic link of the layer.
type Entry struct {
	// Path has no leading slash.
	Path string
	// Mode is the permission bits, with fs.ModeDir for a directory and fs.ModeSetuid for a program that runs as its owner.
	Mode fs.FileMode
	// Sticky sets the sticky bit of a directory.
	Sticky bool
	// Data is the contents of a file.
	Data []byte
	// Link is the target of a symbolic link, or empty.
	Link string
}

// Build makes the image.
func (i Image) Build() (v1.Image, error) {
	layerTar, err := tarOf(i.Entries)
	if err != nil {
		return nil, fmt.Errorf("make layer of %s: %w", i.Ref, err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layerTar)), nil
	})
	if err != nil {
		return nil, fmt.Errorf("make layer of %s: %w", i.Ref, err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("add layer to %s: %w", i.Ref, err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("configure %s: %w", i.Ref, err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", i.Arch
	if i.Arch == "" {
		config.Architecture = runtime.GOARCH
	}
	if config.Architecture == "arm" {
		config.Variant = "v7"
	}
	config.Config = v1.Config{Entrypoint: i.Entrypoint, Cmd: i.Cmd, Env: i.Env, User: i.User, WorkingDir: "/"}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, fmt.Errorf("configure %s: %w", i.Ref, err)
	}
	return image, nil
}

// tarOf is a tar archive of the entries.
func tarOf(entries []Entry) ([]byte, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	for _, e := range entries {
		header := &tar.Header{Name: e.Path, Mode: int64(e.Mode.Perm()), Format: tar.FormatUSTAR}
		if e.Mode&fs.ModeSetuid != 0 {
			header.Mode |= 0o4000
		}
		switch {
		case e.Mode.IsDir():
			header.Typeflag, header.Name = tar.TypeDir, e.Path+"/"
			if e.Sticky {
				header.Mode |= 0o1000
			}
		case e.Link != "":
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, e.Link, 0o777
		default:
			header.Typeflag, header.Size = tar.TypeReg, int64(len(e.Data))
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(e.Data); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

// WriteDocker writes the image as a docker archive. The file appears at path by
// one rename, so a node that watches the folder never reads half of it.
func (i Image) WriteDocker(path string) error {
	tag, err := name.NewTag(i.Ref, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("name of image: %w", err)
	}
	image, err := i.Build()
	if err != nil {
		return err
	}
	return replace(path, func(out io.Writer) error { return tarball.Write(tag, image, out) })
}

// WriteOCI writes the image as a tar archive of an OCI layout, as WriteDocker does.
func (i Image) WriteOCI(path string) error {
	if _, err := name.NewTag(i.Ref, name.StrictValidation); err != nil {
		return fmt.Errorf("name of image: %w", err)
	}
	image, err := i.Build()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kedge-image-")
	if err != nil {
		return fmt.Errorf("write layout of %s: %w", i.Ref, err)
	}
	defer os.RemoveAll(dir)
	index, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write layout of %s: %w", i.Ref, err)
	}
	// containerd reads the first annotation, other tools the second.
	annotations := map[string]string{"io.containerd.image.name": i.Ref, "org.opencontainers.image.ref.name": i.Ref}
	if err := index.AppendImage(image, layout.WithAnnotations(annotations)); err != nil {
		return fmt.Errorf("write layout of %s: %w", i.Ref, err)
	}
	return replace(path, func(out io.Writer) error {
		archive := tar.NewWriter(out)
		return errors.Join(archive.AddFS(os.DirFS(dir)), archive.Close())
	})
}

// replace writes a file under a hidden name and renames it into place.
func replace(path string, write func(io.Writer) error) error {
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	out, err := os.Create(temp)
	if err != nil {
		return fmt.Errorf("write image archive: %w", err)
	}
	if err := errors.Join(write(out), out.Close()); err != nil {
		return errors.Join(fmt.Errorf("write image archive: %w", err), os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write image archive: %w", err)
	}
	return nil
}
