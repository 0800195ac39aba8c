package main

import (
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

// mostAgain is how many tests may fail and still be tried again: more than that is no accident of the machine.
const mostAgain = 4

// again runs each test that failed once more, alone on the machine. One that passes now failed because of what ran beside it: it
// counts as passed, and its line FLAKY says so, with the output of the failure above it.
func (r *report) again(flags []string, out io.Writer) (flaky []string) {
	tests, ok := r.topLevel()
	if !ok || len(tests) > mostAgain {
		return nil
	}
	for _, test := range tests {
		pkg, name, _ := strings.Cut(test, " ")
		fmt.Fprintln(out, "AGAIN", test)
		args := slices.Concat([]string{"test", "-json", "-count=1"}, flags, []string{"-run", "^" + name + "$", pkg})
		cmd := exec.Command("go", args...)
		second := newReport()
		events, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			fmt.Fprintln(out, err)
			return flaky
		}
		second.read(events, out)
		if cmd.Wait() == nil && second.failed == 0 && second.passed > 0 {
			r.forgive(test)
			flaky = append(flaky, test)
		}
	}
	return flaky
}

// topLevel lists the failed tests without their subtests; ok is false when something failed that is no test, as a build.
func (r *report) topLevel() (tests []string, ok bool) {
	for key := range r.broken {
		pkg, name, _ := strings.Cut(key, " ")
		name, _, _ = strings.Cut(name, "/")
		if name == "" {
			return nil, false
		}
		if test := pkg + " " + name; !slices.Contains(tests, test) {
			tests = append(tests, test)
		}
	}
	slices.Sort(tests)
	return tests, true
}

// forgive counts the test and its failed subtests as passed.
func (r *report) forgive(test string) {
	for key := range r.broken {
		if key == test || strings.HasPrefix(key, test+"/") {
			delete(r.broken, key)
			r.failed--
			r.passed++
		}
	}
}
