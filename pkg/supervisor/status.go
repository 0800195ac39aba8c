package supervisor

import "time"

// State is where a component is in its life.
type State string

// The states of a component, in the order it goes through them.
const (
	Waiting  State = "waiting"
	Starting State = "starting"
	Ready    State = "ready"
	NotReady State = "not ready"
	Stopping State = "stopping"
	Stopped  State = "stopped"
	Failed   State = "failed"
)

// Status is how one component stands.
type Status struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	// Since is when the component entered State.
	Since time.Time `json:"since"`
	// Optional says that the component may fail alone (see Restart): the others do without it.
	Optional bool `json:"optional,omitempty"`
	// Reason says why the component is not ready or has failed; empty otherwise.
	Reason string `json:"reason,omitempty"`
	// Note is what a ready component has to say; see Teller.
	Note string `json:"note,omitempty"`
}

// AllReady reports whether there is at least one component and each of them, but for optional ones, is ready.
func AllReady(statuses []Status) bool {
	for _, s := range statuses {
		if s.State != Ready && !s.Optional {
			return false
		}
	}
	return len(statuses) > 0
}
