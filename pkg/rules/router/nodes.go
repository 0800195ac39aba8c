package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	v1 "github.com/kedge-io/kedge/pkg/apis/rules/v1"
	"github.com/kedge-io/kedge/pkg/rules/plan"
	"github.com/kedge-io/kedge/pkg/rules/wire"
)

const (
	// batchTime is how long messages of a batch are delivered before the node is told how far that came.
	batchTime = 10 * time.Second
	// maxBatch is the largest batch as JSON.
	maxBatch = 4 * wire.MaxBatch
)

// serveNode answers nodes. A node speaks for itself only: its name comes from its certificate.
func (r *Router) serveNode(w http.ResponseWriter, q *http.Request) {
	node, err := r.cfg.Identify(q)
	if err != nil {
		http.Error(w, "this is for nodes, with their certificate", http.StatusUnauthorized)
		return
	}
	routes, known := r.current()
	if !known {
		http.Error(w, "the rules are not known yet", http.StatusServiceUnavailable)
		return
	}
	switch q.Method + " " + q.URL.Path {
	case "GET " + wire.PathPlan:
		r.givePlan(w, q, node)
	case "POST " + wire.PathMessages:
		r.takeMessages(w, q, node, routes)
	case "POST " + wire.PathCall:
		r.takeCall(w, q, node, routes)
	default:
		http.Error(w, "there is no such question", http.StatusMethodNotAllowed)
	}
}

func (r *Router) givePlan(w http.ResponseWriter, q *http.Request, node string) {
	p := r.planOf(node)
	if q.Header.Get(wire.HeaderPlan) == p.Digest() {
		r.learned(node, p.Digest())
		w.WriteHeader(http.StatusNotModified)
		return
	}
	writeJSON(w, p)
}

func writeJSON(w http.ResponseWriter, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}

// ofNode finds a rule that takes messages from a node; it has answered when ok is false.
func ofNode(w http.ResponseWriter, routes []plan.Route, rule, node string) (route plan.Route, ok bool) {
	route, ok = plan.Find(routes, rule)
	if !ok || route.Node != node || route.Target != v1.Rest {
		http.Error(w, fmt.Sprintf("there is no rule %q for messages of node %s", rule, node), http.StatusGone)
		return route, false
	}
	return route, true
}

// takeMessages delivers messages one after the other, until one cannot be delivered now or the time is up.
func (r *Router) takeMessages(w http.ResponseWriter, q *http.Request, node string, routes []plan.Route) {
	data, err := io.ReadAll(http.MaxBytesReader(w, q.Body, maxBatch))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b, err := wire.ReadBatch(data)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	route, ok := ofNode(w, routes, b.Rule, node)
	if !ok {
		return
	}
	if b.Lost > 0 {
		r.status.add(b.Rule, 0, b.Lost, fmt.Sprintf("node %s dropped %d messages: too many waited", node, b.Lost))
	}
	writeJSON(w, r.deliverAll(q.Context(), route, node, b))
}

func (r *Router) deliverAll(ctx context.Context, route plan.Route, node string, b wire.Batch) (out wire.Outcome) {
	begin := time.Now()
	for i, m := range b.Messages {
		if ctx.Err() != nil || time.Since(begin) > batchTime {
			return out
		}
		attempts := 0
		if i == 0 {
			attempts = b.Attempts
		}
		fate, why := r.deliver(ctx, delivery{route.URL, b.Rule, node, m}, attempts)
		switch fate {
		case delivered:
			r.status.add(b.Rule, 1, 0, "")
		case refused:
			r.status.add(b.Rule, 0, 1, why)
		case later:
			r.status.add(b.Rule, 0, 0, why+" (it will be tried again)")
			out.Error = why
			return out
		}
		out.Done++
	}
	return out
}

// takeCall asks a target at once and gives its answer back.
func (r *Router) takeCall(w http.ResponseWriter, q *http.Request, node string, routes []plan.Route) {
	route, ok := ofNode(w, routes, q.URL.Query().Get("rule"), node)
	if !ok {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, wire.MaxMessage))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	id := q.Header.Get(wire.HeaderID)
	ctx, cancel := context.WithTimeout(q.Context(), targetTimeout)
	defer cancel()
	d := delivery{route.URL, route.Key(), node, wire.Message{ID: id, Time: time.Now().UnixMilli(), Body: body}}
	resp, err := r.send(ctx, d)
	if err != nil {
		why := "deliver to target: " + reason(err)
		if errors.Is(err, errInside) {
			r.status.add(route.Key(), 0, 1, why)
			http.Error(w, why, http.StatusGone)
			return
		}
		r.status.add(route.Key(), 0, 0, why+" (it will be tried again)")
		http.Error(w, why, http.StatusBadGateway)
		return
	}
	defer drain(resp)
	answer, err := io.ReadAll(io.LimitReader(resp.Body, wire.MaxBody+1))
	if err != nil || len(answer) > wire.MaxBody {
		http.Error(w, "the target's answer was cut off or is too large", http.StatusBadGateway)
		return
	}
	switch judge(resp.StatusCode, 0) {
	case later:
		http.Error(w, "the target answered "+resp.Status, http.StatusBadGateway)
		return
	case refused:
		r.status.add(route.Key(), 0, 1, "the target answered "+resp.Status)
	case delivered:
		r.status.add(route.Key(), 1, 0, "")
	}
	w.Header().Set(wire.HeaderStatus, strconv.Itoa(resp.StatusCode))
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(answer)
}
