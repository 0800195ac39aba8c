package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // credentials of other clusters in the user's kubeconfig
	kubecli "k8s.io/component-base/cli"
	kubelogs "k8s.io/component-base/logs"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"

	"github.com/kedge-io/kedge/pkg/autonomy"
)

func (p *program) kubectlCommand() *cli.Command {
	return &cli.Command{
		Name: "kubectl", Usage: "kubectl, for this site unless another is chosen; kubectl --local for this node alone", SkipFlagParsing: true,
		Action: func(c *cli.Context) error { return p.kubectl(c.Args().Slice()) },
	}
}

// kubectl runs the whole of kubectl in this process. Its commands end the process by themselves when they fail.
func (p *program) kubectl(args []string) error {
	if len(args) > 0 && args[0] == "--local" {
		args = args[1:]
		if err := useLocal(args); err != nil {
			return err
		}
	} else if err := p.chooseKubeconfig(args); err != nil {
		return err
	}
	os.Args = append([]string{"kubectl"}, args...) // plugins and completion read it
	if _, err := kubelogs.GlogSetter(cmd.GetLogVerbosity(os.Args)); err != nil {
		return fmt.Errorf("set up the log of kubectl: %w", err)
	}
	if err := kubecli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err) // prints as kubectl does, and exits
	}
	return nil
}

// chooseKubeconfig points KUBECONFIG at this site when the user has chosen no other.
func (p *program) chooseKubeconfig(args []string) error {
	home, _ := os.UserHomeDir() // without one there is no file in it
	if kubeconfigChosen(args, os.Getenv("KUBECONFIG"), home) {
		return nil
	}
	path := installed().WriteKubeconfig
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		fmt.Fprintf(p.err, "kedge: %s can be read by root only: use sudo, or start the server with --write-kubeconfig-mode\n", path)
		return nil
	case err != nil:
		return noCluster(args)
	}
	_ = f.Close() // opened for reading only
	if err := os.Setenv("KUBECONFIG", path); err != nil {
		return fmt.Errorf("set KUBECONFIG: %w", err)
	}
	return nil
}

// noCluster says that nothing is there to talk to, unless the command needs nothing or says by itself where its cluster is.
func noCluster(args []string) error {
	free := []string{"completion", "config", "help", "kustomize", "options", "plugin", "version", "__complete", "__completeNoDesc", "-h", "--help", "-s"}
	says := func(a string) bool { return slices.Contains(free, a) || strings.HasPrefix(a, "--server") }
	if len(args) == 0 || slices.ContainsFunc(args, says) || os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		return nil
	}
	return errors.New("no server has run on this machine: name the kubeconfig of one with --kubeconfig or KUBECONFIG; " +
		"what a node knows itself is shown by kedge kubectl --local")
}

// useLocal points KUBECONFIG at the node API of this machine: what the node knows, with or without the server.
func useLocal(args []string) error {
	if kubeconfigChosen(args, "", "") {
		return errors.New("--local and --kubeconfig exclude each other: leave one out")
	}
	path := autonomy.LocalKubeconfig(installed().DataDir)
	if f, err := os.Open(path); errors.Is(err, fs.ErrPermission) {
		return errors.New("--local is for root: use sudo")
	} else if err != nil {
		return fmt.Errorf("--local: no node has run on this machine: %w", err)
	} else if err := f.Close(); err != nil {
		return err
	}
	return os.Setenv("KUBECONFIG", path)
}

// kubeconfigChosen reports whether the user named a kubeconfig by flag or environment, or has one in the usual place.
func kubeconfigChosen(args []string, env, home string) bool {
	for _, a := range args {
		if a == "--" {
			break
		}
		if a == "--kubeconfig" || strings.HasPrefix(a, "--kubeconfig=") {
			return true
		}
	}
	if env != "" {
		return true
	}
	_, err := os.Stat(filepath.Join(home, ".kube", "config"))
	return home != "" && err == nil
}
