package supervisor

import (
	"context"
	"errors"
	"sync"
)

// Group makes one component of several that start side by side: it is ready when all of them are, and they stop side by
// side. Inside a Supervisor each member keeps its own log line and its own row in Status. Members may be groups and
// sequences.
func Group(name string, components ...Component) Component {
	return &composite{name: name, members: components, parallel: true}
}

// Sequence makes one component of several that start one after the other and stop in reverse. It is for use inside a
// Group: a Supervisor's own list already is a sequence.
func Sequence(name string, components ...Component) Component {
	return &composite{name: name, members: components}
}

type composite struct {
	name     string
	members  []Component
	parallel bool
}

func (c *composite) Name() string { return c.name }

// Run is for a composite that is run alone; a Supervisor looks inside instead.
func (c *composite) Run(ctx context.Context) error { return New(Config{}, c).Run(ctx) }

func (c *composite) Ready(ctx context.Context) error {
	var errs []error
	for _, m := range c.members {
		errs = append(errs, m.Ready(ctx))
	}
	return errors.Join(errs...)
}

// node is a component, or a composite, inside a running supervisor.
type node interface {
	// start returns true when the node is ready, false when starting is over without that.
	start(ctx context.Context) bool
	// stop blocks until the node has stopped or its grace time is over.
	stop()
	units() []*unit
}

// build turns a component into a node of s.
func (s *Supervisor) build(c Component) node {
	comp, ok := c.(*composite)
	if !ok {
		return newUnit(s, c)
	}
	nodes := make([]node, len(comp.members))
	for i, m := range comp.members {
		nodes[i] = s.build(m)
	}
	if comp.parallel {
		return parallel(nodes)
	}
	return serial(nodes)
}

type serial []node

func (s serial) start(ctx context.Context) bool {
	for _, n := range s {
		if !n.start(ctx) {
			return false
		}
	}
	return true
}

func (s serial) stop() {
	for i := len(s) - 1; i >= 0; i-- {
		s[i].stop()
	}
}

func (s serial) units() []*unit {
	var us []*unit
	for _, n := range s {
		us = append(us, n.units()...)
	}
	return us
}

type parallel []node

func (p parallel) start(ctx context.Context) bool {
	ready := make([]bool, len(p))
	var wg sync.WaitGroup
	for i, n := range p {
		wg.Go(func() { ready[i] = n.start(ctx) })
	}
	wg.Wait()
	for _, r := range ready {
		if !r {
			return false
		}
	}
	return true
}

func (p parallel) stop() {
	var wg sync.WaitGroup
	for _, n := range p {
		wg.Go(n.stop)
	}
	wg.Wait()
}

func (p parallel) units() []*unit { return serial(p).units() }
