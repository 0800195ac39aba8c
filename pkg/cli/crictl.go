package cli

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/agent"
	"github.com/kedge-io/kedge/pkg/payload"
)

func (p *program) crictlCommand() *cli.Command {
	return &cli.Command{
		Name: "crictl", Usage: "look at pods and containers of this node through the CRI", SkipFlagParsing: true,
		Action: func(c *cli.Context) error { return crictl(c.Args().Slice()) },
	}
}

// crictl replaces this process with the bundled program.
func crictl(args []string) error {
	bundle, err := payload.Ensure(payload.Config{DataDir: installed().DataDir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("unpack bundled programs: %w", err)
	}
	program, err := bundle.Path("crictl")
	if err != nil {
		return fmt.Errorf("find crictl: %w", err)
	}
	if err := syscall.Exec(program, append([]string{"crictl"}, args...), crictlEnv(args, os.Environ())); err != nil {
		return fmt.Errorf("run %s: %w", program, err)
	}
	return nil
}

// crictlEnv adds kedge's socket to the environment, unless the user has named a socket or a config file: crictl puts
// these variables before its config file, and its flags before them.
func crictlEnv(args, env []string) []string {
	const runtime, image = "CONTAINER_RUNTIME_ENDPOINT=", "IMAGE_SERVICE_ENDPOINT="
	chosen := slices.ContainsFunc(env, func(v string) bool {
		return strings.HasPrefix(v, runtime) || strings.HasPrefix(v, "CRI_CONFIG_FILE=")
	}) || slices.ContainsFunc(args, func(a string) bool {
		return a == "-c" || a == "--config" || strings.HasPrefix(a, "--config=") || strings.HasPrefix(a, "-c=")
	})
	if chosen {
		return env
	}
	socket := "unix://" + agent.ContainerdSocket
	env = append(slices.Clone(env), runtime+socket, image+socket)
	if _, err := os.Stat("/etc/crictl.yaml"); err != nil {
		env = append(env, "CRI_CONFIG_FILE=/dev/null") // or crictl warns that it finds none
	}
	return env
}
