package router

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
)

const (
	// writeEvery is how often counts are written.
	writeEvery = 2 * time.Second
	// maxErrors is how many errors a status holds, the latest last, and maxError their length.
	maxErrors = 5
	maxError  = 400
	// maxCounted bounds the rules whose counts wait.
	maxCounted = 10000
	lastWords  = 3 * time.Second
)

// count is what happened since the status was written.
type count struct {
	success, fail int64
	errors        []string
	repeated      string // the latest error without its time
}

// counter counts what becomes of messages, and adds it to the status of their rules: several servers may do so.
type counter struct {
	api dynamic.NamespaceableResourceInterface
	log *slog.Logger

	mu     sync.Mutex
	counts map[string]*count
	wake   chan struct{}
}

func newCounter(api dynamic.NamespaceableResourceInterface, log *slog.Logger) *counter {
	return &counter{api: api, log: log, counts: map[string]*count{}, wake: make(chan struct{}, 1)}
}

// add counts messages of a rule. An error that is said again and again is written once in a while.
func (c *counter) add(rule string, success, fail int64, problem string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.counts[rule]
	if n == nil {
		if len(c.counts) >= maxCounted {
			return
		}
		n = &count{}
		c.counts[rule] = n
	}
	n.success, n.fail = n.success+success, n.fail+fail
	if problem != "" && problem != n.repeated {
		n.repeated = problem
		if len(problem) > maxError {
			problem = strings.ToValidUTF8(problem[:maxError], "") + "…"
		}
		n.errors = latest(append(n.errors, time.Now().UTC().Format(time.RFC3339)+" "+problem))
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func latest(errors []string) []string { return errors[max(0, len(errors)-maxErrors):] }

// run writes counts until ctx is done, and what is left then.
func (c *counter) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
			defer cancel()
			c.writeAll(last)
			return
		case <-c.wake:
		}
		select {
		case <-ctx.Done():
			continue
		case <-time.After(writeEvery):
		}
		if !c.writeAll(ctx) {
			select {
			case c.wake <- struct{}{}:
			default:
			}
		}
	}
}

func (c *counter) writeAll(ctx context.Context) (done bool) {
	c.mu.Lock()
	counts := c.counts
	c.counts = map[string]*count{}
	c.mu.Unlock()
	done = true
	for rule, n := range counts {
		if err := c.write(ctx, rule, *n); err != nil {
			c.log.Debug("counts of a rule wait", "rule", rule, "error", err)
			c.putBack(rule, n)
			done = false
		}
	}
	return done
}

func (c *counter) putBack(rule string, n *count) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.counts[rule]; now != nil {
		now.success, now.fail, now.errors = now.success+n.success, now.fail+n.fail, latest(append(n.errors, now.errors...))
		return
	}
	c.counts[rule] = n
}

// write adds to the status of a rule; a conflict is an error like others, and tried again.
func (c *counter) write(ctx context.Context, rule string, n count) error {
	namespace, name, _ := strings.Cut(rule, "/")
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	live, err := c.api.Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	addTo(live, n)
	_, err = c.api.Namespace(namespace).UpdateStatus(ctx, live, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// addTo adds counts to an object.
func addTo(live *unstructured.Unstructured, n count) {
	status := struct {
		Success int64    `json:"successMessages"`
		Fail    int64    `json:"failMessages"`
		Errors  []string `json:"errors,omitempty"`
	}{}
	if data, err := json.Marshal(live.Object["status"]); err == nil {
		_ = json.Unmarshal(data, &status) // what is malformed is counted anew
	}
	status.Errors = latest(append(status.Errors, n.errors...))
	out := map[string]any{"successMessages": status.Success + n.success, "failMessages": status.Fail + n.fail}
	if len(status.Errors) > 0 {
		list := make([]any, len(status.Errors))
		for i, e := range status.Errors {
			list[i] = e
		}
		out["errors"] = list
	}
	live.Object["status"] = out
}
