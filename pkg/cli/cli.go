// Package cli is the command line of kedge: one file a command. It turns flags, files and environment into a config, owns
// the signals, and puts server and agent together. Only cmd/kedge imports it.
package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/status"
)

// program is what the commands share: where they write, and the way to the service manager.
type program struct {
	out, err io.Writer
	systemd  status.Systemd
}

// Run runs the command that args ask for; args[0] is the name kedge was called by. What it returns goes to PrintError and
// ExitCode.
func Run(args []string, out, errOut io.Writer) error {
	p := &program{out: out, err: errOut, systemd: status.TakeSystemd()}
	return p.app().Run(multicall(args))
}

// multicall makes `kubectl ...` of a link with that name mean `kedge kubectl ...`.
func multicall(args []string) []string {
	name := filepath.Base(args[0])
	for _, command := range []string{"kubectl", "ctr", "crictl"} {
		if name == command {
			return append([]string{"kedge", command}, args[1:]...)
		}
	}
	return args
}

// exit is an error with an exit code of its own; a nil error prints nothing.
type exit struct {
	code int
	err  error
}

func (e exit) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exit) Unwrap() error { return e.err }

// ExitCode is 0 for nil, and 1 unless the command chose another.
func ExitCode(err error) int {
	var e exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.code
	}
	return 1
}

// PrintError writes an error for the operator, each line of it with kedge's name in front.
func PrintError(w io.Writer, err error) {
	if err == nil || err.Error() == "" {
		return
	}
	for line := range strings.SplitSeq(strings.TrimSpace(err.Error()), "\n") {
		fmt.Fprintf(w, "kedge: %s\n", line)
	}
}

func (p *program) app() *cli.App {
	app := cli.NewApp()
	app.Name = "kedge"
	app.Usage = "a complete Kubernetes site in one binary"
	app.Writer, app.ErrWriter = p.out, p.err
	app.HideHelp, app.HideVersion = true, true
	app.CustomAppHelpTemplate = overview(p.commands())
	app.DisableSliceFlagSeparator = true // an argument of the kubelet may contain commas
	app.ExitErrHandler = func(*cli.Context, error) {}
	app.Commands = p.commands()
	app.Flags = []cli.Flag{helpFlag(), &cli.BoolFlag{Name: "version"}}
	app.OnUsageError = p.usageError
	app.Action = func(c *cli.Context) error {
		switch {
		case c.Bool("version"):
			return p.printVersion("")
		case c.Args().Len() == 0 || c.Args().First() == "help":
			_, err := io.WriteString(p.out, overview(p.commands()))
			return err
		}
		return unknownCommand(c.Args().First(), "kedge", p.commands())
	}
	for _, c := range app.Commands {
		p.withHelp(c)
	}
	return app
}

func (p *program) commands() []*cli.Command {
	return []*cli.Command{
		p.serverCommand(), p.agentCommand(), p.statusCommand(), p.checkConfigCommand(), p.tokenCommand(), p.nodeCommand(),
		p.snapshotCommand(), p.secretsCommand(), p.certificateCommand(), p.deviceCommand(), p.mapperCommand(),
		p.kubectlCommand(), p.ctrCommand(), p.crictlCommand(),
		p.versionCommand(), p.completionCommand(), p.completeCommand(),
	}
}

// withHelp gives a command our usage errors, our help, and no arguments beyond those it names in ArgsUsage.
func (p *program) withHelp(c *cli.Command) {
	c.HideHelp, c.HideHelpCommand = true, true
	if c.SkipFlagParsing {
		return // what follows belongs to another program
	}
	c.Flags = append(c.Flags, helpFlag())
	c.OnUsageError = p.usageError
	action := c.Action
	c.Action = func(ctx *cli.Context) error {
		if ctx.Bool("help") {
			_, err := io.WriteString(p.out, c.CustomHelpTemplate)
			return err
		}
		if c.ArgsUsage == "" && ctx.Args().Len() > 0 {
			name := fullName(ctx)
			return fmt.Errorf("%s: unexpected argument %q (see kedge %s --help)", name, ctx.Args().First(), name)
		}
		return action(ctx)
	}
}

func helpFlag() cli.Flag {
	return &cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "Show this help."}
}

// fullName is a command with those above it, without kedge.
func fullName(c *cli.Context) string {
	if c.Command == nil || c.Command.Name == "" || c.Command.Name == "kedge" {
		return ""
	}
	if _, full, ok := strings.Cut(c.Command.HelpName, " "); ok {
		return full
	}
	return c.Command.Name
}

// unknownCommand is about a name below the command above.
func unknownCommand(name, above string, commands []*cli.Command) error {
	var names []string
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	if near := config.Nearest(name, names); near != "" {
		return fmt.Errorf("unknown command %q, did you mean %s?", name, near)
	}
	return fmt.Errorf("unknown command %q (see %s --help)", name, above)
}

// usageError says in one line what is wrong with the flags. The wording it translates is that of package flag.
func (p *program) usageError(c *cli.Context, err error, _ bool) error {
	command := strings.TrimSpace("kedge " + fullName(c))
	text := err.Error()
	if flag, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		hint := "see " + command + " --help"
		flag = strings.TrimLeft(flag, "-")
		if near := config.Nearest(flag, flagNames(c)); near != "" {
			hint = "did you mean --" + near + "?"
		}
		return fmt.Errorf("unknown flag --%s: %s", flag, hint)
	}
	if flag, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		return fmt.Errorf("flag --%s needs a value (see %s --help)", strings.TrimLeft(flag, "-"), command)
	}
	if m := regexp.MustCompile(`^invalid (boolean )?value "(.*)" for (?:flag )?-(\S+): `).FindStringSubmatch(text); m != nil {
		wrong := "cannot be understood"
		if m[1] != "" {
			wrong = "is neither true nor false"
		}
		return fmt.Errorf("--%s: %q %s (see %s --help)", strings.TrimLeft(m[3], "-"), m[2], wrong, command)
	}
	return fmt.Errorf("%s (see %s --help)", text, command)
}

func flagNames(c *cli.Context) []string {
	flags := c.App.Flags
	if c.Command != nil && len(c.Command.Flags) > 0 {
		flags = c.Command.Flags
	}
	var names []string
	for _, f := range flags {
		if long := f.Names()[0]; len(long) > 1 {
			names = append(names, long)
		}
	}
	return names
}
