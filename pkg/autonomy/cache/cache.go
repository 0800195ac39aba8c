// Package cache is what a node knows of the cluster: scopes, each the objects of one resource that a consumer asked for, followed from the
// server with one watch, kept on disk, and served to any number of lists and watches, be the server there or not.
// It is an inner room of pkg/autonomy; only packages of it import it.
package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/link"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
	"github.com/kedge-io/kedge/pkg/autonomy/store"
)

// Times of the cache.
const (
	// syncEvery is how often changes are written to disk.
	syncEvery = time.Second
	// tidyEvery is how often what nobody watches is looked at, idleAfter how long it is followed all the same.
	tidyEvery, idleAfter = time.Minute, 5 * time.Minute
)

// Key names a scope: what was asked for, and for whom when not all parts of the node may see it.
type Key struct {
	// Asker is empty for what the node's own parts share.
	Asker     filter.Asker                `json:"asker,omitempty"`
	Resource  schema.GroupVersionResource `json:"resource"`
	Namespace string                      `json:"namespace,omitempty"`
	// Fields and Labels are selectors in canonical form.
	Fields string `json:"fields,omitempty"`
	Labels string `json:"labels,omitempty"`
	// Seen marks the collection of objects that were read one by one: it never is complete.
	Seen bool `json:"seen,omitempty"`
}

// bucket is the key in the store.
func (k Key) bucket() string {
	data, _ := json.Marshal(k) // plain strings
	return string(data)
}

// Config is what a cache needs to know.
type Config struct {
	// Path is the file of the store, StoreKey its 32 byte key.
	Path     string
	StoreKey []byte
	Link     *link.Link
	// Shared, when set, is tried before the reader's own credential for all readers but the kubelet, so that they share a connection too.
	Shared link.Credential
	// NodeName is this node's name.
	NodeName string
	Log      *slog.Logger
}

// Cache is safe for concurrent use.
type Cache struct {
	cfg   Config
	store *store.Store
	lists atomic.Int64

	mu     sync.Mutex
	scopes map[Key]*Scope
	values map[string]map[string][]byte // small values beside the scopes, by bucket
	ctx    context.Context              // of Run
	work   sync.WaitGroup
}

// Open reads what the node knew when it stopped.
func Open(cfg Config) (*Cache, error) {
	c := &Cache{cfg: cfg, scopes: map[Key]*Scope{}, values: map[string]map[string][]byte{}}
	var err error
	c.store, err = store.Open(store.Config{
		Path: cfg.Path, Key: cfg.StoreKey, Log: cfg.Log, Restore: c.restore, Snapshot: c.snapshot,
	})
	if err != nil {
		return nil, err
	}
	for key, s := range c.scopes {
		if s.kind.Kind == "" || key.Seen && len(s.entries) == 0 { // its head was lost
			delete(c.scopes, key)
			continue
		}
		s.floor = s.version
		if c.store.Damaged() {
			// An object or a deletion may be among what was lost: a list of the rest would tell the kubelet to end a pod.
			s.version, s.floor, s.synced = 0, s.highest(), false
		}
	}
	return c, nil
}

// Run follows the server and writes to disk until ctx is done.
func (c *Cache) Run(ctx context.Context) error {
	c.mu.Lock()
	c.ctx = ctx
	for _, s := range c.scopes {
		s.wake()
	}
	c.mu.Unlock()
	tick, tidy := time.NewTicker(syncEvery), time.NewTicker(tidyEvery)
	defer tick.Stop()
	defer tidy.Stop()
	for {
		select {
		case <-ctx.Done():
			c.work.Wait()
			return c.store.Close()
		case <-tick.C:
			_ = c.store.Sync() // it logs, and tries again
		case now := <-tidy.C:
			c.tidy(now)
		}
	}
}

// Sync writes changes to disk now. A failure was logged by the store.
func (c *Cache) Sync() { _ = c.store.Sync() }

// Lost says what was not found on the disk when the cache was opened; it is empty when all was.
func (c *Cache) Lost() string { return c.store.Lost() }

// Trouble says why the cache cannot be written to the disk at present; it is empty when it can.
func (c *Cache) Trouble() string { return c.store.Trouble() }

// FullLists is how many lists the server was asked for since the start.
func (c *Cache) FullLists() int64 { return c.lists.Load() }

// Scope returns the scope with this key, and makes it when create says so.
func (c *Cache) Scope(key Key, create bool) *Scope {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.scopes[key]
	if !ok && create {
		s = newScope(c, key)
		c.scopes[key] = s
	}
	return s
}

// Each calls f with every scope of a resource.
func (c *Cache) Each(resource schema.GroupVersionResource, f func(*Scope)) {
	c.mu.Lock()
	var found []*Scope
	for key, s := range c.scopes {
		if key.Resource == resource {
			found = append(found, s)
		}
	}
	c.mu.Unlock()
	for _, s := range found {
		f(s)
	}
}

// Value returns a small value that is kept beside the scopes.
func (c *Cache) Value(bucket, key string) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.values[bucket][key]
	return v, ok
}

