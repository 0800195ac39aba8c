// Command guest is the agent inside a virtual machine of the VM lab: it serves test/vm/control on the guest's virtio serial port. The lab
// builds it and puts it into the image; nothing else uses it.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kedge-io/kedge/test/vm/control"
)

// portPattern matches the only virtio serial port of the machine.
const portPattern = "/dev/vport*p1"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "vm-agent:", err)
		os.Exit(1)
	}
}

func run() error {
	port, err := awaitPort()
	if err != nil {
		return err
	}
	if err := os.Setenv("HOME", "/root"); err != nil {
		return err
	}
	if err := os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return err
	}
	return control.Serve(port)
}

// awaitPort opens the port as soon as the kernel shows it; the driver finds it a moment after it was loaded.
func awaitPort() (*os.File, error) {
	for range 1000 {
		if found, _ := filepath.Glob(portPattern); len(found) == 1 {
			return os.OpenFile(found[0], os.O_RDWR, 0)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, fmt.Errorf("no port %s after 10 s", portPattern)
}
