// Command payload makes the parts of the payload that need code: the sandbox
// image, the manifest, and the archive at the end of the kedge binary. The
// build scripts run it; nobody imports it.
package main

import (
	"fmt"
	"os"
)

func main() {
	commands := map[string]func([]string) error{
		"pause-image": pauseImage,
		"manifest":    manifest,
		"archive":     archive,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: payload pause-image|manifest|archive [flags]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "payload %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}