// Values returns all values of a bucket.
func (c *Cache) Values(bucket string) map[string][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string][]byte, len(c.values[bucket]))
	for k, v := range c.values[bucket] {
		out[k] = v
	}
	return out
}

// SetValue keeps a value, or forgets it when it is nil.
func (c *Cache) SetValue(bucket, key string, value []byte) {
	c.mu.Lock()
	same := bytes.Equal(c.values[bucket][key], value)
	if c.values[bucket] == nil {
		c.values[bucket] = map[string][]byte{}
	}
	if value == nil {
		delete(c.values[bucket], key)
	} else {
		c.values[bucket][key] = value
	}
	c.mu.Unlock()
	if !same {
		c.store.Put(store.Entry{Bucket: valuePrefix + bucket, Key: key, Value: value})
	}
}

const (
	valuePrefix = "value:"
	headKey     = "\x00" // of the entry that describes a scope
)

// restore takes one entry from the store.
func (c *Cache) restore(e store.Entry) {
	if bucket, ok := strings.CutPrefix(e.Bucket, valuePrefix); ok {
		if c.values[bucket] == nil {
			c.values[bucket] = map[string][]byte{}
		}
		if e.Value == nil {
			delete(c.values[bucket], e.Key)
		} else {
			c.values[bucket][e.Key] = e.Value
		}
		return
	}
	var key Key
	if err := json.Unmarshal([]byte(e.Bucket), &key); err != nil {
		return // of a later version
	}
	if e.Key == "" {
		delete(c.scopes, key)
		return
	}
	s, ok := c.scopes[key]
	if !ok {
		s = newScope(c, key)
		c.scopes[key] = s
	}
	s.restore(e)
}

// snapshot yields everything that is known.
func (c *Cache) snapshot(yield func(store.Entry) bool) {
	c.mu.Lock()
	var entries []store.Entry
	for bucket, values := range c.values {
		for k, v := range values {
			entries = append(entries, store.Entry{Bucket: valuePrefix + bucket, Key: k, Value: v})
		}
	}
	scopes := make([]*Scope, 0, len(c.scopes))
	for _, s := range c.scopes {
		scopes = append(scopes, s)
	}
	c.mu.Unlock()
	for _, s := range scopes {
		entries = append(entries, s.saved()...)
	}
	for _, e := range entries {
		if !yield(e) {
			return
		}
	}
}

// drop forgets a scope.
func (c *Cache) drop(s *Scope) {
	c.mu.Lock()
	delete(c.scopes, s.key)
	c.mu.Unlock()
	c.store.Put(store.Entry{Bucket: s.key.bucket()})
}

// tidy ends the watches that nobody uses, and forgets single objects that no pod of this node names any more. Nothing is forgotten while the
// server is out of reach.
func (c *Cache) tidy(now time.Time) {
	c.mu.Lock()
	var idle []*Scope
	for _, s := range c.scopes {
		if s.idle(now) {
			idle = append(idle, s)
		}
	}
	pods := c.scopes[PodsKey(c.cfg.NodeName)]
	c.mu.Unlock()
	for _, s := range idle {
		s.rest()
		if c.cfg.Link.Up() && pods != nil && strings.HasPrefix(s.key.Fields, "metadata.name=") && isPodMaterial(s.key) && !pods.names(s.key) {
			c.drop(s)
		}
	}
}

func isPodMaterial(k Key) bool {
	return k.Asker == filter.Kubelet && k.Resource.Group == "" && (k.Resource.Resource == "secrets" || k.Resource.Resource == "configmaps")
}

// PodsKey is the scope of the pods of a node.
func PodsKey(node string) Key {
	return Key{Asker: filter.Kubelet, Resource: corev1.SchemeGroupVersion.WithResource("pods"), Fields: "spec.nodeName=" + node}
}

// ErrOffline says that the answer is not known here and the server cannot be asked.
var ErrOffline = errors.New("this node is offline: the server cannot be reached, and the node does not hold the answer")

// record puts an object into the store.
func (c *Cache) record(s *Scope, o *object.Object) {
	c.store.Put(store.Entry{Bucket: s.key.bucket(), Key: o.Key(), Version: o.Version, Value: o.Raw})
}

func (c *Cache) recordGone(s *Scope, key string, version uint64) {
	c.store.Put(store.Entry{Bucket: s.key.bucket(), Key: key, Version: version})
}

func (c *Cache) recordHead(s *Scope) {
	c.store.Put(s.head())
}

func (s *Scope) head() store.Entry {
	data, err := json.Marshal(head{Kind: s.kind, Complete: s.synced})
	if err != nil {
		panic(fmt.Sprintf("encode head of scope: %v", err)) // plain strings
	}
	return store.Entry{Bucket: s.key.bucket(), Key: headKey, Version: s.version, Value: data}
}

// head describes a scope in the store.
type head struct {
	Kind     schema.GroupVersionKind `json:"kind"`
	Complete bool                    `json:"complete"`
}
