package cli

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/check"
	"github.com/kedge-io/kedge/pkg/config"
)

func (p *program) checkConfigCommand() *cli.Command {
	const usage = "check this machine and the settings before kedge starts on it"
	settings := config.ServerSettings()
	return &cli.Command{
		Name: "check-config", Usage: usage,
		CustomHelpTemplate: help("check-config", "[-o table|json] [FLAGS OF KEDGE SERVER]", usage, `
  --output FORMAT
      table or json. Default table.

It reads config file and environment as kedge server does and takes the same flags, so that it checks the ports and
directories that will be used. Each row is pass, warn (kedge works, with the limit that is named) or fail, and says how to
mend it. Run it as root, while kedge is stopped. The exit code is 1 when a row fails.`),
		Flags: append(settingFlags(settings), &cli.StringFlag{Name: "output", Value: "table"}),
		Action: func(c *cli.Context) error {
			if err := checkOutput(c.String("output")); err != nil {
				return err
			}
			cfg, err := config.LoadServer(sources(c, settings))
			if err != nil {
				return err
			}
			return p.checkConfig(check.Run(serverChecks(cfg)), c.String("output"))
		},
	}
}

func (p *program) checkConfig(rows []check.Result, output string) error {
	failed := false
	for _, r := range rows {
		failed = failed || r.Outcome == check.Fail
	}
	var err error
	if output == "json" {
		err = printJSON(p.out, rows)
	} else {
		err = printChecks(p.out, rows)
	}
	if err == nil && failed {
		return exit{1, nil}
	}
	return err
}

func printChecks(w io.Writer, rows []check.Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	count := map[check.Outcome]int{}
	for _, r := range rows {
		count[r.Outcome]++
		fmt.Fprintf(t, "%s\t%s\t%s\n", r.Outcome, r.Name, r.Detail)
		if r.Fix != "" {
			fmt.Fprintf(t, "\t\t-> %s\n", r.Fix)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d passed, %d with a warning, %d failed\n", count[check.Pass], count[check.Warn], count[check.Fail])
	return err
}
