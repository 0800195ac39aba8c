package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kedge-io/kedge/pkg/autonomy/link"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
	"github.com/kedge-io/kedge/pkg/autonomy/store"
)

// Limits of a scope.
const (
	// history is how many changes a watch may lag behind, and how many deletions are remembered for watches that resume.
	history = 256
	// maxSeen bounds a collection of objects that were read one by one.
	maxSeen = 1024
	// progressEvery is how often the server says up to where a quiet watch is, and the scope records it: well within the time that the server
	// keeps what happened.
	progressEvery = 15 * time.Minute
	// recordEvery bounds how often that is written to disk.
	recordEvery = 2 * time.Minute
)

// entry is one object: as the server has it, and as this node changed it while cut off.
type entry struct {
	server *object.Object
	local  *object.Object
	gone   bool // deleted on this node while cut off
}

// shown is what readers see, or nil.
func (e *entry) shown() *object.Object {
	switch {
	case e == nil || e.gone:
		return nil
	case e.local != nil:
		return e.local
	}
	return e.server
}

// change is one step of a scope's history.
type change struct {
	now, before *object.Object // nil when it is, or was, not there
	version     uint64
}

// Scope is the objects of one Key. It is safe for concurrent use.
type Scope struct {
	key   Key
	cache *Cache

	mu        sync.Mutex
	kind      schema.GroupVersionKind
	version   uint64 // up to where the server was followed; 0 when it must be listed
	synced    bool   // it was listed once
	fresh     bool   // it is being followed
	refused   error  // the server's last answer was a refusal
	entries   map[string]*entry
	changes   []change
	next      uint64    // number of the change that comes next
	recorded  time.Time // when the version was written last
	confirmed time.Time // when the server last said how far the version is
	due       time.Time // when Due says so again
	floor     uint64    // deletions before this version may be forgotten
	changed   chan struct{}

	users       int
	idleSince   time.Time
	credentials []link.Credential  // of the readers, the one to use in front
	strikes     int                // how many of them were refused in a row
	cancel      context.CancelFunc // of the goroutine that follows the server
	kick        chan struct{}
}

func newScope(c *Cache, key Key) *Scope {
	return &Scope{
		key: key, cache: c, entries: map[string]*entry{}, changed: make(chan struct{}), kick: make(chan struct{}, 1), idleSince: time.Now(),
	}
}

// Key is what the scope holds.
func (s *Scope) Key() Key { return s.key }

// restore takes one entry from the store; objects come after the head that says their kind.
func (s *Scope) restore(e store.Entry) {
	if e.Key == headKey {
		var h head
		if json.Unmarshal(e.Value, &h) == nil {
			s.kind, s.synced, s.version = h.Kind, h.Complete, e.Version
		}
		return
	}
	if s.version != 0 { // else a list was being written
		s.version = max(s.version, e.Version)
	}
	if e.Value == nil {
		delete(s.entries, e.Key)
		return
	}
	if o, err := object.New(s.kind, e.Value); err == nil && o.Key() == e.Key {
		s.entries[e.Key] = &entry{server: o}
	}
}

// saved is what the store must hold of the scope.
func (s *Scope) saved() []store.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kind.Kind == "" {
		return nil
	}
	out := []store.Entry{s.head()}
	bucket := s.key.bucket()
	for key, e := range s.entries {
		out = append(out, store.Entry{Bucket: bucket, Key: key, Version: e.server.Version, Value: e.server.Raw})
	}
	return out
}

// highest is the newest version among the objects.
func (s *Scope) highest() uint64 {
	var v uint64
	for _, e := range s.entries {
		v = max(v, e.server.Version)
	}
	return v
}

// names says whether any object contains the name of what a key selects, which is how pods refer to it.
func (s *Scope) names(key Key) bool {
	name := []byte(key.Fields[len("metadata.name="):])
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if e.server.Namespace == key.Namespace && bytes.Contains(e.server.Raw, name) {
			return true
		}
	}
	return false
}

// step notes a change for watches. The lock is held.
func (s *Scope) step(now, before *object.Object, version uint64) {
	if now == nil && before == nil {
		return
	}
	if len(s.changes) == history {
		if old := s.changes[0]; old.now == nil {
			s.floor = max(s.floor, old.version)
		}
		s.changes = append(s.changes[:0:0], s.changes[1:]...)
	}
	s.changes = append(s.changes, change{now, before, version})
	s.next++
	s.tell()
}

