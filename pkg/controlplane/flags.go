package controlplane

import (
	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
)

// parseFlags parses args into the flag sets of one component.
func parseFlags(sets cliflag.NamedFlagSets, args []string) error {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	all.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	for _, f := range sets.FlagSets {
		all.AddFlagSet(f)
	}
	return all.Parse(args)
}
