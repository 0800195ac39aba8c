// Package supervisor starts the parts of kedge in order, watches them and stops them in reverse.
// It is a foundation: server, agent and features may import it; it imports none of them.
package supervisor

import "context"

// Component is one long-running part of kedge.
type Component interface {
	// Name identifies the component in logs, in status and in --disable.
	Name() string
	// Run works until ctx is done, then cleans up and returns nil.
	// Any return before that, with or without an error, stops kedge.
	Run(ctx context.Context) error
	// Ready says why the component cannot serve its local neighbours yet, or nil.
	// It never waits for the far side of a link, and has no side effects.
	Ready(ctx context.Context) error
}

// Teller is a component that has more to say in the status than that it is ready.
type Teller interface {
	// Tell is one line, quickly.
	Tell() string
}
