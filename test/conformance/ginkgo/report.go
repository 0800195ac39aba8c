// Package ginkgo reads the report of a ginkgo suite and compares it with what is expected of it. The conformance tests import it, nothing else.
package ginkgo

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// Spec is one test of the suite and how it ended.
type Spec struct {
	Name string
	// State is passed, skipped, failed, or another word for a failure.
	State string
	// Why is the message of a failure or a skip.
	Why string
}

// ReadReport reads the report that ginkgo writes. Specs that were not chosen, the benchmarks, are not in the result.
func ReadReport(report []byte) ([]Spec, error) {
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
	var specs []Spec
	for _, suite := range suites {
		for _, r := range suite.SpecReports {
			s := Spec{strings.Join(append(r.ContainerHierarchyTexts, r.LeafNodeText), " "), r.State, r.Failure.Message}
			if s.State == "skipped" && s.Why == "" || r.LeafNodeType != "It" && s.State == "passed" {
				continue
			}
			if r.LeafNodeType != "It" {
				s.Name = r.LeafNodeType
			}
			specs = append(specs, s)
		}
	}
	slices.SortFunc(specs, func(a, b Spec) int { return strings.Compare(a.Name, b.Name) })
	return specs, nil
}

// Count is the result of specs in one line.
func Count(specs []Spec) string {
	n := map[string]int{}
	for _, s := range specs {
		switch s.State {
		case "passed", "skipped":
			n[s.State]++
		default:
			n["failed"]++
		}
	}
	return fmt.Sprintf("%d passed, %d failed, %d skipped of %d", n["passed"], n["failed"], n["skipped"], len(specs))
}

// Expectation is a line of a list of what is expected to fail or to be skipped.
type Expectation struct {
	state, name, reason string
}

// ReadExpected reads lines "STATE | SPEC | REASON"; STATE is failed or skipped. Empty lines and those that begin with # are comments.
func ReadExpected(text string) ([]Expectation, error) {
	var all []Expectation
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, " | ")
		if len(f) != 3 || f[0] != "failed" && f[0] != "skipped" || f[1] == "" || f[2] == "" {
			return nil, fmt.Errorf("cannot read %q: want: failed or skipped | name | reason", line)
		}
		all = append(all, Expectation{f[0], f[1], f[2]})
	}
	return all, nil
}

// ReadExpectedFile is ReadExpected of a file.
func ReadExpectedFile(path string) ([]Expectation, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ReadExpected(string(text))
}

// Check logs what did not pass and the count, and fails the test for each spec that ended otherwise than expected.
func Check(t testing.TB, specs []Spec, expected []Expectation) {
	t.Helper()
	for _, spec := range specs {
		if spec.State != "passed" {
			why, _, _ := strings.Cut(spec.Why, "\n")
			t.Logf("%s | %s | %s", spec.State, spec.Name, why)
		}
	}
	t.Log(Count(specs))
	for _, wrong := range Compare(specs, expected) {
		t.Error(wrong)
	}
}

// Compare says what is otherwise than expected. A spec that is expected to be skipped may pass, on a machine with more features.
func Compare(specs []Spec, expected []Expectation) []string {
	var wrong []string
	open := map[string]string{}
	for _, e := range expected {
		open[e.name] = e.state
	}
	for _, s := range specs {
		want, listed := open[s.Name]
		delete(open, s.Name)
		switch {
		case s.State == "passed" && want == "failed":
			wrong = append(wrong, s.Name+": passes now: remove its line")
		case s.State == "passed" || s.State == want:
		case s.State == "skipped":
			wrong = append(wrong, s.Name+": skipped: "+s.Why)
		case listed && want == "failed": // it panicked, or timed out
		default:
			wrong = append(wrong, s.Name+": "+s.State+": "+s.Why)
		}
	}
	for name := range open {
		wrong = append(wrong, name+": is expected and was not there")
	}
	slices.Sort(wrong)
	return wrong
}
