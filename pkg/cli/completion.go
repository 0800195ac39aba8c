package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"k8s.io/kubectl/pkg/cmd"
)

func (p *program) completionCommand() *cli.Command {
	const usage = "print the completion script of a shell"
	return &cli.Command{
		Name: "completion", Usage: usage, ArgsUsage: "bash|zsh|fish",
		CustomHelpTemplate: help("completion", "bash|zsh|fish", usage, `
  source <(kedge completion bash)                                    this bash
  kedge completion bash > /etc/bash_completion.d/kedge               every bash
  kedge completion zsh > "${fpath[1]}/_kedge"                        zsh
  kedge completion fish > ~/.config/fish/completions/kedge.fish      fish`),
		Action: func(c *cli.Context) error {
			script, ok := completionScripts()[c.Args().First()]
			if !ok || c.Args().Len() != 1 {
				return fmt.Errorf("completion: give one of bash, zsh, fish")
			}
			_, err := io.WriteString(p.out, script)
			return err
		},
	}
}

// completionScripts ask kedge itself for the candidates, so that they never get out of date.
func completionScripts() map[string]string {
	return map[string]string{
		"bash": `# bash completion for kedge
_kedge() {
    local IFS=$'\n' cur="${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=($(compgen -W "$(kedge __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "$cur"))
}
complete -o default -F _kedge kedge
`,
		"zsh": `#compdef kedge
_kedge() {
    local -a candidates
    candidates=(${(f)"$(kedge __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( $#candidates )); then compadd -a candidates; else _files; fi
}
if [ "$funcstack[1]" = "_kedge" ]; then _kedge "$@"; else compdef _kedge kedge; fi
`,
		"fish": `# fish completion for kedge
complete -c kedge -a '(kedge __complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
`,
	}
}

// completeCommand answers the scripts: its arguments are the words after kedge, the last one unfinished.
func (p *program) completeCommand() *cli.Command {
	return &cli.Command{
		Name: "__complete", Hidden: true, SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			words := c.Args().Slice()
			if len(words) > 1 && words[0] == "kubectl" {
				return p.completeKubectl(words[1:])
			}
			for _, candidate := range candidates(words, p.app().Commands) {
				if _, err := fmt.Fprintln(p.out, candidate); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// candidates are the words that may stand in the last place of words.
func candidates(words []string, commands []*cli.Command) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	unfinished := words[len(words)-1]
	var all []string
	if len(words) == 1 {
		for _, c := range commands {
			if !c.Hidden {
				all = append(all, c.Name)
			}
		}
	} else if i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == words[0] }); i >= 0 {
		if len(commands[i].Subcommands) > 0 && !(len(words) == 2 && strings.HasPrefix(unfinished, "-")) {
			return candidates(words[1:], commands[i].Subcommands)
		}
		if strings.Contains(commands[i].ArgsUsage, "|") {
			all = strings.Split(commands[i].ArgsUsage, "|")
		}
		if strings.HasPrefix(unfinished, "-") {
			all = longFlags(commands[i])
		}
	}
	return slices.DeleteFunc(all, func(w string) bool { return !strings.HasPrefix(w, unfinished) })
}

func longFlags(c *cli.Command) []string {
	var names []string
	for _, f := range c.Flags {
		visible, ok := f.(cli.VisibleFlag)
		if name := f.Names()[0]; len(name) > 1 && ok && visible.IsVisible() {
			names = append(names, "--"+name)
		}
	}
	return names
}

// completeKubectl asks kubectl's own completion, which puts a description behind a tab and a directive in the last line.
func (p *program) completeKubectl(words []string) error {
	if err := p.chooseKubeconfig(words); err != nil {
		return err
	}
	os.Args = append([]string{"kubectl", "__complete"}, words...)
	var answer bytes.Buffer
	command := cmd.NewDefaultKubectlCommand()
	command.SetOut(&answer)
	command.SetErr(io.Discard)
	if err := command.Execute(); err != nil {
		return fmt.Errorf("complete kubectl: %w", err)
	}
	for line := range strings.Lines(answer.String()) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if word == "" || strings.HasPrefix(word, ":") {
			continue
		}
		if _, err := fmt.Fprintln(p.out, word); err != nil {
			return err
		}
	}
	return nil
}