func (s *Scope) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Replace makes the list the content of the scope.
func (s *Scope) Replace(l *object.List) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kind, s.version = l.Kind, 0
	s.cache.recordHead(s) // before its objects: a list of which only a part is on the disk is not resumed from
	listed := make(map[string]bool, len(l.Items))
	for _, o := range l.Items {
		listed[o.Key()] = true
		s.set(o)
	}
	for key, e := range s.entries {
		if !listed[key] {
			before := e.shown()
			delete(s.entries, key)
			s.cache.recordGone(s, key, l.Version)
			s.step(nil, before, l.Version)
		}
	}
	s.version, s.synced, s.refused, s.confirmed = l.Version, true, nil, time.Now()
	s.recordProgress()
	s.tell()
}

// set takes an object of the server. The lock is held.
func (s *Scope) set(o *object.Object) {
	e := s.entries[o.Key()]
	if e != nil && e.server.UID == o.UID && e.server.Version >= o.Version {
		return // known
	}
	before := e.shown()
	s.entries[o.Key()] = &entry{server: o}
	if e == nil || !bytes.Equal(e.server.Raw, o.Raw) {
		s.cache.record(s, o)
	}
	s.step(o, before, o.Version)
}

// Apply takes one event of the server.
func (s *Scope) Apply(e object.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.Type {
	case watch.Bookmark:
		if s.version = max(s.version, e.Object.Version); time.Since(s.recorded) > recordEvery {
			s.recordProgress()
		}
	case watch.Deleted:
		if old, ok := s.entries[e.Object.Key()]; ok {
			before := old.shown()
			delete(s.entries, e.Object.Key())
			s.cache.recordGone(s, e.Object.Key(), e.Object.Version)
			s.step(nil, before, e.Object.Version)
		}
	default:
		s.set(e.Object)
	}
	s.version, s.confirmed = max(s.version, e.Object.Version), time.Now()
}

// recordProgress keeps up to where the server was followed, so that a restart does not ask for history that is gone. The lock is held.
func (s *Scope) recordProgress() {
	s.recorded = time.Now()
	s.cache.recordHead(s)
}

// Due says, once in a while, that the scope is to be read again, for those that nothing follows.
func (s *Scope) Due(every time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Before(s.due) || s.synced && now.Sub(s.recorded) < every {
		return false
	}
	s.due = now.Add(every)
	return true
}

// See takes an object that was read from the server, for a scope of seen ones.
func (s *Scope) See(o *object.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kind.Kind == "" {
		s.kind = o.Kind
		s.cache.recordHead(s)
	}
	if _, known := s.entries[o.Key()]; !known && len(s.entries) >= maxSeen {
		for key, e := range s.entries { // any one
			delete(s.entries, key)
			s.cache.recordGone(s, key, e.server.Version)
			break
		}
	}
	s.set(o)
}

// Forget removes an object that the server does not have.
func (s *Scope) Forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.entries[key]; ok {
		delete(s.entries, key)
		s.cache.recordGone(s, key, e.server.Version)
		s.step(nil, e.shown(), e.server.Version)
	}
}

// Get returns an object as it is known here. complete says that one that is not here does not exist, as far as is known.
func (s *Scope) Get(key string) (o *object.Object, complete bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[key].shown(), s.synced && !s.key.Seen
}

// Local returns an object that this node changed while it was cut off, until the server has a newer one; else nil.
func (s *Scope) Local(key string) *object.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.entries[key]; ok {
		return e.local
	}
	return nil
}

// SetLocal shows an object as this node changed it while cut off, until the server has a newer one. It says whether the object is here.
func (s *Scope) SetLocal(o *object.Object) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[o.Key()]
	if !ok || e.gone || e.server.UID != o.UID {
		return false
	}
	before := e.shown()
	e.local = o
	s.step(o, before, o.Version)
	return true
}

// Hide removes an object as far as this node is concerned, until the server has a newer one.
func (s *Scope) Hide(o *object.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.entries[o.Key()]; ok && !e.gone && e.server.UID == o.UID {
		before := e.shown()
		e.gone = true
		s.step(nil, before, e.server.Version)
	}
}

// Synced says whether the scope was ever complete.
func (s *Scope) Synced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.synced
}

// Fresh says whether the scope follows the server at present.
func (s *Scope) Fresh() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fresh
}

// Count is the number of objects.
func (s *Scope) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries)
}
