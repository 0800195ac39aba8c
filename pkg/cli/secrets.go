package cli

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/server"
)

func (p *program) secretsCommand() *cli.Command {
	const usage = "encrypt Secrets in the datastore, and change the keys"
	force := func() cli.Flag { return &cli.BoolFlag{Name: "force", Aliases: []string{"f"}} }
	step := func(name, usage, done string, do func(c *cli.Context, d *server.EncryptionDesk) error, flags ...cli.Flag) *cli.Command {
		return &cli.Command{
			Name: name, Usage: usage, Flags: flags,
			Action: func(c *cli.Context) error {
				return withDesk(func(d *server.EncryptionDesk) error {
					if err := do(c, d); err != nil {
						return err
					}
					_, err := fmt.Fprintln(p.out, done)
					return err
				})
			},
		}
	}
	return p.family("secrets-encrypt", usage, `
  status [-o text|json]
      Show whether Secrets are encrypted, with which key, and how far a change has come.
  enable, disable
      Turn encryption on or off. kedge writes all Secrets anew; a server that was started without --secrets-encryption and has
      no keys needs that flag first.
  rotate-keys
      Make a new key, write all Secrets anew with it, and forget the old one.
  prepare [--force], rotate [--force], reencrypt [--force] [--skip]
      The same in three steps: make a key that only decrypts, have it encrypt, write all Secrets anew. With --skip the old
      key stays. --force takes a step out of its turn.

The commands run on a server while kedge runs, as root, and concern all servers of the cluster; none needs a restart.`,
		&cli.Command{
			Name: "status", Usage: "show how things are", Flags: []cli.Flag{&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "text"}},
			Action: func(c *cli.Context) error { return p.secretsStatus(c.Context, c.String("output")) },
		},
		step("enable", "turn encryption on", "secrets-encryption enabled", func(c *cli.Context, d *server.EncryptionDesk) error { return d.Enable(c.Context) }),
		step("disable", "turn encryption off", "secrets-encryption disabled", func(c *cli.Context, d *server.EncryptionDesk) error { return d.Disable(c.Context) }),
		step("prepare", "make a new key", "prepare completed successfully", func(c *cli.Context, d *server.EncryptionDesk) error { return d.PrepareKey(c.Context, c.Bool("force")) }, force()),
		step("rotate", "encrypt with the new key", "rotate completed successfully", func(c *cli.Context, d *server.EncryptionDesk) error { return d.Rotate(c.Context, c.Bool("force")) }, force()),
		step("reencrypt", "write all Secrets anew", "reencryption started", func(c *cli.Context, d *server.EncryptionDesk) error {
			return d.Reencrypt(c.Context, c.Bool("force"), c.Bool("skip"))
		}, force(), &cli.BoolFlag{Name: "skip"}),
		step("rotate-keys", "change the key", "keys rotated, reencryption started", func(c *cli.Context, d *server.EncryptionDesk) error { return d.RotateKeys(c.Context) }))
}

// withDesk reaches the server of this machine.
func withDesk(do func(*server.EncryptionDesk) error) error {
	d, err := server.NewEncryptionDesk(installed())
	if err != nil {
		return err
	}
	defer d.Close()
	return do(d)
}

func (p *program) secretsStatus(ctx context.Context, output string) error {
	if output != "text" {
		if err := checkOutput(output); err != nil {
			return err
		}
	}
	return withDesk(func(d *server.EncryptionDesk) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		r, err := d.Status(ctx)
		if err != nil {
			return err
		}
		if output == "json" {
			return printJSON(p.out, r)
		}
		return printEncryption(p.out, r)
	})
}

func printEncryption(w io.Writer, r server.EncryptionReport) error {
	if r.None {
		_, err := fmt.Fprintln(w, "Encryption Status: Disabled, no configuration file found")
		return err
	}
	status, hashes := "Disabled", "All hashes match"
	if r.Enabled {
		status = "Enabled"
	}
	if !r.Match {
		hashes = r.Mismatch
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "Encryption Status: %s\nCurrent Rotation Stage: %s\nServer Encryption Hashes: %s\n", status, r.Stage, hashes)
	fmt.Fprintf(t, "Secrets: %d, to be written anew: %d\n\n", r.Secrets, r.Old)
	fmt.Fprintln(t, "Active\tKey Type\tName\n------\t--------\t----")
	for _, k := range r.Keys {
		active := ""
		if k.Active {
			active = " *"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", active, k.Type, k.Name)
	}
	return t.Flush()
}
