// Command testreport reads the events of go test -json, prints what failed and was skipped, tries the few tests that failed
// once more, alone, with the go test flags it is given, and ends with one line of counts. It is for scripts/test.sh only.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
)

// event is one line of go test -json (see go doc test2json).
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

type report struct {
	passed, failed, skipped int
	output                  map[string]*strings.Builder
	broken                  map[string]bool
	skips                   []string
}

func newReport() *report {
	return &report{output: map[string]*strings.Builder{}, broken: map[string]bool{}}
}

func main() {
	r := newReport()
	r.read(os.Stdin, os.Stdout)
	flaky := r.again(os.Args[1:], os.Stdout)
	sort.Strings(r.skips)
	for _, s := range r.skips {
		fmt.Println("SKIP", s)
	}
	for _, name := range flaky {
		fmt.Println("FLAKY", name+": failed beside others, passed alone")
	}
	for name := range r.broken {
		fmt.Println("FAIL", name)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	if r.failed > 0 || r.passed == 0 {
		os.Exit(1)
	}
}

// read follows the events, prints the output of what fails as it fails and a line for each package.
func (r *report) read(in io.Reader, out io.Writer) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text())
			continue
		}
		r.follow(e, out)
	}
}

func (r *report) follow(e event, out io.Writer) {
	key := e.Package + e.ImportPath + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		if r.output[key] == nil {
			r.output[key] = &strings.Builder{}
		}
		r.output[key].WriteString(e.Output)
	case "build-fail":
		r.fail(key, out)
	case "pass", "fail", "skip":
		r.end(e, key, out)
	}
}

// end counts a finished test, or prints the line of a finished package. A package that fails without
// a failed test (it does not build, it panics in TestMain) counts as one failure.
func (r *report) end(e event, key string, out io.Writer) {
	if e.Test == "" {
		if e.Action == "fail" && !r.failedIn(e.Package) {
			r.fail(key, out)
		}
		if e.Action != "skip" {
			fmt.Fprintf(out, "%-4s %s %.1fs\n", e.Action, e.Package, e.Elapsed)
		}
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "skip":
		r.skipped++
		r.skips = append(r.skips, key+": "+reason(r.output[key]))
	case "fail":
		r.fail(key, out)
	}
	delete(r.output, key)
}

func (r *report) fail(key string, out io.Writer) {
	r.failed++
	r.broken[key] = true
	if b := r.output[key]; b != nil {
		fmt.Fprintln(out, b.String())
	}
}

func (r *report) failedIn(pkg string) bool {
	for name := range r.broken {
		if strings.HasPrefix(name, pkg+" ") {
			return true
		}
	}
	return false
}

// reason is the line a skipped test gave.
func reason(b *strings.Builder) string {
	if b == nil {
		return ""
	}
	for _, line := range strings.Split(b.String(), "\n") {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			return line
		}
	}
	return ""
}
