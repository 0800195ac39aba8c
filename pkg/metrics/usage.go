package metrics

import (
	"context"
	"sync"
	"time"
)

const (
	// atOnce is how many kubelets are asked at the same time.
	atOnce = 16
	// answerTime is how long a kubelet may take.
	answerTime = 10 * time.Second
	// keep is how many periods of silence it takes until everything is forgotten.
	keep = 12
)

// usage remembers for a short time what each node said, and asks again when somebody wants to know.
type usage struct {
	period time.Duration
	read   func(ctx context.Context, node string) (*sample, error)
	slots  chan struct{}

	mu     sync.Mutex
	nodes  map[string]*answer
	forget *time.Timer
}

// answer is what a node said, or will have said when done is closed.
type answer struct {
	done   chan struct{}
	at     time.Time // zero until done
	sample *sample
	err    error
}

func newUsage(period time.Duration, read func(context.Context, string) (*sample, error)) *usage {
	return &usage{period: period, read: read, slots: make(chan struct{}, atOnce), nodes: map[string]*answer{}}
}

// of returns the current usage on each of the nodes that tells, and why the others do not.
func (u *usage) of(ctx context.Context, nodes []string) (map[string]*sample, map[string]error) {
	asked := make(map[string]*answer, len(nodes))
	for _, node := range nodes {
		asked[node] = u.ask(node)
	}
	samples, errs := map[string]*sample{}, map[string]error{}
	for node, a := range asked {
		select {
		case <-a.done:
			if a.err != nil {
				errs[node] = a.err
			} else {
				samples[node] = a.sample
			}
		case <-ctx.Done():
			errs[node] = ctx.Err()
		}
	}
	return samples, errs
}

// ask returns the answer of a node: the last one, the one that is on its way, or a new one.
func (u *usage) ask(node string) *answer {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.forget == nil {
		u.forget = time.AfterFunc(keep*u.period, u.clear)
	} else {
		u.forget.Reset(keep * u.period)
	}
	a := u.nodes[node]
	if a != nil && (a.at.IsZero() || time.Since(a.at) < u.period) {
		return a
	}
	a = &answer{done: make(chan struct{})}
	u.nodes[node] = a
	go u.fetch(node, a)
	return a
}

// fetch asks on its own account: others may wait for the same answer when the first one gives up.
func (u *usage) fetch(node string, a *answer) {
	u.slots <- struct{}{}
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	a.sample, a.err = u.read(ctx, node)
	cancel()
	<-u.slots
	u.mu.Lock()
	a.at = time.Now()
	u.mu.Unlock()
	close(a.done)
}

func (u *usage) clear() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.nodes = map[string]*answer{}
}
