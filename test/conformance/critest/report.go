package critest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// spec is one test of the suite and how it ended.
type spec struct {
	name string
	// state is passed, skipped, failed, or another word for a failure.
	state string
	// why is the message of a failure or a skip.
	why string
}

// readReport reads the report that ginkgo writes. Specs that were not chosen, the benchmarks, are not in the result.
func readReport(report []byte) ([]spec, error) {
	var suites []struct {
		SpecReports []struct {
			ContainerHierarchyTexts           []string
			LeafNodeType, LeafNodeText, State string
			Failure                           struct{ Message string }
		}
	}
	if err := json.Unmarshal(report, &suites); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	var specs []spec
	for _, suite := range suites {
		for _, r := range suite.SpecReports {
			s := spec{strings.Join(append(r.ContainerHierarchyTexts, r.LeafNodeText), " "), r.State, r.Failure.Message}
			if s.state == "skipped" && s.why == "" || r.LeafNodeType != "It" && s.state == "passed" {
				continue
			}
			if r.LeafNodeType != "It" {
				s.name = r.LeafNodeType
			}
			specs = append(specs, s)
		}
	}
	slices.SortFunc(specs, func(a, b spec) int { return strings.Compare(a.name, b.name) })
	return specs, nil
}

// count is the result of specs in one line.
func count(specs []spec) string {
	n := map[string]int{}
	for _, s := range specs {
		switch s.state {
		case "passed", "skipped":
			n[s.state]++
		default:
			n["failed"]++
		}
	}
	return fmt.Sprintf("%d passed, %d failed, %d skipped of %d", n["passed"], n["failed"], n["skipped"], len(specs))
}

// expectation is a line of testdata/expected.txt.
type expectation struct {
	state, name, reason string
}

// readExpected reads lines "STATE | SPEC | REASON"; STATE is failed or skipped. Empty lines and those that begin with # are comments.
func readExpected(text string) ([]expectation, error) {
	var all []expectation
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, " | ")
		if len(f) != 3 || f[0] != "failed" && f[0] != "skipped" || f[1] == "" || f[2] == "" {
			return nil, fmt.Errorf("cannot read %q: want: failed or skipped | name | reason", line)
		}
		all = append(all, expectation{f[0], f[1], f[2]})
	}
	return all, nil
}

// compare says what is otherwise than expected. A spec that is expected to be skipped may pass, on a machine with more features.
func compare(specs []spec, expected []expectation) []string {
	var wrong []string
	open := map[string]string{}
	for _, e := range expected {
		open[e.name] = e.state
	}
	for _, s := range specs {
		want, listed := open[s.name]
		delete(open, s.name)
		switch {
		case s.state == "passed" && want == "failed":
			wrong = append(wrong, s.name+": passes now: remove its line")
		case s.state == "passed" || s.state == want:
		case s.state == "skipped":
			wrong = append(wrong, s.name+": skipped: "+s.why)
		case listed && want == "failed": // it panicked, or timed out
		default:
			wrong = append(wrong, s.name+": "+s.state+": "+s.why)
		}
	}
	for name := range open {
		wrong = append(wrong, name+": is expected and was not there")
	}
	slices.Sort(wrong)
	return wrong
}
