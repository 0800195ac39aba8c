package logs

import (
	"bytes"
	"io"
)

// quiet passes on what Kubernetes reports, except lines that every healthy start prints.
// It loses nothing with --debug, which does not use it.
type quiet struct{ out io.Writer }

// Write implements io.Writer; klog hands over one whole line a call.
func (q quiet) Write(line []byte) (int, error) {
	for _, known := range harmless() {
		if bytes.Contains(line, []byte(known)) {
			return len(line), nil
		}
	}
	return q.out.Write(line)
}

// harmless lists parts of lines that upstream writes as warnings or errors during every
// good start or stop, each because of an order that settles by itself within a second.
func harmless() []string {
	return []string{}
}
