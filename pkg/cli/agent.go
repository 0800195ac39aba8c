package cli

import (
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/config"
)

func (p *program) agentCommand() *cli.Command {
	const usage = "run a node that joins a server (not built yet)"
	settings := config.AgentSettings()
	return &cli.Command{
		Name: "agent", Usage: usage, Flags: settingFlags(settings),
		CustomHelpTemplate: manual("agent", usage, settings),
		Action: func(*cli.Context) error {
			return errors.New("joining a server is not built yet: run kedge server, which is a complete site by itself")
		},
	}
}
