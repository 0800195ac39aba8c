package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/config"
	"github.com/kedge-io/kedge/pkg/join"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/server"
)

// apiTimeout bounds a command that asks the API server of this machine.
const apiTimeout = 30 * time.Second

func (p *program) tokenCommand() *cli.Command {
	const usage = "make, list, delete and rotate tokens with which nodes join"
	return p.family("token", usage, `
  create [--ttl DURATION] [--description TEXT]
      Print a new token that expires. Default of --ttl: 24h; 0 for never.
  list [-o table|json]
      Show the tokens that expire, without their secrets.
  delete ID...
      Delete tokens that expire.
  rotate [--agent] [--new-token SECRET]
      Replace the server's token, or with --agent its agent-token, and print the new one. The old one is refused at once;
      nodes that have joined do not need it. Of several servers, the others follow; those that are off do when they start.

Commands about tokens run on a server, as root.`,
		&cli.Command{
			Name: "create", Usage: "print a new token that expires",
			Flags: []cli.Flag{&cli.DurationFlag{Name: "ttl", Value: 24 * time.Hour}, &cli.StringFlag{Name: "description"}},
			Action: func(c *cli.Context) error {
				return p.createToken(c.Context, c.Duration("ttl"), c.String("description"))
			},
		},
		refused("generate", "use kedge token create, which makes a token and has the server accept it"),
		&cli.Command{
			Name: "list", Usage: "show the tokens that expire", Flags: []cli.Flag{outputFlag()},
			Action: func(c *cli.Context) error { return p.listTokens(c.Context, c.String("output")) },
		},
		&cli.Command{
			Name: "delete", Usage: "delete tokens that expire", ArgsUsage: "ID...",
			Action: func(c *cli.Context) error { return p.deleteTokens(c.Context, c.Args().Slice()) },
		},
		&cli.Command{
			Name: "rotate", Usage: "replace the server's token",
			Flags: []cli.Flag{&cli.BoolFlag{Name: "agent"}, &cli.StringFlag{Name: "new-token"}},
			Action: func(c *cli.Context) error {
				return p.rotateToken(c.Context, installed(), c.Bool("agent"), c.String("new-token"))
			},
		})
}

func (p *program) nodeCommand() *cli.Command {
	const usage = "manage the identity of nodes"
	return p.family("node", usage, `
  readopt NAME
      Forget the key of a node: the next machine with a valid token that asks for the name gets it. For a machine that was
      installed anew, or replaced.

The command runs on a server, as root.`,
		&cli.Command{
			Name: "readopt", Usage: "let another machine take a node's name", ArgsUsage: "NAME",
			Action: func(c *cli.Context) error {
				if c.Args().Len() != 1 {
					return errors.New("node readopt: give the name of one node")
				}
				return p.readopt(c.Context, c.Args().First())
			},
		})
}

// family is a command that only has commands below it.
func (p *program) family(name, usage, text string, members ...*cli.Command) *cli.Command {
	manual := help(name, "COMMAND", usage, strings.TrimRight(text, "\n")+`

Each takes --data-dir DIR (-d DIR), for a kedge whose data are elsewhere and whose config file does not say so.`)
	for _, m := range members {
		m.CustomHelpTemplate = manual
		m.Flags = append(m.Flags, &cli.StringFlag{Name: "data-dir", Aliases: []string{"d"}})
		m.Before = useDataDir
		p.withHelp(m)
	}
	return &cli.Command{
		Name: name, Usage: usage, CustomHelpTemplate: manual, Subcommands: members, ArgsUsage: "COMMAND",
		Action: func(c *cli.Context) error {
			if c.Args().Len() > 0 {
				return unknownCommand(c.Args().First(), "kedge "+name, members)
			}
			_, err := io.WriteString(p.out, manual)
			return err
		},
	}
}

// refused is a command that others of the family have, with the way out.
func refused(name, reason string) *cli.Command {
	return &cli.Command{Name: name, Hidden: true, ArgsUsage: "...", Action: func(c *cli.Context) error {
		return fmt.Errorf("%s is not built: %s", fullName(c), reason)
	}}
}

// useDataDir makes --data-dir of a command below a family that of the settings of this machine.
func useDataDir(c *cli.Context) error {
	if !c.IsSet("data-dir") {
		return nil
	}
	if dir := c.String("data-dir"); !filepath.IsAbs(dir) {
		return fmt.Errorf("--data-dir: %q is not an absolute path", dir)
	}
	return os.Setenv("KEDGE_DATA_DIR", c.String("data-dir"))
}

