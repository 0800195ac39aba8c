package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/status"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

func (p *program) statusCommand() *cli.Command {
	const usage = "say what runs here, what is ready, since when, and why not"
	return &cli.Command{
		Name: "status", Usage: usage,
		CustomHelpTemplate: help("status", "[-o table|json]", usage, `
  --output FORMAT, -o FORMAT
      table or json. Default table.
  --socket FILE
      Where kedge answers. Default `+status.DefaultSocket+`.

The exit code is 0 when every component is ready, 1 when one is not, and 2 when kedge does not run.`),
		Flags: []cli.Flag{outputFlag(), &cli.StringFlag{Name: "socket", Value: status.DefaultSocket}},
		Action: func(c *cli.Context) error {
			return p.status(c.Context, c.String("socket"), c.String("output"))
		},
	}
}

func outputFlag() cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table"}
}

func checkOutput(format string) error {
	if format != "table" && format != "json" {
		return fmt.Errorf("--output: %q is neither table nor json", format)
	}
	return nil
}

func (p *program) status(ctx context.Context, socket, output string) error {
	const notReady, notRunning = 1, 2
	if err := checkOutput(output); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	report, err := status.Get(ctx, socket)
	switch {
	case errors.Is(err, status.ErrNotRunning):
		return exit{notRunning, fmt.Errorf("%w: nobody answers on %s", err, socket)}
	case errors.Is(err, fs.ErrPermission):
		return exit{notRunning, fmt.Errorf("only root may ask on %s: use sudo", socket)}
	case err != nil:
		return exit{notRunning, err}
	}
	if output == "json" {
		err = printJSON(p.out, report)
	} else {
		err = printStatus(p.out, report, time.Now())
	}
	if err == nil && !report.Ready {
		return exit{notReady, nil}
	}
	return err
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func printStatus(w io.Writer, r status.Report, now time.Time) error {
	state := "not ready"
	if r.Ready {
		state = "ready"
	}
	fmt.Fprintf(w, "kedge %s %s, pid %d, up %s: %s\n\n", r.Version, r.Mode, r.PID, age(r.Started, now), state)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "COMPONENT\tSTATE\tSINCE\tREASON")
	for _, c := range r.Components {
		name := c.Name
		if c.Optional && c.State != supervisor.Ready {
			name += " (optional)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", name, c.State, age(c.Since, now), cmp.Or(c.Reason, c.Note))
	}
	return t.Flush()
}

// age is how long ago t was, in the two largest units.
func age(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
