package ipam

import (
	"fmt"
	"net/netip"
	"slices"
)

// Allocator hands out the addresses of one subnet. The network address (of IPv6
// the routers' anycast address), the gateway (the first address) and IPv4's
// broadcast address are never given. Only what was given takes memory.
// New addresses are given in turn; a released one goes to the back of a queue
// and comes again only when no other is left. It is not safe for concurrent
// use.
type Allocator struct {
	subnet netip.Prefix
	next   netip.Addr            // where the search for a new address begins
	held   map[netip.Addr]string // owner, perhaps empty, by address
	rest   map[netip.Addr]string // last owner, of released addresses
	queue  []netip.Addr          // the keys of rest, longest released first
}

// memory is how many released addresses rest and are remembered with their
// owner. In subnets up to /22 that is all of them.
const memory = 1024

// NewAllocator makes an allocator with every address free. It refuses what is
// not an IPv4 subnet between /8 and /30 or an IPv6 subnet between /8 and /126.
func NewAllocator(subnet netip.Prefix) (*Allocator, error) {
	if !subnet.IsValid() || subnet.Addr().Is4In6() || subnet != subnet.Masked() || subnet.Bits() < 8 || subnet.Bits() > subnet.Addr().BitLen()-2 {
		return nil, fmt.Errorf("subnet %s: not an IPv4 subnet from /8 to /30 nor an IPv6 subnet from /8 to /126", subnet)
	}
	a := &Allocator{subnet: subnet, held: map[netip.Addr]string{}, rest: map[netip.Addr]string{}}
	a.next = a.first()
	return a, nil
}

// Subnet is the subnet whose addresses are handed out.
func (a *Allocator) Subnet() netip.Prefix { return a.subnet }

// Gateway is the subnet's first address.
func (a *Allocator) Gateway() netip.Addr { return a.subnet.Addr().Next() }

// Used is the number of addresses held.
func (a *Allocator) Used() int { return len(a.held) }

// Free is the number of addresses that Take can still give.
func (a *Allocator) Free() int { return a.size() - len(a.held) }

// Take gives an address to owner, which may be empty, and tells whether it was
// free before: an owner that holds an address gets that one again. Otherwise it
// gets the one it held last, if that still rests, or else the one given longest
// ago. The error says that every address is in use.
func (a *Allocator) Take(owner string) (addr netip.Addr, fresh bool, err error) {
	if addr, ok := a.heldBy(owner); ok {
		return addr, false, nil
	}
	if a.Free() == 0 {
		return netip.Addr{}, false, fmt.Errorf(
			"subnet %s: no address is free, all %d are in use; remove a container from this network, or give every host a larger subnet",
			a.subnet, a.Used())
	}
	addr, ok := a.restingOf(owner)
	if !ok {
		addr = a.pick()
	}
	a.hold(addr, owner)
	return addr, true, nil
}

// TakeExact gives addr to owner and tells whether it was free before: an owner
// that holds it gets it again. The error says that addr is reserved, outside
// the subnet or held by another.
func (a *Allocator) TakeExact(addr netip.Addr, owner string) (fresh bool, err error) {
	if err := a.check(addr); err != nil {
		return false, err
	}
	switch holder, ok := a.held[addr]; {
	case ok && holder == "":
		return false, fmt.Errorf("address %s: in use on this host already; choose another", addr)
	case ok && holder != owner:
		return false, fmt.Errorf("address %s: in use on this host already, by %s; choose another", addr, holder)
	case ok:
		return false, nil
	}
	a.hold(addr, owner)
	return true, nil
}

// Release frees addr, remembers who had it and tells whether it was held.
func (a *Allocator) Release(addr netip.Addr) bool {
	owner, ok := a.held[addr]
	if !ok {
		return false
	}
	delete(a.held, addr)
	if len(a.queue) == memory {
		a.wake(a.queue[0])
	}
	a.rest[addr] = owner
	a.queue = append(a.queue, addr)
	return true
}

// check refuses an address that may never be given.
func (a *Allocator) check(addr netip.Addr) error {
	var what string
	switch {
	case !a.subnet.Contains(addr):
		return fmt.Errorf("address %s: outside this host's subnet %s; choose one from %s to %s", addr, a.subnet, a.first(), a.last())
	case addr == a.subnet.Addr():
		what = "network"
	case addr == a.Gateway():
		what = "gateway"
	case addr.Is4() && addr == end(a.subnet):
		what = "broadcast"
	default:
		return nil
	}
	return fmt.Errorf("address %s: reserved, it is the %s address of %s; choose one from %s to %s", addr, what, a.subnet, a.first(), a.last())
}

// heldBy finds the address that owner holds, the lowest of several.
func (a *Allocator) heldBy(owner string) (netip.Addr, bool) {
	var found netip.Addr
	if owner == "" {
		return found, false
	}
	for addr, holder := range a.held {
		if holder == owner && (!found.IsValid() || addr.Less(found)) {
			found = addr
		}
	}
	return found, found.IsValid()
}

// restingOf finds the address that owner released last.
func (a *Allocator) restingOf(owner string) (netip.Addr, bool) {
	if owner == "" {
		return netip.Addr{}, false
	}
	for _, addr := range slices.Backward(a.queue) {
		if a.rest[addr] == owner {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// pick chooses among the free addresses, of which there must be one: the next
// that does not rest, or else the one that rested longest.
func (a *Allocator) pick() netip.Addr {
	if len(a.held)+len(a.rest) == a.size() {
		return a.queue[0]
	}
	addr := a.next
	for a.known(addr) {
		addr = a.after(addr)
	}
	a.next = a.after(addr)
	return addr
}

// hold enters addr as owner's.
func (a *Allocator) hold(addr netip.Addr, owner string) {
	a.wake(addr)
	a.held[addr] = owner
}

// wake forgets that addr rests.
func (a *Allocator) wake(addr netip.Addr) {
	if _, ok := a.rest[addr]; ok {
		delete(a.rest, addr)
		a.queue = slices.DeleteFunc(a.queue, func(q netip.Addr) bool { return q == addr })
	}
}

// known tells whether addr is held or rests.
func (a *Allocator) known(addr netip.Addr) bool {
	_, held := a.held[addr]
	_, rests := a.rest[addr]
	return held || rests
}

// first is the lowest address that may be given.
func (a *Allocator) first() netip.Addr { return a.Gateway().Next() }

// last is the highest address that may be given.
func (a *Allocator) last() netip.Addr {
	if a.subnet.Addr().Is6() {
		return end(a.subnet)
	}
	return end(a.subnet).Prev()
}

// size is the number of addresses that may be given, of a very large subnet less.
func (a *Allocator) size() int {
	reserved := 3
	if a.subnet.Addr().Is6() {
		reserved = 2
	}
	return 1<<min(a.subnet.Addr().BitLen()-a.subnet.Bits(), 30) - reserved
}

// after is the address that follows addr in the round of those that may be given.
func (a *Allocator) after(addr netip.Addr) netip.Addr {
	if addr == a.last() {
		return a.first()
	}
	return addr.Next()
}

// end is the last address of a subnet.
func end(subnet netip.Prefix) netip.Addr {
	b := subnet.Addr().AsSlice()
	for bit := subnet.Bits(); bit < 8*len(b); bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(b) // as long as it was
	return last
}
