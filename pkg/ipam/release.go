package ipam

import (
	"fmt"
	"net/netip"
)

// Reservation is one entry of the store.
type Reservation struct {
	// Pod is the pod, or the zero Key for a container without one.
	Pod Key
	// Container is the container's id when there is no pod.
	Container string
	// Interface is the name of the interface inside the sandbox.
	Interface string
	// Addresses are one per range set.
	Addresses []netip.Addr
	// Sandboxes are those that got the addresses and may still have them.
	Sandboxes []Sandbox
}

// List returns all reservations.
func (s *Store) List() ([]Reservation, error) {
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	held, err := s.list("held")
	if err != nil {
		return nil, err
	}
	all := make([]Reservation, 0, len(held))
	for _, e := range held {
		c, err := readContents(s.held(e))
		if err != nil {
			return nil, err
		}
		r := Reservation{Interface: e.iface, Addresses: e.addrs, Sandboxes: c.Sandboxes}
		if uid := e.podUID(); uid != "" {
			r.Pod = Key{Namespace: c.Namespace, Name: c.Name, UID: uid}
		} else {
			_, r.Container, _ = cutOwner(e.owner)
		}
		all = append(all, r)
	}
	return all, nil
}

// Retain releases the addresses of all pods that are not in live, and those of
// containers without a pod whose sandbox is gone; it returns how many entries it
// released. live must be complete: every pod the kubelet still knows, from all of
// its sources. An address that a living sandbox has stays reserved whatever live
// says. A pod that returns within two minutes gets its address back.
func (s *Store) Retain(live []Key) (released int, err error) {
	exists := make(map[string]bool, len(live))
	for _, key := range live {
		exists[key.UID] = true
	}
	return s.releaseIf(func(e entry) bool { return !exists[e.podUID()] })
}

// Release releases the addresses of one pod, unless a living sandbox has them.
func (s *Store) Release(key Key) error {
	if key.UID == "" {
		return fmt.Errorf("release address: the pod %s/%s has no UID", key.Namespace, key.Name)
	}
	_, err := s.releaseIf(func(e entry) bool { return e.podUID() == key.UID })
	return err
}

// releaseIf releases the entries that gone selects and no living sandbox has.
func (s *Store) releaseIf(gone func(entry) bool) (released int, err error) {
	unlock, err := s.lock()
	if err != nil {
		return 0, err
	}
	defer unlock()
	held, err := s.list("held")
	if err != nil {
		return 0, err
	}
	for _, e := range held {
		if !gone(e) {
			continue
		}
		c, err := readContents(s.held(e))
		if err != nil {
			return released, err
		}
		if c.alive() {
			continue
		}
		if err := s.release(e); err != nil {
			return released, err
		}
		released++
	}
	return released, nil
}

// Delete ends the use of an address by a sandbox. A pod keeps its address, and
// nothing is written for it: its sandbox is gone when its namespace is. The
// address of a container without a pod is released at once.
func (s *Store) Delete(owner Owner, iface string) error {
	if owner.Pod.UID != "" {
		return nil
	}
	id, err := owner.id()
	if err != nil {
		return err
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	held, err := s.list("held")
	if err != nil {
		return err
	}
	for _, e := range held {
		if e.owner != id || e.iface != iface {
			continue
		}
		if err := s.release(e); err != nil {
			return err
		}
	}
	return nil
}

// Collect forgets the sandboxes that valid does not accept, and releases the
// addresses of containers without a pod that have none left.
func (s *Store) Collect(valid func(sandboxID, iface string) bool) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	held, err := s.list("held")
	if err != nil {
		return err
	}
	for _, e := range held {
		if err := s.collect(e, valid); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) collect(e entry, valid func(sandboxID, iface string) bool) error {
	c, err := readContents(s.held(e))
	if err != nil {
		return err
	}
	var kept []Sandbox
	for _, sandbox := range c.Sandboxes {
		if valid(sandbox.ID, e.iface) {
			kept = append(kept, sandbox)
		}
	}
	if len(kept) == 0 && e.podUID() == "" {
		return s.release(e)
	}
	if len(kept) == len(c.Sandboxes) {
		return nil
	}
	c.Sandboxes = kept
	return s.write(e, c)
}

// Find returns the addresses that a sandbox has, or nil.
func (s *Store) Find(owner Owner, iface, sandboxID string) ([]netip.Addr, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.Interface != iface || r.Pod.UID != owner.Pod.UID || (r.Pod.UID == "" && r.Container != owner.Container) {
			continue
		}
		for _, sandbox := range r.Sandboxes {
			if sandbox.ID == sandboxID {
				return r.Addresses, nil
			}
		}
	}
	return nil, nil
}
