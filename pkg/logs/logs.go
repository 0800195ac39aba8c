// Package logs sets up the one log of the process: slog for kedge's own lines, and the same
// output for what klog (Kubernetes) and logrus (containerd, CNI) write.
// It is a foundation; cli calls it once, before anything else is constructed.
package logs

import (
	"errors"
	"flag"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"strconv"

	"github.com/sirupsen/logrus"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

// Config says how much is logged and where.
type Config struct {
	// Output receives every line.
	Output io.Writer
	// Debug shows debug lines of kedge, info lines of Kubernetes and containerd.
	Debug bool
	// Verbosity is klog's -v: the detail of Kubernetes' own lines. Above 0 it implies their info lines.
	Verbosity int
	// VModule is klog's per-file verbosity, a comma-separated list of pattern=N.
	VModule string
}

// Setup applies cfg to klog, logrus and slog's default, and returns kedge's logger.
// It returns an error when VModule cannot be parsed.
func Setup(cfg Config) (*slog.Logger, error) {
	level := slog.LevelInfo
	if cfg.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(cfg.Output, &slog.HandlerOptions{Level: level}))
	if err := setupKlog(cfg); err != nil {
		return nil, err
	}
	// CoreDNS and HTTP servers write here what their own parts report better.
	stdlog.SetFlags(0)
	stdlog.SetOutput(slog.NewLogLogger(log.Handler(), slog.LevelDebug).Writer())
	logrus.SetOutput(cfg.Output)
	logrus.SetLevel(logrus.ErrorLevel)
	if cfg.Debug {
		logrus.SetLevel(logrus.InfoLevel)
	}
	return log, nil
}

// setupKlog sends Kubernetes' lines through Filter, in klog's own format. It goes by a logger and not by
// klog's output flags, because containerd's CRI plugin sets those flags back.
func setupKlog(cfg Config) error {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	text := textlogger.NewConfig(textlogger.Verbosity(cfg.Verbosity), textlogger.Output(filter{out: cfg.Output, all: cfg.wantsInfo()}))
	if err := flags.Set("v", strconv.Itoa(cfg.Verbosity)); err != nil {
		return fmt.Errorf("set v to %d: %w", cfg.Verbosity, err)
	}
	if cfg.VModule != "" {
		if err := errors.Join(flags.Set("vmodule", cfg.VModule), text.VModule().Set(cfg.VModule)); err != nil {
			return fmt.Errorf("set vmodule to %q: %w", cfg.VModule, err)
		}
	}
	lines := filter{out: cfg.Output, all: cfg.wantsInfo()}
	klog.SetLoggerWithOptions(textlogger.NewLogger(text), klog.ContextualLogger(true), klog.WriteKlogBuffer(func(line []byte) {
		_, _ = lines.Write(line)
	}))
	return nil
}

// wantsInfo reports whether the info lines of Kubernetes are shown.
func (c Config) wantsInfo() bool { return c.Debug || c.Verbosity > 0 || c.VModule != "" }
