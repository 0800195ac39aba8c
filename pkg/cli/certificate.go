package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/check"
)

func (p *program) certificateCommand() *cli.Command {
	const usage = "show and replace this machine's certificates"
	return p.family("certificate", usage, `
  list [-o table|json]
      Show every certificate, when it ends, and when kedge renews it.
  rotate [NAME...]
      Have certificates issued anew at the next start: those named, or all but the authorities. kedge must be stopped;
      pods go on.

kedge renews certificates while it runs, when two thirds of their life have passed. The commands run as root.`,
		&cli.Command{
			Name: "list", Aliases: []string{"check"}, Usage: "show every certificate", Flags: []cli.Flag{outputFlag()},
			Action: func(c *cli.Context) error { return p.listCertificates(installed().DataDir, c.String("output")) },
		},
		refused("rotate-ca", "the authorities are valid for ten years, and a site with others is a new one: restore its objects there"),
		&cli.Command{
			Name: "rotate", Usage: "have certificates issued anew", ArgsUsage: "[NAME...]",
			Action: func(c *cli.Context) error { return p.rotateCertificates(installed().DataDir, c.Args().Slice()) },
		})
}

func (p *program) listCertificates(dataDir, output string) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	infos, err := certs.List(dataDir)
	if errors.Is(err, fs.ErrPermission) {
		return errors.New("only root may do this: use sudo")
	}
	if err != nil {
		return err
	}
	if output == "json" {
		return printJSON(p.out, infos)
	}
	return printCertificates(p.out, infos, time.Now())
}

func printCertificates(w io.Writer, infos []certs.Info, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NAME\tKIND\tENDS\tRENEWED\tPROBLEM")
	for _, c := range infos {
		kind, renewed, problem := "leaf", "never", c.Problem
		if c.Authority {
			kind = "authority"
		}
		if !c.RenewAt.IsZero() {
			renewed = in(c.RenewAt, now)
		}
		if problem == "" && now.After(c.NotAfter) {
			problem = "it has ended"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", c.Name, kind, in(c.NotAfter, now), renewed, problem)
	}
	return t.Flush()
}

// in is a time from now on.
func in(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "unknown"
	case !t.After(now):
		return "now"
	}
	return "in " + age(now, t)
}

// lockStopped makes sure that no kedge runs on the data directory until unlock is called.
func lockStopped(dataDir string) (unlock func() error, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root may do this: use sudo")
	}
	if _, err := os.Stat(dataDir); err != nil {
		return nil, fmt.Errorf("there is no kedge in %s: %w", dataDir, err)
	}
	return check.Lock(dataDir)
}

// rotateCertificates removes leaves: what is missing at a start is issued.
func (p *program) rotateCertificates(dataDir string, names []string) error {
	unlock, err := lockStopped(dataDir)
	if err != nil {
		return err
	}
	defer func() { _ = unlock() }() // ends with the process anyway
	infos, err := certs.List(dataDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		at := slices.IndexFunc(infos, func(c certs.Info) bool { return c.Name == name })
		if at < 0 || infos[at].Authority {
			return fmt.Errorf("certificate rotate: %q is no certificate that can be rotated (see kedge certificate list)", name)
		}
	}
	done := 0
	for _, c := range infos {
		if c.Authority || len(names) > 0 && !slices.Contains(names, c.Name) {
			continue
		}
		if err := os.Remove(c.Path); err != nil {
			return fmt.Errorf("remove certificate: %w", err)
		}
		done++
	}
	_, err = fmt.Fprintf(p.out, "%d certificates will be issued at the next start of kedge\n", done)
	return err
}
