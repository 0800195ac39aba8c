package cli

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/config"
)

// overview lists the commands.
func overview(commands []*cli.Command) string {
	var b strings.Builder
	b.WriteString("kedge - a complete Kubernetes site in one binary\n\nUSAGE\n  kedge COMMAND [FLAGS]\n\nCOMMANDS\n")
	for _, c := range commands {
		if !c.Hidden {
			fmt.Fprintf(&b, "  %-14s %s\n", c.Name, c.Usage)
		}
	}
	b.WriteString("\nEach command has its own --help. Called by the name kubectl, ctr or crictl, kedge is that command.\n")
	return b.String()
}

// help is the short help of a command without settings.
func help(name, args, usage, text string) string {
	return fmt.Sprintf("kedge %s - %s\n\nUSAGE\n  kedge %s %s\n\n%s\n", name, usage, name, args, strings.TrimRight(strings.TrimLeft(text, "\n"), " \n"))
}

// manual is the help of server and agent: every setting under its heading, with default, environment and meaning.
func manual(name, usage string, settings []config.Setting) string {
	var b strings.Builder
	fmt.Fprintf(&b, "kedge %s - %s\n\nUSAGE\n  kedge %s [FLAGS]\n", name, usage, name)
	fmt.Fprintf(&b, `
SETTINGS
  Each setting is a flag, and a key of the same name in the config file; some are environment variables too. The command
  line wins over the environment, which wins over the config file. A flag marked "repeat" may be given several times; in
  the config file it is a list. Values of addresses, networks and add-ons may also be separated by commas.

  --config FILE, -c FILE
      Config file, in YAML. Files in FILE.d that end in .yaml or .yml are read after it, in the order of their names; their
      keys replace those before, and a key ending in + appends to a list.
      Default %s, which may be missing. Environment %s.
  --help, -h
      Show this manual.
`, config.DefaultFile, strings.Join(config.ConfigEnv(), ", "))
	group := ""
	for _, s := range settings {
		if s.Hidden() {
			continue
		}
		if s.Group != group {
			group = s.Group
			fmt.Fprintf(&b, "\n%s\n", strings.ToUpper(group))
		}
		b.WriteString(describe(s))
	}
	return b.String()
}

func describe(s config.Setting) string {
	form := func(dashes, name string) string {
		if s.Bool() {
			return dashes + name
		}
		return dashes + name + " " + s.Value
	}
	line := "  " + form("--", s.Name)
	if len(s.Name) == 1 {
		line = "  " + form("-", s.Name)
	}
	if s.Short != "" {
		line += ", " + form("-", s.Short)
	}
	if s.Repeat {
		line += " (repeat)"
	}
	line += "\n      " + s.Usage + "\n"
	var facts []string
	switch {
	case s.DefaultText != "":
		facts = append(facts, "Default: "+s.DefaultText+".")
	case s.Default != "":
		facts = append(facts, "Default "+s.Default+".")
	case s.Bool():
		facts = append(facts, "Default false.")
	default:
		facts = append(facts, "Default: none.")
	}
	if len(s.Env) > 0 {
		facts = append(facts, "Environment "+strings.Join(s.Env, ", ")+".")
	}
	return line + "      " + strings.Join(facts, " ") + "\n"
}
