package main

import (
	"archive/zip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/kedge-io/kedge/pkg/payload"
	"github.com/klauspost/compress/zstd"
)

// appendPayload copies -binary to -o and puts the payload directory at its end
// as a zip archive. Entries have no times, so the same input gives the same bytes.
func appendPayload(args []string) error {
	flags := flag.NewFlagSet("append", flag.ExitOnError)
	binary := flags.String("binary", "", "kedge as go build made it")
	dir := flags.String("dir", "", "payload directory")
	out := flags.String("o", "", "file to write")
	stored := flags.Bool("stored", false, "do not compress")
	if err := flags.Parse(args); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(*dir, payload.ManifestName))
	if err != nil {
		return err
	}
	m, err := payload.DecodeManifest(data)
	if err != nil {
		return err
	}
	temp := *out + ".new"
	if err := copyFile(*binary, temp); err != nil {
		return fmt.Errorf("copy binary: %w", err)
	}
	if err := writeBundle(temp, *dir, m, *stored); err != nil {
		return errors.Join(fmt.Errorf("write bundle: %w", err), os.Remove(temp))
	}
	return os.Rename(temp, *out)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// writeBundle appends the archive to the file at name.
func writeBundle(name, dir string, m *payload.Manifest, stored bool) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	offset, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	archive := zip.NewWriter(f)
	archive.SetOffset(offset)
	method := uint16(zstd.ZipMethodWinZip)
	if stored {
		method = zip.Store
	}
	archive.RegisterCompressor(zstd.ZipMethodWinZip, zstd.ZipCompressor(zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(8<<20), zstd.WithEncoderConcurrency(1)))
	files := append([]payload.File{{Path: payload.ManifestName}}, m.Files...)
	for _, file := range files {
		if file.Link != "" {
			continue // the manifest says it all
		}
		if err := addFile(archive, dir, file.Path, method); err != nil {
			return fmt.Errorf("add %s: %w", file.Path, err)
		}
	}
	return errors.Join(archive.Close(), f.Close())
}

func addFile(archive *zip.Writer, dir, name string, method uint16) error {
	in, err := os.Open(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := archive.CreateHeader(&zip.FileHeader{Name: path.Join(payload.ArchiveDir, name), Method: method})
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return err
}
