// Package upstream knows which servers a node has, remembers them, and gives the node's parts one local address that leads to
// one of them.
// It is a feature: agent wires it.
package upstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// maxServers bounds what the cluster may make a node remember.
const maxServers = 32

// List is the servers that a node knows, as URLs like https://10.0.0.1:6443. It is kept in a file, so that a node that starts
// knows them all. It is safe for concurrent use.
type List struct {
	path string

	mu      sync.Mutex
	stored  stored
	changed chan struct{}
}

// stored is the file.
type stored struct {
	Given []string `json:"given"` // by the operator, last time there was one given
	Found []string `json:"found"` // in the cluster
}

// OpenList reads the list from its file, which may be missing. given are the servers of the settings; when there are any, they
// take the place of those given before.
func OpenList(path string, given []string) (*List, error) {
	l := &List{path: path, changed: make(chan struct{})}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read servers: %w", err)
	}
	// A file that was damaged is as good as none when servers are given.
	if err == nil && json.Unmarshal(data, &l.stored) != nil && len(given) == 0 {
		return nil, fmt.Errorf("read servers: %s is damaged: give --server again", path)
	}
	var clean []string
	for _, g := range given {
		clean = append(clean, strings.TrimRight(g, "/"))
	}
	if len(clean) > 0 && !slices.Equal(clean, l.stored.Given) {
		l.stored.Given = clean
		return l, l.save()
	}
	return l, nil
}

// All returns the servers, those that were given in front.
func (l *List) All() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all()
}

func (l *List) all() []string {
	out := slices.Clone(l.stored.Given)
	for _, f := range l.stored.Found {
		if !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out
}

// Changed returns a channel that is closed at the next change of the list.
func (l *List) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Found replaces the servers that were found in the cluster. An empty list is not believed: a cluster has a server.
func (l *List) Found(servers []string) error {
	servers = slices.Compact(slices.Sorted(slices.Values(servers)))
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(servers) == 0 || len(servers) > maxServers || slices.Equal(servers, l.stored.Found) {
		return nil
	}
	l.stored.Found = servers
	close(l.changed)
	l.changed = make(chan struct{})
	return l.save()
}

// save replaces the file so that a reader, or a machine that loses power, has the old or the new one.
func (l *List) save() error {
	data, err := json.Marshal(l.stored)
	if err != nil {
		return fmt.Errorf("keep servers: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return fmt.Errorf("keep servers: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(l.path), ".kedge-tmp-")
	if err != nil {
		return fmt.Errorf("keep servers: %w", err)
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(append(data, '\n'))
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), l.path)
	}
	if err != nil {
		return fmt.Errorf("keep servers: %w", err)
	}
	return nil
}
