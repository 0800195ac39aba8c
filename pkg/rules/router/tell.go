package router

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/kedge-io/kedge/pkg/rules/wire"
)

// tellAtOnce is how many nodes are told their plans at once.
const tellAtOnce = 8

// tell tells nodes their plans when these change, and nodes that were not reached again until they are.
func (r *Router) tell(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.news:
		case <-again:
		}
		again = nil
		if !r.tellAll(ctx) {
			again = time.After(lookAgain)
		}
	}
}

// tellAll tells each node whose plan is not the one that it has; done says that none is left.
func (r *Router) tellAll(ctx context.Context) (done bool) {
	todo := map[string]wire.Plan{}
	r.mu.Lock()
	for node, p := range r.plans {
		if r.known[node] != p.Digest() {
			todo[node] = p
		}
	}
	for node, digest := range r.known {
		if _, wanted := r.plans[node]; !wanted && digest != (wire.Plan{}).Digest() {
			todo[node] = wire.Plan{}
		}
	}
	r.mu.Unlock()
	var wg sync.WaitGroup
	slots := make(chan struct{}, tellAtOnce)
	failed := false
	var mu sync.Mutex
	for node, p := range todo {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := r.tellNode(ctx, node, p); err != nil {
				r.cfg.Log.Debug("node does not know its rules", "node", node, "error", err)
				mu.Lock()
				failed = true
				mu.Unlock()
				return
			}
			r.learned(node, p.Digest())
		})
	}
	wg.Wait()
	return !failed
}

// learned takes note of what a node has.
func (r *Router) learned(node, digest string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, wanted := r.plans[node]; !wanted && digest == (wire.Plan{}).Digest() {
		delete(r.known, node)
		return
	}
	r.known[node] = digest
}

func (r *Router) tellNode(ctx context.Context, node string, p wire.Plan) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+node+wire.NodePlan, bytes.NewReader(data))
	if err != nil {
		return err
	}
	resp, err := r.nodes.RoundTrip(q)
	if err != nil {
		return err
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the node answered %s", resp.Status)
	}
	return nil
}

// planOf is the plan of a node.
func (r *Router) planOf(node string) wire.Plan {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.plans[node]
}
