package ginkgo

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
	"github.com/kedge-io/kedge/test/vm/control"
)

// Run runs a suite on a machine, for so long at most, and returns what the report says that it leaves there.
func Run(t testing.TB, machine *lab.Node, limit time.Duration, suite control.Command, report string) []Spec {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	begin := time.Now()
	err := machine.RunStreams(ctx, suite)
	var exit *control.ExitError
	if err != nil && !errors.As(err, &exit) { // it ends with 1 when a spec failed
		t.Fatalf("run the suite: %v", err)
	}
	t.Logf("the suite took %v", time.Since(begin).Round(time.Second))
	data, err := os.ReadFile(machine.HostPath(report))
	if err != nil {
		t.Fatal(err)
	}
	specs, err := ReadReport(data)
	if err != nil || len(specs) == 0 {
		t.Fatalf("%d specs, %v", len(specs), err)
	}
	return specs
}
