package cli

import (
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/config"
)

// settingFlags makes a flag of each setting. Defaults, environment and file are config's business.
func settingFlags(settings []config.Setting) []cli.Flag {
	flags := []cli.Flag{&cli.StringFlag{Name: "config", Aliases: []string{"c"}}}
	for _, s := range settings {
		var aliases []string
		if s.Short != "" {
			aliases = []string{s.Short}
		}
		switch {
		case s.Bool():
			flags = append(flags, &cli.BoolFlag{Name: s.Name, Aliases: aliases, Hidden: s.Hidden()})
		case s.Repeat:
			flags = append(flags, &cli.StringSliceFlag{Name: s.Name, Aliases: aliases, Hidden: s.Hidden()})
		default:
			flags = append(flags, &cli.StringFlag{Name: s.Name, Aliases: aliases, Hidden: s.Hidden()})
		}
	}
	return flags
}

// sources collects the flags that were given.
func sources(c *cli.Context, settings []config.Setting) config.Sources {
	src := config.Sources{File: c.String("config"), Flags: map[string][]string{}}
	for _, s := range settings {
		switch {
		case !c.IsSet(s.Name):
		case s.Bool():
			src.Flags[s.Name] = []string{strconv.FormatBool(c.Bool(s.Name))}
		case s.Repeat:
			src.Flags[s.Name] = c.StringSlice(s.Name)
		default:
			src.Flags[s.Name] = []string{c.String(s.Name)}
		}
	}
	return src
}

// installed returns the settings of the kedge on this machine as far as file and environment tell, for commands that look
// for its files. With a config that cannot be read it returns the defaults: a mistake there must not take kubectl away.
func installed() config.Server {
	cfg, err := config.LoadServer(config.Sources{})
	if err != nil {
		return config.Server{
			Agent: config.Agent{DataDir: config.DefaultDataDir}, WriteKubeconfig: config.DefaultKubeconfig,
		}
	}
	return cfg
}
