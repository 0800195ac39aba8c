package ipam

import (
	"fmt"
	"net/netip"
)

// Range is a run of addresses of one subnet.
type Range struct {
	// Subnet is the network; its prefix length goes into the pod's address.
	Subnet netip.Prefix `json:"subnet"`
	// Start and End are the first and last address to give out. Default: all of
	// the subnet but its network and broadcast addresses.
	Start netip.Addr `json:"rangeStart,omitzero"`
	End   netip.Addr `json:"rangeEnd,omitzero"`
	// Gateway is never given out. Default: the first address of the subnet.
	Gateway netip.Addr `json:"gateway,omitzero"`
}

// RangeSet is a list of ranges to take one address from. A pod gets one address
// of each set it is configured with: two sets make a dual-stack pod.
type RangeSet []Range

// complete fills in defaults and checks all sets. The error names the field.
func complete(sets []RangeSet) error {
	if len(sets) == 0 {
		return fmt.Errorf("ranges is empty: give at least one subnet, as in [[{\"subnet\": \"10.42.0.0/24\"}]]")
	}
	var seen []netip.Prefix
	for i, set := range sets {
		if len(set) == 0 {
			return fmt.Errorf("ranges[%d] is empty: give it a subnet", i)
		}
		for j := range set {
			if err := set[j].complete(); err != nil {
				return fmt.Errorf("ranges[%d][%d]: %w", i, j, err)
			}
			if set[j].Subnet.Addr().Is4() != set[0].Subnet.Addr().Is4() {
				return fmt.Errorf("ranges[%d] mixes IPv4 and IPv6: give each family its own list", i)
			}
			for _, other := range seen {
				if other.Overlaps(set[j].Subnet) {
					return fmt.Errorf("ranges[%d][%d]: subnet %s overlaps %s", i, j, set[j].Subnet, other)
				}
			}
			seen = append(seen, set[j].Subnet)
		}
	}
	return nil
}

func (r *Range) complete() error {
	if !r.Subnet.IsValid() {
		return fmt.Errorf("subnet is missing: give one such as 10.42.0.0/24")
	}
	r.Subnet = r.Subnet.Masked()
	if r.Subnet.Bits() > r.Subnet.Addr().BitLen()-2 {
		return fmt.Errorf("subnet %s is too small for a gateway and pods: use /%d or larger", r.Subnet, r.Subnet.Addr().BitLen()-2)
	}
	first := r.Subnet.Addr().Next()
	last := lastAddr(r.Subnet)
	if r.Subnet.Addr().Is4() {
		last = last.Prev() // the broadcast address
	}
	for _, f := range []struct {
		name  string
		value *netip.Addr
		def   netip.Addr
	}{{"rangeStart", &r.Start, first}, {"rangeEnd", &r.End, last}, {"gateway", &r.Gateway, first}} {
		if !f.value.IsValid() {
			*f.value = f.def
		}
		if !r.Subnet.Contains(*f.value) {
			return fmt.Errorf("%s %s is not in subnet %s", f.name, f.value, r.Subnet)
		}
	}
	r.Start = maxAddr(r.Start, first)
	r.End = minAddr(r.End, last)
	if r.End.Less(r.Start) {
		return fmt.Errorf("rangeEnd %s is before rangeStart %s", r.End, r.Start)
	}
	return nil
}

func minAddr(a, b netip.Addr) netip.Addr {
	if b.Less(a) {
		return b
	}
	return a
}

func maxAddr(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return b
	}
	return a
}

// lastAddr is the address of a prefix with all host bits set.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b) // the slice is 4 or 16 bytes long
	return a
}

func (r Range) contains(a netip.Addr) bool {
	return a != r.Gateway && !a.Less(r.Start) && !r.End.Less(a)
}

// find is the range that an address may be given out from.
func (s RangeSet) find(a netip.Addr) (Range, bool) {
	for _, r := range s {
		if r.contains(a) {
			return r, true
		}
	}
	return Range{}, false
}

// address is a's form for the result of the plugin.
func (s RangeSet) address(a netip.Addr) (Address, bool) {
	r, ok := s.find(a)
	return Address{Prefix: netip.PrefixFrom(a, r.Subnet.Bits()), Gateway: r.Gateway}, ok
}

// pick is the first free address after last, around the end of the set. It ends
// quickly even in a large subnet: of n used addresses it passes at most n.
func (s RangeSet) pick(last netip.Addr, used func(netip.Addr) bool) (netip.Addr, bool) {
	i, a := 0, s[0].Start
	for j, r := range s {
		if r.contains(last) {
			i, a = s.after(j, last)
		}
	}
	first := a
	for {
		if a != s[i].Gateway && !used(a) {
			return a, true
		}
		if i, a = s.after(i, a); a == first {
			return netip.Addr{}, false
		}
	}
}

// after is the address that follows a of range i, and its range.
func (s RangeSet) after(i int, a netip.Addr) (int, netip.Addr) {
	if a != s[i].End {
		return i, a.Next()
	}
	i = (i + 1) % len(s)
	return i, s[i].Start
}

// String lists the first and last addresses of the ranges.
func (s RangeSet) String() string {
	text := ""
	for i, r := range s {
		if i > 0 {
			text += ", "
		}
		text += r.Start.String() + "-" + r.End.String()
	}
	return text
}
