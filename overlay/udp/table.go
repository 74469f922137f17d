package udp

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Peer is another host: the subnet it holds, and where its socket is bound.
type Peer struct {
	Subnet netip.Prefix
	IPv6   netip.Prefix // zero without IPv6
	Addr   netip.AddrPort
}

// Table says which host holds which subnet. It never changes.
type Table struct {
	self    subnet
	lengths []length // longest first
	hosts   map[uint64]struct{}
	six     sixTable
}

// subnet is an IPv4 prefix.
type subnet struct{ base, mask uint32 }

func (s subnet) contains(addr uint32) bool { return addr&s.mask == s.base }

// length holds all peers' subnets of one prefix length.
type length struct {
	mask  uint32
	peers map[uint32]*peer
}

// peer is a Peer as the two threads want it.
type peer struct {
	subnet
	host uint64 // address and port, see hostKey
	name unix.RawSockaddrInet4
}

// NewTable makes the table of a host that holds the subnet self. Peers that
// are not IPv4 are left out; of two with one subnet the later one counts.
func NewTable(self netip.Prefix, peers []Peer) *Table {
	return NewDualTable(self, netip.Prefix{}, peers)
}

// NewDualTable is NewTable for a host that holds an IPv6 subnet too.
func NewDualTable(self, ipv6 netip.Prefix, peers []Peer) *Table {
	t := &Table{self: toSubnet(self), hosts: make(map[uint64]struct{}, len(peers)), six: sixTable{self: ipv6}}
	byLength := map[uint32]map[uint32]*peer{}
	for _, p := range peers {
		if !p.Subnet.IsValid() || !p.Subnet.Addr().Is4() || !p.Addr.Addr().Is4() {
			continue
		}
		sub, name := toSubnet(p.Subnet), toName(p.Addr)
		if byLength[sub.mask] == nil {
			byLength[sub.mask] = make(map[uint32]*peer, len(peers))
		}
		to := &peer{subnet: sub, host: hostKey(&name), name: name}
		byLength[sub.mask][sub.base] = to
		if ipv6.IsValid() {
			t.six.add(p.IPv6, to)
		}
		t.hosts[hostKey(&name)] = struct{}{}
	}
	for mask, peers := range byLength {
		t.lengths = append(t.lengths, length{mask, peers})
	}
	slices.SortFunc(t.lengths, func(a, b length) int { return int(int64(b.mask) - int64(a.mask)) })
	return t
}

// find returns the peer whose subnet holds the address, nil if there is none.
func (t *Table) find(addr uint32) *peer {
	for i := range t.lengths {
		if p := t.lengths[i].peers[addr&t.lengths[i].mask]; p != nil {
			return p
		}
	}
	return nil
}

// address is the device's own: flannel gives it the subnet's first.
func (t *Table) address() uint32 { return t.self.base }

func toSubnet(p netip.Prefix) subnet {
	if !p.IsValid() || !p.Addr().Is4() {
		return subnet{base: 1} // contains nothing
	}
	octets := p.Masked().Addr().As4()
	return subnet{binary.BigEndian.Uint32(octets[:]), ^uint32(0) << (32 - p.Bits())}
}

func toName(a netip.AddrPort) unix.RawSockaddrInet4 {
	name := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4()}
	binary.BigEndian.PutUint16(portBytes(&name), a.Port())
	return name
}

// hostKey is a socket's address and port in one comparable word.
func hostKey(name *unix.RawSockaddrInet4) uint64 {
	return uint64(binary.BigEndian.Uint32(name.Addr[:]))<<16 | uint64(name.Port)
}

// cache is one thread's memory of the last peer it found.
type cache struct {
	table *Table
	peer  *peer
}

// find is Table.find, quick for runs of packets of one peer. It is right only
// where no peer's subnet lies in another's, which leases guarantee.
func (c *cache) find(t *Table, addr uint32) *peer {
	if c.table == t && c.peer != nil && c.peer.contains(addr) {
		return c.peer
	}
	c.table, c.peer = t, t.find(addr)
	return c.peer
}
