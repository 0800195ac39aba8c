// Command node is the first process of a machine of the lab. The tests build and start it; nothing else uses it.
package main

import (
	"fmt"
	"os"

	"github.com/kedge-io/kedge/test/lab/machine"
)

func main() {
	if err := machine.Main(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "lab machine:", err)
		os.Exit(1)
	}
}
