package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Request asks for the addresses of one interface of one owner.
type Request struct {
	Owner Owner
	// Interface is the name of the interface inside the sandbox.
	Interface string
	// Sandbox is what the addresses are given to now.
	Sandbox Sandbox
	// Ranges are the range sets, one address of each; see complete.
	Ranges []RangeSet
	// PodsDir is the kubelet's directory with one directory per existing pod,
	// named by UID. A pod without one is gone: that is how addresses are found
	// when a range is exhausted. Optional.
	PodsDir string
}

// pool is the state of the store, read under its lock.
type pool struct {
	held, released []entry
	used           map[netip.Addr]bool
}

// Allocate returns the addresses of an owner: those it has, or new ones. New ones
// are the next after the last that was given out. When it returns, they are
// reserved on disk. It returns ErrExhausted when a range has none left.
func (s *Store) Allocate(req Request) ([]Address, error) {
	owner, err := req.Owner.id()
	if err != nil {
		return nil, err
	}
	if err := checkInterface(req.Interface); err != nil {
		return nil, err
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	p, err := s.load()
	if err != nil {
		return nil, err
	}
	mine, err := s.revive(p, owner, req.Interface)
	if err != nil {
		return nil, err
	}
	want := entry{owner: owner, iface: req.Interface}
	if want.addrs, err = s.choose(p, req, mine); err != nil {
		return nil, err
	}
	if err := s.reserve(want, mine, req); err != nil {
		return nil, err
	}
	return addresses(want, req.Ranges), nil
}

func addresses(e entry, sets []RangeSet) []Address {
	result := make([]Address, len(sets))
	for i, set := range sets {
		result[i], _ = set.address(e.addrs[i]) // chosen from this set
	}
	return result
}

// load reads the store and drops released entries that have rested.
func (s *Store) load() (*pool, error) {
	p := &pool{used: map[netip.Addr]bool{}}
	var err error
	if p.held, err = s.list("held"); err != nil {
		return nil, err
	}
	all, err := s.list("released")
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		rested, err := s.rested(e)
		if err != nil {
			return nil, err
		}
		if !rested {
			p.released = append(p.released, e)
		}
	}
	for _, e := range slices.Concat(p.held, p.released) {
		for _, a := range e.addrs {
			p.used[a] = true
		}
	}
	return p, nil
}

// revive returns the entries of an owner. A released one becomes held again: its
// pod was thought gone too early.
func (s *Store) revive(p *pool, owner, iface string) ([]entry, error) {
	var mine []entry
	is := func(e entry) bool { return e.owner == owner && e.iface == iface }
	for _, e := range p.held {
		if is(e) {
			mine = append(mine, e)
		}
	}
	for _, e := range p.released {
		if !is(e) {
			continue
		}
		if err := os.Rename(s.released(e), s.held(e)); err != nil {
			return nil, fmt.Errorf("take back released address: %w", err)
		}
		mine = append(mine, e)
	}
	p.released = slices.DeleteFunc(p.released, is)
	return mine, nil
}

// choose is one address of each set: the owner's where it has one that fits the
// ranges as they are now, else a new one.
func (s *Store) choose(p *pool, req Request, mine []entry) ([]netip.Addr, error) {
	last := s.readLast()
	chosen := make([]netip.Addr, len(req.Ranges))
	picked := false
	for i, set := range req.Ranges {
		for _, e := range mine {
			for _, a := range e.addrs {
				if _, ok := set.find(a); ok && !chosen[i].IsValid() {
					chosen[i] = a
				}
			}
		}
		if chosen[i].IsValid() {
			continue
		}
		a, err := s.pick(p, req, set, last[strconv.Itoa(i)])
		if err != nil {
			return nil, err
		}
		chosen[i], picked, p.used[a] = a, true, true
	}
	if !picked {
		return chosen, nil
	}
	return chosen, s.writeLast(chosen)
}

