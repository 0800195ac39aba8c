// Package logs sets up the one log of the process: slog for kedge's own lines, and the same
// output for what klog (Kubernetes) and logrus (containerd, CNI) write.
// It is a foundation; cli calls it once, before anything else is constructed.
package logs

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strconv"

	"github.com/sirupsen/logrus"
	"k8s.io/klog/v2"
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
	logrus.SetOutput(cfg.Output)
	logrus.SetLevel(logrus.ErrorLevel)
	if cfg.Debug {
		logrus.SetLevel(logrus.InfoLevel)
	}
	return log, nil
}

// setupKlog drops the info lines of Kubernetes unless they were asked for; warnings and errors
// pass through Filter. With one_output a line goes to its own severity's writer only.
func setupKlog(cfg Config) error {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	settings := [][2]string{
		{"logtostderr", "false"}, {"alsologtostderr", "false"}, {"stderrthreshold", "FATAL"},
		{"one_output", "true"}, {"v", strconv.Itoa(cfg.Verbosity)}, {"vmodule", cfg.VModule},
	}
	for _, s := range settings {
		if err := flags.Set(s[0], s[1]); err != nil {
			return fmt.Errorf("set --%s to %q: %w", s[0], s[1], err)
		}
	}
	info, rest := io.Discard, io.Writer(quiet{cfg.Output})
	if cfg.Debug || cfg.Verbosity > 0 || cfg.VModule != "" {
		info, rest = cfg.Output, cfg.Output
	}
	klog.SetOutputBySeverity("INFO", info)
	klog.SetOutputBySeverity("WARNING", rest)
	klog.SetOutputBySeverity("ERROR", rest)
	klog.SetOutputBySeverity("FATAL", cfg.Output)
	return nil
}
