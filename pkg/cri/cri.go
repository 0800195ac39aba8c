// Package cri runs containerd in this process and brings images into its store.
// Only agent imports it, and no other package imports containerd's server.
package cri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/cmd/containerd/server"
	serverconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kedge-io/kedge/pkg/cri/registries"
	"github.com/kedge-io/kedge/pkg/cri/runtimes"
)

// Namespace is where the CRI keeps its images and containers.
const Namespace = "k8s.io"

// Containerd is containerd with its CRI service, as a component.
type Containerd struct {
	cfg        Config
	log        *slog.Logger
	registries registries.Config
	started    atomic.Bool
	conn       *grpc.ClientConn
}

// New checks cfg and writes containerd's configuration file; it starts nothing.
func New(cfg Config, log *slog.Logger) (*Containerd, error) {
	if !filepath.IsAbs(cfg.Root) || !filepath.IsAbs(cfg.State) {
		return nil, fmt.Errorf("containerd root %q and state %q must be absolute paths", cfg.Root, cfg.State)
	}
	known, err := registries.Read(cfg.RegistriesFile)
	if err != nil {
		return nil, fmt.Errorf("read private-registry: %w", err)
	}
	content, err := render(cfg, known.Logins(), runtimes.Find(cfg.SearchPath))
	if err != nil {
		return nil, err
	}
	if err := makeState(cfg.State); err != nil {
		return nil, fmt.Errorf("make containerd state directory: %w", err)
	}
	for _, dir := range []string{filepath.Dir(cfg.ConfigFile), filepath.Dir(cfg.Socket), cfg.CNIConfDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make containerd directory: %w", err)
		}
	}
	if err := os.WriteFile(cfg.ConfigFile, content, 0o600); err != nil {
		return nil, fmt.Errorf("write containerd configuration: %w", err)
	}
	conn, err := grpc.NewClient("unix://"+cfg.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("prepare CRI client: %w", err)
	}
	return &Containerd{cfg: cfg, log: log, registries: known, conn: conn}, nil
}

// makeState makes containerd's state directory and lets everyone pass through it and its parent: the root file system of a pod
// lies below, and the first process of one in a user namespace is not root here.
func makeState(dir string) error {
	const pass = 0o011
	if err := os.MkdirAll(dir, 0o700|pass); err != nil {
		return err
	}
	for _, d := range []string{filepath.Dir(dir), dir} {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		if info.Mode()&pass == pass {
			continue
		}
		if err := os.Chmod(d, info.Mode()|pass); err != nil {
			return err
		}
	}
	return nil
}

// Name implements supervisor.Component.
func (*Containerd) Name() string { return "containerd" }

// Run implements supervisor.Component. Shims and their containers go on when it ends.
func (c *Containerd) Run(ctx context.Context) error {
	var cfg serverconfig.Config
	if err := serverconfig.LoadConfig(ctx, c.cfg.ConfigFile, &cfg); err != nil {
		return fmt.Errorf("load configuration: %w", err)
	}
	if err := server.CreateTopLevelDirectories(&cfg); err != nil {
		return fmt.Errorf("make directories: %w", err)
	}
	// A socket left by a killed process would refuse our own.
	for _, s := range []string{c.cfg.Socket, c.cfg.Socket + ".ttrpc"} {
		if err := os.Remove(s); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove stale socket: %w", err)
		}
	}
	if err := c.prepareRegistries(ctx); err != nil {
		return err
	}
	srv, err := server.New(ctx, &cfg)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := srv.Start(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer srv.Stop()
	if err := c.importPause(ctx); err != nil {
		return err
	}
	c.started.Store(true)
	<-ctx.Done()
	return c.conn.Close()
}

// Ready implements supervisor.Component: the CRI answers and the sandbox image is there.
func (c *Containerd) Ready(ctx context.Context) error {
	if !c.started.Load() {
		return errors.New("starting")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	status, err := runtimeapi.NewRuntimeServiceClient(c.conn).Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return fmt.Errorf("ask CRI: %w", err)
	}
	for _, cond := range status.GetStatus().GetConditions() {
		if cond.Type == runtimeapi.RuntimeReady && !cond.Status {
			return fmt.Errorf("%s: %s", cond.Reason, cond.Message)
		}
	}
	return nil
}

// prepareRegistries tells containerd how registries are reached, and serves mirrors that have images under other names.
func (c *Containerd) prepareRegistries(ctx context.Context) error {
	rewriter, err := registries.NewRewriter(c.registries, c.log)
	if errors.Is(err, registries.ErrNoRewrites) {
		return c.registries.Write(c.cfg.RegistryDir, nil)
	}
	if err != nil {
		return err
	}
	go func() {
		if err := rewriter.Serve(ctx); err != nil {
			c.log.Error("mirrors with rewrites are out of reach", "error", err)
		}
	}()
	return c.registries.Write(c.cfg.RegistryDir, rewriter.Through)
}

// importPause puts the bundled sandbox image into the store when it is not there. One that the operator
// chose is pulled, or imported from an archive, like any other.
func (c *Containerd) importPause(ctx context.Context) error {
	if c.cfg.PauseArchive == "" {
		return nil
	}
	client, err := containerd.New(c.cfg.Socket, containerd.WithDefaultNamespace(Namespace))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer client.Close()
	if img, err := client.GetImage(ctx, c.cfg.PauseImage); err == nil {
		if ok, err := img.IsUnpacked(ctx, c.cfg.Snapshotter); err == nil && ok {
			return nil
		}
	}
	if _, err := Import(ctx, client, c.cfg.PauseArchive, c.cfg.Snapshotter); err != nil {
		return fmt.Errorf("import sandbox image: %w", err)
	}
	if _, err := client.GetImage(ctx, c.cfg.PauseImage); err != nil {
		return fmt.Errorf("sandbox image %s is not in %s: %w", c.cfg.PauseImage, c.cfg.PauseArchive, err)
	}
	return nil
}

// CanLowerOOMScore reports whether this process may lower oom_score_adj of its children.
func CanLowerOOMScore() bool {
	var hdr unix.CapUserHeader
	var data [2]unix.CapUserData
	hdr.Version = unix.LINUX_CAPABILITY_VERSION_3
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[unix.CAP_SYS_RESOURCE/32].Effective&(1<<(unix.CAP_SYS_RESOURCE%32)) != 0
}
