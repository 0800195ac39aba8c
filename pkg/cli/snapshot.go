package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/datastore"
	"github.com/kedge-io/kedge/pkg/server"
)

func (p *program) snapshotCommand() *cli.Command {
	const usage = "save, list, delete and restore snapshots of the datastore"
	c := p.family("snapshot", usage, `
  save [--name NAME]
      Take a snapshot now, of a running or a stopped server, and print its name. Snapshots that are saved by hand are kept
      until they are deleted. Default of --name: the time.
  list [-o table|json]
      Show the snapshots, oldest first.
  delete NAME...
      Delete snapshots.
  prune [--snapshot-retention N]
      Delete the oldest of the snapshots that were taken on schedule, all but N. Default: etcd-snapshot-retention of the config
      file, or 5.
  restore NAME [--files]
      Go back to a snapshot. kedge must be stopped. The database it replaces is kept beside the new one. With --files the
      cluster's authorities, keys and tokens go back too: for a machine that was installed anew.

Snapshots lie in /var/lib/kedge/server/db/snapshots; copy the folder to another machine to have a backup. The commands run on a server, as
root.`,
		&cli.Command{
			Name: "save", Usage: "take a snapshot now", Flags: []cli.Flag{&cli.StringFlag{Name: "name"}},
			Action: func(c *cli.Context) error {
				return p.withStore(func(cfg datastore.Config) error { return p.saveSnapshot(c, cfg) })
			},
		},
		&cli.Command{
			Name: "list", Aliases: []string{"ls"}, Usage: "show the snapshots", Flags: []cli.Flag{outputFlag()},
			Action: func(c *cli.Context) error {
				return p.withStore(func(cfg datastore.Config) error { return p.listSnapshots(cfg, c.String("output")) })
			},
		},
		&cli.Command{
			Name: "delete", Usage: "delete snapshots", ArgsUsage: "NAME...",
			Action: func(c *cli.Context) error {
				return p.withStore(func(cfg datastore.Config) error { return deleteSnapshots(cfg, c.Args().Slice()) })
			},
		},
		&cli.Command{
			Name: "prune", Usage: "delete old snapshots", Flags: []cli.Flag{&cli.IntFlag{Name: "snapshot-retention"}},
			Action: func(c *cli.Context) error {
				keep := c.Int("snapshot-retention")
				if !c.IsSet("snapshot-retention") {
					keep = cmp.Or(installed().SnapshotRetention, 5)
				}
				return p.withStore(func(cfg datastore.Config) error { return p.pruneSnapshots(cfg, keep) })
			},
		},
		&cli.Command{
			Name: "restore", Usage: "go back to a snapshot", ArgsUsage: "NAME", Flags: []cli.Flag{&cli.BoolFlag{Name: "files"}},
			Action: func(c *cli.Context) error {
				return p.withStore(func(datastore.Config) error { return p.restoreSnapshot(c) })
			},
		})
	c.Aliases = []string{"etcd-snapshot"}
	return c
}

// withStore calls do with the datastore of this machine's server.
func (p *program) withStore(do func(datastore.Config) error) error {
	cfg := installed()
	if os.Geteuid() != 0 {
		return errors.New("only root may do this: use sudo")
	}
	if err := hasStore(cfg); err != nil {
		return err
	}
	store := server.StoreConfig(cfg.DataDir)
	if _, err := os.Stat(store.Dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no datastore in %s: run this command on a server", store.Dir)
	}
	return do(store)
}

// hasStore says why this machine has no datastore that these commands know.
func hasStore(cfg config.Server) error {
	if cfg.DatastoreEndpoint != "" {
		return fmt.Errorf("the datastore is at %s, not on this machine: use its own tools", cfg.DatastoreEndpoint)
	}
	return nil
}

func (p *program) saveSnapshot(c *cli.Context, cfg datastore.Config) error {
	info, err := datastore.SaveSnapshot(c.Context, cfg, c.String("name"))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.out, info.Name)
	return err
}

func (p *program) listSnapshots(cfg datastore.Config, output string) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	infos, err := datastore.ListSnapshots(cfg)
	if err != nil {
		return err
	}
	if output == "json" {
		return printJSON(p.out, infos)
	}
	return printSnapshots(p.out, infos, time.Now())
}

func printSnapshots(w io.Writer, infos []datastore.Snapshot, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NAME\tAGE\tREVISION\tSIZE\tTAKEN")
	for _, s := range infos {
		taken := "by hand"
		if s.Scheduled {
			taken = "on schedule"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%.1f MiB\t%s\n", s.Name, age(s.Time, now), s.Revision, float64(s.Size)/(1<<20), taken)
	}
	return t.Flush()
}

func deleteSnapshots(cfg datastore.Config, names []string) error {
	if len(names) == 0 {
		return errors.New("snapshot delete: give the name of a snapshot (see kedge snapshot list)")
	}
	var failed error
	for _, name := range names {
		failed = errors.Join(failed, datastore.DeleteSnapshot(cfg, name))
	}
	return failed
}

func (p *program) pruneSnapshots(cfg datastore.Config, keep int) error {
	if keep < 1 {
		return fmt.Errorf("--snapshot-retention: %d is less than 1; delete single snapshots with kedge snapshot delete", keep)
	}
	infos, err := datastore.ListSnapshots(cfg)
	if err != nil {
		return err
	}
	for _, old := range datastore.ExpiredSnapshots(infos, keep) {
		if err := datastore.DeleteSnapshot(cfg, old.Name); err != nil {
			return err
		}
		fmt.Fprintln(p.out, old.Name)
	}
	return nil
}

func (p *program) restoreSnapshot(c *cli.Context) error {
	args := c.Args().Slice()
	files := c.Bool("files")
	if len(args) == 2 && strings.TrimLeft(args[1], "-") == "files" { // flags may follow the name
		args, files = args[:1], true
	}
	if len(args) != 1 {
		return errors.New("snapshot restore: give the name of one snapshot (see kedge snapshot list)")
	}
	unlock, err := lockStopped(installed().DataDir)
	if err != nil {
		return err
	}
	settings := installed()
	if err = completeAddresses(&settings); err != nil {
		return errors.Join(err, unlock())
	}
	info, err := server.RestoreSnapshot(settings, args[0], files)
	if err = errors.Join(err, unlock()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "the datastore is that of %s, revision %d: start kedge again\n", info.Time.UTC().Format(time.RFC3339), info.Revision)
	return err
}
