package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/check"
	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/join"
	"github.com/kedge-io/kedge/pkg/logs"
	"github.com/kedge-io/kedge/pkg/version"
)

func (p *program) serverCommand() *cli.Command {
	const usage = "run a server: the control plane and, unless --disable-agent, a node"
	settings := config.ServerSettings()
	return &cli.Command{
		Name: "server", Usage: usage, Flags: settingFlags(settings),
		CustomHelpTemplate: manual("server", usage, settings),
		Action: func(c *cli.Context) error {
			cfg, err := config.LoadServer(sources(c, settings))
			if err != nil {
				return err
			}
			for _, url := range cfg.Servers {
				if err := join.CheckURL(url); err != nil {
					return err
				}
			}
			return p.start(cfg.Log, serverChecks(cfg), func(ctx context.Context, log *slog.Logger) error {
				return p.runServer(ctx, cfg, log)
			})
		},
	}
}

// serverChecks says what a server with these settings needs of the machine.
func serverChecks(cfg config.Server) check.Config {
	return check.Config{
		DataDir: cfg.DataDir, BindAddress: cfg.BindAddress, Port: cfg.Port,
		Node: !cfg.DisableAgent, KubeProxy: !cfg.DisableKubeProxy, Snapshotter: cfg.Snapshotter,
		Files: map[string]string{
			"resolv-conf": cfg.ResolvConf, "datastore-cafile": cfg.DatastoreCAFile,
			"datastore-certfile": cfg.DatastoreCertFile, "datastore-keyfile": cfg.DatastoreKeyFile, "private-registry": namedRegistry(cfg.Agent),
		},
		CAFile: certs.NewServerPaths(cfg.DataDir).ServerCA.Cert, Built: version.Get().Date,
	}
}

// start checks the machine, takes the data directory, and calls run with a context that ends at SIGINT or SIGTERM.
func (p *program) start(l config.Log, machine check.Config, run func(context.Context, *slog.Logger) error) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("kedge must run as root: use sudo")
	}
	output, closeLog, err := p.openLog(l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLog()) }()
	log, err := logs.Setup(logs.Config{Output: output, Debug: l.Debug, Verbosity: l.Verbosity, VModule: l.VModule})
	if err != nil {
		return fmt.Errorf("set up the log: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends kedge at once
	if err := awaitClock(ctx, machine, log); err != nil {
		return err
	}
	unlock, err := takeDataDir(machine, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return run(ctx, log)
}

// awaitClock waits until the clock of a machine that has been a site before can be right, as after a boot without a
// battery clock, and moves it to the last known time when nobody else does. A machine that has not is refused by the checks.
func awaitClock(ctx context.Context, machine check.Config, log *slog.Logger) error {
	if known, err := certs.List(machine.DataDir); err != nil || len(known) == 0 {
		return nil // an unreadable directory is what the checks are for
	}
	const patience = 30 * time.Second
	return certs.WaitClock(ctx, certs.ClockConfig{
		DataDir: machine.DataDir, BuildTime: machine.Built, Patience: patience, Step: certs.StepSystemClock, Log: log,
	})
}

// takeDataDir makes sure that this kedge, and only this one, may work on the data directory of this machine.
func takeDataDir(machine check.Config, log *slog.Logger) (unlock func() error, err error) {
	unlock, err = check.Lock(machine.DataDir)
	if err != nil {
		return nil, err
	}
	current := version.Get().Version
	if err = check.CanRead(machine.DataDir, current); err == nil {
		err = preflight(machine, log)
	}
	if err == nil {
		err = check.MarkVersion(machine.DataDir, current)
	}
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	return unlock, nil
}

func preflight(machine check.Config, log *slog.Logger) error {
	warnings, err := check.Preflight(machine)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		log.Warn("limited by this machine", "check", w.Name, "found", w.Detail, "fix", w.Fix)
	}
	return nil
}

// openLog returns where the log goes.
func (p *program) openLog(l config.Log) (io.Writer, func() error, error) {
	if l.File == "" {
		return p.err, func() error { return nil }, nil
	}
	f, err := os.OpenFile(l.File, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("--log: %w", err)
	}
	if l.AlsoStderr {
		return io.MultiWriter(f, p.err), f.Close, nil
	}
	return f, f.Close, nil
}
