package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/server"
	"github.com/kedge-io/kedge/pkg/status"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// slowestStart is how long one part may take to become ready: an old board with a worn card is slow, not broken, and giving
// up would start all of it again.
const slowestStart = 5 * time.Minute

// runServer runs the parts of a server until ctx is done.
func (p *program) runServer(ctx context.Context, cfg config.Server, log *slog.Logger) error {
	if cfg.ClusterReset {
		return p.resetCluster(ctx, cfg, log)
	}
	parts, err := site(ctx, cfg, log)
	if err != nil {
		return unlessStopped(ctx, err)
	}
	return p.supervise(ctx, "server", log, parts)
}

// unlessStopped is an error of the preparation, or nil when it only says that kedge was asked to stop meanwhile.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// resetCluster leaves this server alone in its datastore.
func (p *program) resetCluster(ctx context.Context, cfg config.Server, log *slog.Logger) error {
	if err := completeAddresses(&cfg); err != nil {
		return err
	}
	if err := server.Reset(ctx, cfg, log); err != nil {
		return err
	}
	_, err := fmt.Fprintf(p.out, "this server is alone now: start kedge without --cluster-reset. On the others, remove %s before they join again.\n",
		filepath.Join(cfg.DataDir, "server", "db", "etcd"))
	return err
}

// supervise runs the parts behind the status socket, and tells systemd when they are ready and when they stop.
func (p *program) supervise(ctx context.Context, mode string, log *slog.Logger, parts []supervisor.Component) error {
	tell := func(message func() error) func() {
		return func() {
			if err := message(); err != nil {
				log.Warn("the service manager was not told", "error", err)
			}
		}
	}
	var sup *supervisor.Supervisor
	socket, err := status.New(status.Config{
		Mode: mode, Systemd: p.systemd,
		Components: func() []supervisor.Status { return sup.Status() },
	})
	if err != nil {
		return err
	}
	sup = supervisor.New(supervisor.Config{
		Log: log, ReadyTimeout: slowestStart, OnReady: tell(p.systemd.Ready), OnStopping: tell(p.systemd.Stopping),
	}, append([]supervisor.Component{socket}, parts...)...)
	return sup.Run(ctx)
}
