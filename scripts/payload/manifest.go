package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kedge-io/kedge/pkg/payload"
)

// manifest writes manifest.json: the list of all files below -dir with their
// sizes and checksums, and the name of the sandbox image.
func manifest(args []string) error {
	flags := flag.NewFlagSet("manifest", flag.ExitOnError)
	dir := flags.String("dir", "", "payload directory")
	pause := flags.String("pause", "", "name of the sandbox image in images/pause.tar")
	lazy := flags.String("lazy", "", "files to unpack only when they are asked for, separated by commas")
	if err := flags.Parse(args); err != nil {
		return err
	}
	m, err := payload.NewManifest(os.DirFS(*dir), *pause, strings.Split(*lazy, ",")...)
	if err != nil {
		return fmt.Errorf("list %s: %w", *dir, err)
	}
	data, err := m.Encode()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(*dir, payload.ManifestName), data, 0o644)
}