func (s *Store) pick(p *pool, req Request, set RangeSet, last netip.Addr) (netip.Addr, error) {
	used := func(a netip.Addr) bool { return p.used[a] }
	if a, ok := set.pick(last, used); ok {
		return a, nil
	}
	if err := s.reclaim(p, req, set); err != nil {
		return netip.Addr{}, err
	}
	if a, ok := set.pick(last, used); ok {
		return a, nil
	}
	return netip.Addr{}, s.exhausted(p, set)
}

// reserve writes the entry with the sandbox and removes the owner's other ones.
func (s *Store) reserve(want entry, mine []entry, req Request) error {
	var c contents
	known := false
	for _, e := range mine {
		if e.name() != want.name() {
			continue
		}
		var err error
		if c, err = readContents(s.held(e)); err != nil {
			return err
		}
		known = true
	}
	c, changed := c.withSandbox(req.Sandbox)
	changed = changed || c.Namespace != req.Owner.Pod.Namespace || c.Name != req.Owner.Pod.Name
	c.Namespace, c.Name = req.Owner.Pod.Namespace, req.Owner.Pod.Name
	if changed || !known {
		if err := s.write(want, c); err != nil {
			return err
		}
	}
	for _, e := range mine {
		if e.name() == want.name() {
			continue
		}
		if err := os.Remove(s.held(e)); err != nil {
			return fmt.Errorf("remove address outside the ranges: %w", err)
		}
	}
	return nil
}

// reclaim makes an address of an exhausted set free: the one that was released
// first, or one whose owner is gone.
func (s *Store) reclaim(p *pool, req Request, set RangeSet) error {
	if !slices.ContainsFunc(p.released, func(e entry) bool { return e.within(set) }) {
		if err := s.releaseGone(p, req, set); err != nil {
			return err
		}
	}
	var oldest time.Time
	var found *entry
	for i, e := range p.released {
		if !e.within(set) {
			continue
		}
		info, err := os.Stat(s.released(e))
		if err != nil {
			return fmt.Errorf("look at released address: %w", err)
		}
		if found == nil || info.ModTime().Before(oldest) {
			found, oldest = &p.released[i], info.ModTime()
		}
	}
	if found == nil {
		return nil
	}
	gone := *found
	p.released = slices.DeleteFunc(p.released, func(e entry) bool { return e.name() == gone.name() })
	for _, a := range gone.addrs {
		delete(p.used, a)
	}
	return s.forget(gone)
}

func (e entry) within(set RangeSet) bool {
	return slices.ContainsFunc(e.addrs, func(a netip.Addr) bool {
		_, ok := set.find(a)
		return ok
	})
}

// releaseGone releases the addresses of a set whose owner is gone.
func (s *Store) releaseGone(p *pool, req Request, set RangeSet) error {
	var stay []entry
	for _, e := range p.held {
		gone := e.within(set) && podGone(req.PodsDir, e.podUID())
		if gone {
			c, err := readContents(s.held(e))
			if err != nil {
				return err
			}
			gone = !c.alive()
		}
		if !gone {
			stay = append(stay, e)
			continue
		}
		if err := s.release(e); err != nil {
			return err
		}
		p.released = append(p.released, e)
	}
	p.held = stay
	return nil
}

// podGone says whether the kubelet has no directory for a pod. Without a pod or a
// directory to look in, only the sandboxes count: containers are gone with them,
// pods are not.
func podGone(podsDir, uid string) bool {
	if uid == "" {
		return true
	}
	if podsDir == "" {
		return false
	}
	if _, err := os.Stat(podsDir); err != nil {
		return false // the kubelet's directory itself is missing: know nothing
	}
	_, err := os.Stat(filepath.Join(podsDir, uid))
	return errors.Is(err, fs.ErrNotExist)
}

// exhausted is the error for a set without a free address.
func (s *Store) exhausted(p *pool, set RangeSet) error {
	held, idle := 0, 0
	for _, e := range p.held {
		if !e.within(set) {
			continue
		}
		held++
		if c, err := readContents(s.held(e)); err == nil && !c.alive() {
			idle++
		}
	}
	return fmt.Errorf("%w in %s: all %d are held by pods, %d of them without a running sandbox: delete pods, or give this node a larger pod network", ErrExhausted, set, held, idle)
}
