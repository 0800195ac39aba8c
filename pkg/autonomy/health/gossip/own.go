package gossip

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kedge-io/kedge/pkg/autonomy/health/note"
)

// Times of the talk with the server.
const (
	callTime  = 10 * time.Second // one request
	retryMost = 30 * time.Second // the longest pause after a failure
	// quiet is how long a new ring may gather members before this node reports: it says nothing about those it has not met.
	quiet = 3 * time.Second
	// pace bounds how often reports are written when neighbours come and go.
	paceLeast, paceMost = time.Second, 30 * time.Second
)

// follow reads what the server writes on this node's Node, and watches it.
func (a *Agent) follow(ctx context.Context) {
	nodes := a.client.Resource(corev1.SchemeGroupVersion.WithResource("nodes"))
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, retryMost) {
		one, cancel := context.WithTimeout(ctx, callTime)
		own, err := nodes.Get(one, a.cfg.NodeName, metav1.GetOptions{})
		cancel()
		if err == nil {
			pause = time.Second
			a.read(own)
			w, err := nodes.Watch(ctx, metav1.ListOptions{
				FieldSelector: fields.OneTermEqualSelector("metadata.name", a.cfg.NodeName).String(), ResourceVersion: own.ResourceVersion,
			})
			if err == nil {
				a.watch(ctx, w)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(float64(pause) * (0.75 + rand.Float64()/2))):
		}
	}
}

// watch reads changes until there are no more.
func (a *Agent) watch(ctx context.Context, w watch.Interface) {
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.ResultChan():
			own, is := e.Object.(*metav1.PartialObjectMetadata)
			if !ok || !is || e.Type == watch.Deleted {
				return
			}
			a.read(own)
		}
	}
}

// read takes up the annotations.
func (a *Agent) read(own *metav1.PartialObjectMetadata) {
	a.mu.Lock()
	a.told, a.asked = own.Annotations[note.Neighbours], true
	a.mu.Unlock()
	text := own.Annotations[note.Neighbourhood]
	a.remember(text)
	a.offer(text)
}

// tell writes the report whenever it is another one than the server has.
func (a *Agent) tell(ctx context.Context) {
	ticker := time.NewTicker(time.Second / 2)
	defer ticker.Stop()
	pace, last := paceLeast, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		text, due := a.due()
		if !due || time.Since(last) < pace {
			continue
		}
		if time.Since(last) > paceMost {
			pace = paceLeast
		}
		last = time.Now()
		if err := a.write(ctx, text); err != nil {
			a.cfg.Log.Debug("report of neighbours will be written again", "error", err)
		}
		pace = min(pace*3/2, paceMost)
	}
}

// due returns the report, and whether it is to be written.
func (a *Agent) due() (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.asked {
		return "", false
	}
	text := ""
	if a.ring != nil {
		if time.Since(a.ringFrom) < quiet {
			return "", false
		}
		text = a.ring.report().String()
	}
	return text, text != a.told
}

// write replaces the annotation; an empty text removes it.
func (a *Agent) write(ctx context.Context, text string) error {
	var value any
	if text != "" {
		value = text
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{note.Neighbours: value}}})
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err = a.client.Resource(corev1.SchemeGroupVersion.WithResource("nodes")).
		Patch(ctx, a.cfg.NodeName, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = text
	return nil
}
