package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/kedge-io/kedge/test/images"
)

// pauseImage writes a docker archive with one layer that holds /pause.
func pauseImage(args []string) error {
	flags := flag.NewFlagSet("pause-image", flag.ExitOnError)
	program := flags.String("program", "", "static program to run as /pause")
	ref := flags.String("ref", "", "image name and tag")
	arch := flags.String("arch", "", "architecture as Go names it")
	out := flags.String("o", "", "archive to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	data, err := os.ReadFile(*program)
	if err != nil {
		return fmt.Errorf("read -program: %w", err)
	}
	image := images.Image{
		Ref:        *ref,
		Arch:       *arch,
		Entries:    []images.Entry{{Path: "pause", Mode: 0o755, Data: data}},
		Entrypoint: []string{"/pause"},
		User:       "65535:65535",
	}
	return image.WriteDocker(*out)
}
