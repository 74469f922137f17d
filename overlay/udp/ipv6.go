package udp

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// IPv6 packets travel as IPv4 ones do, in the same datagrams to the same hosts.
// Stock flannel's udp knows none of them: only hosts whose leases have an IPv6
// subnet get any.

const (
	minIP6     = 40
	protoICMP6 = 58
)

// sixTable says which host holds which IPv6 subnet.
type sixTable struct {
	self    netip.Prefix // zero without IPv6
	lengths []int        // of peers' subnets
	peers   map[netip.Prefix]*peer
}

// add enters a peer's subnet; the zero one is none.
func (t *sixTable) add(subnet netip.Prefix, to *peer) {
	if !subnet.IsValid() || !subnet.Addr().Is6() {
		return
	}
	if t.peers == nil {
		t.peers = map[netip.Prefix]*peer{}
	}
	t.peers[subnet.Masked()] = to
	if !slices.Contains(t.lengths, subnet.Bits()) {
		t.lengths = append(t.lengths, subnet.Bits())
	}
}

// find returns the peer whose subnet holds the address, nil if there is none.
func (t *sixTable) find(addr netip.Addr) *peer {
	for _, bits := range t.lengths {
		if p := t.peers[netip.PrefixFrom(addr, bits).Masked()]; p != nil {
			return p
		}
	}
	return nil
}

// ipv6 is a packet that check6 has accepted, or its beginning.
type ipv6 []byte

// check6 returns the length of the IPv6 packet that b starts with. Of length
// bytes in all, b holds at least the header.
func check6(b []byte, length int) (total int, ok bool) {
	if len(b) < minIP6 || b[0]>>4 != 6 {
		return 0, false
	}
	total = minIP6 + int(binary.BigEndian.Uint16(b[4:]))
	return total, total <= length
}

func (p ipv6) hops() byte      { return p[7] }
func (p ipv6) src() netip.Addr { return netip.AddrFrom16([16]byte(p[8:24])) }
func (p ipv6) dst() netip.Addr { return netip.AddrFrom16([16]byte(p[24:40])) }

// pseudo6 is the sum of the pseudo header of IPv6 without the length, RFC 8200
// 8.1.
func pseudo6(ip []byte, proto byte) uint32 { return sum(ip[8:40]) + uint32(proto) }

// six routes an IPv6 packet of n bytes, of which head is the beginning.
func (e *egress) six(t *Table, v vnet, head []byte, n int) (int, error) {
	total, ok := check6(head, n)
	if !ok {
		e.tal.drop(malformed)
		return 1, nil
	}
	p := ipv6(head[:min(len(head), total)])
	to := t.six.find(p.dst())
	switch {
	case p.hops() <= 1:
		e.tal.drop(ttlExceeded)
		e.answer.send(t, p, fault{kind: icmpTimeExceeded})
		return 1, nil
	case to == nil:
		e.tal.drop(noRoute)
		e.answer.send(t, p, fault{kind: icmpUnreachable, code: icmpNet})
		return 1, nil
	}
	if v.gso != 0 {
		return e.bulk(to, t, v, p, total, true)
	}
	e.alone()
	if total > e.d.opt.MTU {
		e.tooBig(t, p)
		return 1, nil
	}
	if len(p) < total {
		e.guess.join(e.arena[e.used:], total)
		p = ipv6(e.arena[e.used:][:total])
	}
	p[7]--
	if v.needsSum && !finish(p, v.sumStart, v.sumOffset, p[6] == protoUDP) {
		e.tal.drop(malformed)
		return 1, nil
	}
	e.out.add(to, p, nil)
	e.used += total
	return 1, nil
}

// six routes one datagram's IPv6 packet.
func (g *ingress) six(t *Table, host uint64, b []byte) (reason, bool) {
	total, ok := check6(b, len(b))
	if !ok {
		return malformed, false
	}
	p := ipv6(b[:total])
	from := t.six.find(p.src())
	if from == nil || from.host != host {
		if _, known := t.hosts[host]; !known {
			return unknownHost, false
		}
		return wrongSource, false
	}
	if !t.six.self.Contains(p.dst()) {
		return wrongDestination, false
	}
	if p.hops() <= 1 {
		return ttlExceeded, false
	}
	p[7]--
	g.whole(p)
	return 0, true
}

// ICMPv6 types, RFC 4443.
const (
	icmp6Unreachable  = 1
	icmp6TooBig       = 2
	icmp6TimeExceeded = 3
)

// answer6 is answer in ICMPv6; zero where RFC 4443 2.4 forbids one.
func (f fault) answer6(dst []byte, p ipv6, from netip.Addr) int {
	to := p.src()
	if to.IsUnspecified() || to.IsMulticast() || p.dst().IsMulticast() {
		return 0
	}
	if p[6] == protoICMP6 && (len(p) <= minIP6 || p[minIP6] < 128) { // an error itself
		return 0
	}
	kind := byte(icmp6Unreachable)
	switch {
	case f.kind == icmpTimeExceeded:
		kind = icmp6TimeExceeded
	case f.code == icmpFragNeeded:
		kind = icmp6TooBig
	}
	quoted := copy(dst[minIP6+icmpSize:icmpMax], p)
	total := minIP6 + icmpSize + quoted
	ip, icmp := dst[:minIP6], dst[minIP6:total]
	clear(dst[:minIP6+icmpSize])
	ip[0], ip[6], ip[7] = 0x60, protoICMP6, 64
	binary.BigEndian.PutUint16(ip[4:], uint16(len(icmp)))
	copy(ip[8:], from.AsSlice())
	copy(ip[24:], to.AsSlice())
	icmp[0] = kind
	binary.BigEndian.PutUint32(icmp[4:], uint32(f.mtu))
	binary.BigEndian.PutUint16(icmp[2:], ^fold(pseudo6(ip, protoICMP6)+uint32(len(icmp))+sum(icmp)))
	return total
}
