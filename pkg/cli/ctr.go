package cli

import (
	"os"

	"github.com/containerd/containerd/v2/cmd/ctr/app"
	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/agent"
)

func (p *program) ctrCommand() *cli.Command {
	return &cli.Command{
		Name: "ctr", Usage: "containerd's own client, for the containers of this node", SkipFlagParsing: true,
		Action: func(c *cli.Context) error { return p.ctr(c.Args().Slice()) },
	}
}

// ctr runs containerd's client in this process, with the address and the namespace that kedge uses.
func (p *program) ctr(args []string) error {
	for name, value := range ctrDefaults() {
		if os.Getenv(name) == "" {
			if err := os.Setenv(name, value); err != nil {
				return err
			}
		}
	}
	client := app.New()
	client.Writer, client.ErrWriter = p.out, p.err
	client.ExitErrHandler = func(*cli.Context, error) {}
	return client.Run(append([]string{"ctr"}, args...))
}

// ctrDefaults are the variables that ctr takes for its flags --address and --namespace.
func ctrDefaults() map[string]string {
	return map[string]string{"CONTAINERD_ADDRESS": agent.ContainerdSocket, "CONTAINERD_NAMESPACE": "k8s.io"}
}
