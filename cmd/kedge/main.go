// Command kedge is a complete Kubernetes site in one binary.
package main

import (
	"os"

	"github.com/kedge-io/kedge/pkg/cli"
)

func main() {
	err := cli.Run(os.Args, os.Stdout, os.Stderr)
	cli.PrintError(os.Stderr, err)
	os.Exit(cli.ExitCode(err))
}
