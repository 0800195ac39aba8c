package policy

import (
	"context"

	"github.com/fsnotify/fsnotify"

	"github.com/kedge-io/kedge/pkg/network/policy/compile"
)

// reservations lists the addresses that this node has given to its pods.
func (w *watch) reservations() ([]compile.Reservation, error) {
	if w.store == nil {
		return nil, nil
	}
	all, err := w.store.List()
	if err != nil {
		return nil, err
	}
	out := make([]compile.Reservation, 0, len(all))
	for _, r := range all {
		c := compile.Reservation{Namespace: r.Pod.Namespace, Name: r.Pod.Name, UID: r.Pod.UID}
		for _, a := range r.Addresses {
			c.IPs = append(c.IPs, a.Unmap())
		}
		out = append(out, c)
	}
	return out, nil
}

// followAddresses pokes when an address is given or released: that is before the pod that gets it runs.
func (w *watch) followAddresses(ctx context.Context) {
	if w.store == nil {
		return
	}
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		err = watcher.Add(w.heldDir)
	}
	if err != nil {
		w.log.Error("watch addresses of pods", "error", err)
		return
	}
	w.poke() // for what came before the watch
	for {
		select {
		case <-ctx.Done():
			return
		case <-watcher.Events:
			w.poke()
		case err := <-watcher.Errors:
			w.log.Warn("watch addresses of pods", "error", err)
			w.poke()
		}
	}
}
