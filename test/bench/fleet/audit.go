package fleet

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// Policy and Log are where the server finds PolicyText, and where it notes requests.
const (
	Policy = "/tmp/audit-policy.yaml"
	Log    = "/tmp/audit.log"
)

// PolicyText notes who asked for what.
const PolicyText = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [watch]
- level: Metadata
`

// Requests is how many requests there were, by who made them: "grid", "kubernetes" for the controllers of Kubernetes, "bench", "others"; those of
// the grid also by what they are, as in "grid create deployments".
type Requests map[string]int

// entry is what is read of a line of the audit log.
type entry struct {
	Verb, UserAgent string
	User            struct{ Username string }
	ObjectRef       struct{ Resource, Subresource string }
}

// Mark is a place in the log of requests: where it ends now.
func (f *Fleet) Mark() (int64, error) {
	info, err := os.Stat(f.log)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Since counts the requests after a mark.
func (f *Fleet) Since(mark int64) (Requests, error) {
	log, err := os.Open(f.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if _, err := log.Seek(mark, io.SeekStart); err != nil {
		return nil, err
	}
	out := Requests{}
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("audit log: %w", err)
		}
		out.add(e)
	}
	return out, lines.Err()
}

func (r Requests) add(e entry) {
	switch {
	case e.UserAgent == "kedge/grid":
		what := e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			what += "/" + e.ObjectRef.Subresource
		}
		r["grid"]++
		r["grid "+e.Verb+" "+what]++
	case e.UserAgent == "bench":
		r["bench"]++
	case strings.Contains(e.User.Username, "controller"):
		r["kubernetes"]++
	default:
		r["others"]++
	}
}
