package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// State is all that an Allocator knows, as it is kept on disk.
type State struct {
	Subnet  netip.Prefix `json:"subnet"`
	Next    netip.Addr   `json:"next"`              // where the search for a new address begins
	Held    []Holding    `json:"held,omitempty"`    // by address
	Resting []Holding    `json:"resting,omitempty"` // released, the longest ago first
}

// Holding is an address and who holds it, or held it last.
type Holding struct {
	Addr netip.Addr `json:"addr"`
	// Owner is the container's MAC address as the engine wrote it; empty
	// where the engine named none, as for an --aux-address.
	Owner string `json:"owner,omitempty"`
}

// State returns what Restore needs to make the same allocator again.
func (a *Allocator) State() State {
	s := State{Subnet: a.subnet, Next: a.next, Held: a.Held()}
	for _, addr := range a.queue {
		s.Resting = append(s.Resting, Holding{addr, a.rest[addr]})
	}
	return s
}

// Held lists the addresses in use, in order.
func (a *Allocator) Held() []Holding {
	list := make([]Holding, 0, len(a.held))
	for _, addr := range slices.SortedFunc(maps.Keys(a.held), netip.Addr.Compare) {
		list = append(list, Holding{addr, a.held[addr]})
	}
	return list
}

// Restore makes the allocator that s was taken from. The error names the first
// part of s that no allocator can have written.
func Restore(s State) (*Allocator, error) {
	a, err := NewAllocator(s.Subnet)
	if err != nil {
		return nil, err
	}
	if err := a.check(s.Next); err != nil {
		return nil, fmt.Errorf("next address: %w", err)
	}
	a.next = s.Next
	for _, h := range s.Held {
		if err := a.admit(h); err != nil {
			return nil, fmt.Errorf("held address: %w", err)
		}
		a.held[h.Addr] = h.Owner
	}
	if len(s.Resting) > memory {
		return nil, fmt.Errorf("subnet %s: %d resting addresses, at most %d are kept", s.Subnet, len(s.Resting), memory)
	}
	for _, h := range s.Resting {
		if err := a.admit(h); err != nil {
			return nil, fmt.Errorf("resting address: %w", err)
		}
		a.rest[h.Addr] = h.Owner
		a.queue = append(a.queue, h.Addr)
	}
	return a, nil
}

// admit refuses an address that may never be given or is listed already.
func (a *Allocator) admit(h Holding) error {
	if err := a.check(h.Addr); err != nil {
		return err
	}
	if a.known(h.Addr) {
		return fmt.Errorf("address %s: listed twice", h.Addr)
	}
	return nil
}
