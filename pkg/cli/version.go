package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/version"
)

func (p *program) versionCommand() *cli.Command {
	const usage = "say which kedge this is and what is in it"
	return &cli.Command{
		Name: "version", Usage: usage,
		CustomHelpTemplate: help("version", "[-o table|json]", usage, "  --output FORMAT, -o FORMAT\n      table or json. Default table."),
		Flags:              []cli.Flag{outputFlag()},
		Action: func(c *cli.Context) error {
			if err := checkOutput(c.String("output")); err != nil {
				return err
			}
			return p.printVersion(c.String("output"))
		},
	}
}

func (p *program) printVersion(output string) error {
	v := version.Get()
	if output == "json" {
		return printJSON(p.out, v)
	}
	rows := [][2]string{{"kedge", v.Version}, {"commit", v.Commit}, {"kubernetes", v.Kubernetes},
		{"containerd", v.Containerd}, {"go", v.Go + " " + v.Platform}}
	for _, r := range rows {
		if r[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(p.out, "%-11s %s\n", r[0], r[1]); err != nil {
			return err
		}
	}
	return nil
}
