package main

import (
	"archive/tar"
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// pauseImage writes a docker archive with one layer that holds /pause. Times
// and owners are zero, so the same program gives the same bytes.
func pauseImage(args []string) error {
	flags := flag.NewFlagSet("pause-image", flag.ExitOnError)
	program := flags.String("program", "", "static program to run as /pause")
	ref := flags.String("ref", "", "image name and tag")
	arch := flags.String("arch", "", "architecture as Go names it")
	out := flags.String("o", "", "archive to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	tag, err := name.NewTag(*ref, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("parse -ref: %w", err)
	}
	data, err := os.ReadFile(*program)
	if err != nil {
		return fmt.Errorf("read -program: %w", err)
	}
	layerTar, err := oneFileTar("pause", data)
	if err != nil {
		return fmt.Errorf("make layer: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layerTar)), nil
	})
	if err != nil {
		return fmt.Errorf("make layer: %w", err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return fmt.Errorf("append layer: %w", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return fmt.Errorf("read image config: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", *arch
	if *arch == "arm" {
		config.Variant = "v7"
	}
	config.Config.Entrypoint = []string{"/pause"}
	config.Config.User = "65535:65535"
	config.Config.WorkingDir = "/"
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return fmt.Errorf("set image config: %w", err)
	}
	return tarball.WriteToFile(*out, tag, image)
}

// oneFileTar is a tar archive with one executable file.
func oneFileTar(name string, data []byte) ([]byte, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(data)), Format: tar.FormatUSTAR}
	if err := archive.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := archive.Write(data); err != nil {
		return nil, err
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}
