// Command make writes archives of the example images into a folder:
//
//	go run ./test/images/make -o /var/lib/kedge/agent/images busybox echo
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kedge-io/kedge/test/images"
)

func main() {
	dir := flag.String("o", ".", "folder to write to; it is made if it is missing")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: make [-o FOLDER] [busybox] [echo]")
		flag.PrintDefaults()
	}
	flag.Parse()
	names := flag.Args()
	if len(names) == 0 {
		names = []string{"busybox"}
	}
	if err := run(*dir, names); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir string, names []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	for _, name := range names {
		image, err := images.Known(name)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, name+".tar")
		if err := image.WriteDocker(path); err != nil {
			return err
		}
		fmt.Println(image.Ref, "is in", path)
	}
	return nil
}
