package main

import (
	"archive/zip"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path"
	"path/filepath"

	"github.com/kedge-io/kedge/pkg/payload"
	"github.com/klauspost/compress/zstd"
)

// archive writes a payload directory as the zip archive that goes to the end of
// the kedge binary. Entries have no times, so the same input gives the same bytes.
func archive(args []string) error {
	flags := flag.NewFlagSet("archive", flag.ExitOnError)
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
	f, err := os.Create(*out)
	if err != nil {
		return err
	}
	defer f.Close()
	w := zip.NewWriter(f)
	for _, file := range append([]payload.File{{Path: payload.ManifestName}}, m.Files...) {
		if file.Link != "" {
			continue // the manifest says it all
		}
		if err := addFile(w, *dir, file.Path, *stored); err != nil {
			return fmt.Errorf("add %s: %w", file.Path, err)
		}
	}
	return errors.Join(w.Close(), f.Close())
}

// addFile adds one file, compressed as well as the command zstd can.
func addFile(w *zip.Writer, dir, name string, stored bool) error {
	data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	header := &zip.FileHeader{
		Name:               path.Join(payload.ArchiveDir, name),
		Method:             zip.Store,
		CRC32:              crc32.ChecksumIEEE(data),
		UncompressedSize64: uint64(len(data)),
	}
	if !stored {
		header.Method = zstd.ZipMethodWinZip
		cmd := exec.Command("zstd", "-19", "--single-thread", "-c")
		cmd.Stdin = bytes.NewReader(data)
		if data, err = cmd.Output(); err != nil {
			return fmt.Errorf("compress with zstd: %w", err)
		}
	}
	header.CompressedSize64 = uint64(len(data))
	out, err := w.CreateRaw(header)
	if err != nil {
		return err
	}
	_, err = out.Write(data)
	return err
}