// serverSecrets reaches the Secrets in which joining keeps its things, as the administrator of the server on this machine.
func serverSecrets(cfg config.Server) (corev1client.SecretInterface, error) {
	path := certs.NewServerPaths(cfg.DataDir).AdminKubeconfig
	switch _, err := os.Stat(path); {
	case errors.Is(err, fs.ErrPermission):
		return nil, errors.New("only root may do this: use sudo")
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no server has run on this machine with the data directory %s: run this command on a server", cfg.DataDir)
	}
	rest, err := kube.Config(path, "cli")
	if err != nil {
		return nil, err
	}
	rest.Timeout = apiTimeout
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return client.CoreV1().Secrets(join.Namespace), nil
}

func (p *program) createToken(ctx context.Context, ttl time.Duration, description string) error {
	cfg := installed()
	secrets, err := serverSecrets(cfg)
	if err != nil {
		return err
	}
	bundle, err := os.ReadFile(certs.NewServerPaths(cfg.DataDir).ServerCA.Cert)
	if err != nil {
		return fmt.Errorf("read the cluster's authority: %w", err)
	}
	made, err := join.BootstrapTokens{Secrets: secrets}.Create(ctx, ttl, description)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.out, join.Token{CAHash: join.HashCA(bundle), BootstrapID: made.ID, Secret: made.Secret})
	return err
}

func (p *program) listTokens(ctx context.Context, output string) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	secrets, err := serverSecrets(installed())
	if err != nil {
		return err
	}
	tokens, err := join.BootstrapTokens{Secrets: secrets}.List(ctx)
	if err != nil {
		return err
	}
	if output == "json" {
		return printJSON(p.out, tokens)
	}
	return printTokens(p.out, tokens, time.Now())
}

func printTokens(w io.Writer, tokens []join.BootstrapToken, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "ID\tEXPIRES\tDESCRIPTION")
	for _, token := range tokens {
		expires := "never"
		switch {
		case token.Expires.IsZero():
		case !now.Before(token.Expires):
			expires = "expired"
		default:
			expires = "in " + age(now, token.Expires)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", token.ID, expires, token.Description)
	}
	return t.Flush()
}

func (p *program) deleteTokens(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return errors.New("token delete: give the ID of a token (see kedge token list)")
	}
	secrets, err := serverSecrets(installed())
	if err != nil {
		return err
	}
	var failed error
	for _, id := range ids {
		failed = errors.Join(failed, join.BootstrapTokens{Secrets: secrets}.Delete(ctx, id))
	}
	return failed
}

// rotateToken needs no API server: the token files are what counts, and what servers of one cluster keep in their datastore.
func (p *program) rotateToken(ctx context.Context, cfg config.Server, agent bool, secret string) error {
	setting, fixed := "token", cfg.Token != "" || cfg.TokenFile != ""
	if agent {
		setting, fixed = "agent-token", cfg.AgentToken != "" || cfg.AgentTokenFile != ""
	}
	files := join.NewTokenFiles(cfg.DataDir)
	before, agentBefore, err := files.Secrets()
	if errors.Is(err, fs.ErrPermission) {
		return errors.New("only root may do this: use sudo")
	}
	if err != nil {
		return fmt.Errorf("no server has run here: %w", err)
	}
	several, err := server.HasOthers(cfg)
	if err != nil {
		return err
	}
	if fixed && !several {
		return fmt.Errorf("the %s is set in the config file or the environment and would come back at the next start: change it there and restart kedge", setting)
	}
	rotated, err := files.Rotate(agent, secret)
	if err != nil {
		return err
	}
	if several {
		if err := server.ShareTokens(ctx, cfg); err != nil {
			_, undone := files.Take(before, agentBefore)
			return errors.Join(fmt.Errorf("nothing is changed: %w", err), undone)
		}
	}
	_, err = fmt.Fprintln(p.out, rotated)
	return err
}

func (p *program) readopt(ctx context.Context, node string) error {
	secrets, err := serverSecrets(installed())
	if err != nil {
		return err
	}
	if err := (join.Identities{Secrets: secrets}).Readopt(ctx, node); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "the name %s is free: start kedge on the machine that is to have it, with a token\n", node)
	return err
}
