package udp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	oneSix = netip.MustParsePrefix("fd00:5:0:1::/64")
	twoSix = netip.MustParsePrefix("fd00:5:0:2::/64")
)

// sixOf is an IPv6 packet of TCP or UDP with a right checksum.
func sixOf(proto byte, src, dst string, payload []byte) ipv6 {
	p := make([]byte, minIP6, 2000)
	p[0], p[6], p[7] = 0x60, proto, 64
	copy(p[8:], netip.MustParseAddr(src).AsSlice())
	copy(p[24:], netip.MustParseAddr(dst).AsSlice())
	field := minIP6 + 6
	l4 := make([]byte, minUDP)
	if proto == protoTCP {
		l4, field = make([]byte, minTCP), minIP6+16
		l4[12], l4[13] = minTCP<<2, tcpACK|tcpPSH|tcpFIN
		binary.BigEndian.PutUint32(l4[4:], 1<<32-100)
	} else {
		binary.BigEndian.PutUint16(l4[4:], uint16(minUDP+len(payload)))
	}
	p = append(append(p, l4...), payload...)
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)-minIP6))
	binary.BigEndian.PutUint16(p[field:], ^fold(pseudo6(p, proto)+uint32(len(p)-minIP6)+sum(p[minIP6:])))
	return p
}

// intactSix tells whether a packet's lengths and checksum are right.
func intactSix(p ipv6) bool {
	return int(binary.BigEndian.Uint16(p[4:])) == len(p)-minIP6 &&
		(p[6] != protoUDP || int(binary.BigEndian.Uint16(p[minIP6+4:])) == len(p)-minIP6) &&
		fold(pseudo6(p, p[6])+uint32(len(p)-minIP6)+sum(p[minIP6:])) == 0xffff
}

// dualHosts are twoHosts with IPv6.
func dualHosts(t testing.TB) (near, far *Device, s *steps) {
	near, far, from, to := twoHosts(t)
	one, two := netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("10.5.2.0/24")
	near.Set(NewDualTable(two, twoSix, []Peer{{one, oneSix, addrOf(near.table.Load().find(ip("10.5.1.1")))}}))
	far.Set(NewDualTable(one, oneSix, []Peer{{two, twoSix, addrOf(far.table.Load().find(ip("10.5.2.1")))}}))
	return near, far, &steps{newEgress(near), newIngress(far), from, to}
}

func TestIPv6Steps(t *testing.T) {
	const from, to = "fd00:5:0:2::9", "fd00:5:0:1::7"
	tcp, udp := sixOf(protoTCP, from, to, bytesOf(8000)), sixOf(protoUDP, from, to, bytesOf(900))
	for name, c := range map[string]struct {
		packet ipv6
		vnet   vnet
		want   int
	}{
		"one datagram":        {udp, vnet{}, 1},
		"TCP super-packet":    {tcp, vnet{needsSum: true, gso: vnetTCP6, headers: 60, size: 1000, sumStart: 40, sumOffset: 16}, 8},
		"run of datagrams":    {udp, vnet{needsSum: true, gso: vnetUDP, headers: 48, size: 300, sumStart: 40, sumOffset: 6}, 3},
		"checksum left to us": {leftOver(udp), vnet{needsSum: true, sumStart: 40, sumOffset: 6}, 1},
	} {
		for range 2 { // the second time with a guess
			_, _, s := dualHosts(t)
			var head [vnetSize]byte
			c.vnet.write(&head)
			if _, err := unix.Write(s.from, append(head[:], c.packet...)); err != nil {
				t.Fatal(err)
			}
			if n, err := s.out.step(false); n != c.want || err != nil {
				t.Fatalf("%s: egress %d, %v", name, n, err)
			}
			var payload []byte
			for got := 0; got < c.want; {
				got += s.receive(t, false)
			}
			b := make([]byte, maxPacket+vnetSize)
			for range c.want {
				n, err := unix.Read(s.to, b)
				if err != nil {
					t.Fatal(err)
				}
				p := ipv6(b[vnetSize:n])
				if !intactSix(p) || p.hops() != 62 || p.dst() != c.packet.dst() {
					t.Errorf("%s: % x", name, p[:60])
				}
				headers := minIP6 + minUDP
				if p[6] == protoTCP {
					headers = minIP6 + minTCP
				}
				payload = append(payload, p[headers:]...)
			}
			if !bytes.HasSuffix(c.packet, payload) || len(payload) < 900 {
				t.Errorf("%s: %d bytes of payload, others than were sent", name, len(payload))
			}
		}
	}
}

// leftOver is a packet whose checksum is left to the device.
func leftOver(p ipv6) ipv6 {
	p = bytes.Clone(p)
	binary.BigEndian.PutUint16(p[minIP6+6:], fold(pseudo6(p, p[6])+uint32(len(p)-minIP6)))
	return p
}

// TestIPv6Drops: what must not pass is dropped, and answered where it may be.
func TestIPv6Drops(t *testing.T) {
	const from, to = "fd00:5:0:2::9", "fd00:5:0:1::7"
	last := sixOf(protoUDP, from, to, nil)
	last[7] = 1
	for name, c := range map[string]struct {
		packet ipv6
		drop   reason
		answer byte // ICMPv6 type; zero for none
	}{
		"no peer":      {sixOf(protoUDP, from, "fd00:5:0:9::1", nil), noRoute, icmp6Unreachable},
		"to a group":   {sixOf(protoUDP, from, "ff02::1", nil), noRoute, 0},
		"last hop":     {last, ttlExceeded, icmp6TimeExceeded},
		"too large":    {sixOf(protoUDP, from, to, bytesOf(1500)), tooBig, icmp6TooBig},
		"an error":     {sixOf(protoICMP6, from, "fd00:5:0:9::1", nil), noRoute, 0},
		"cut short":    {sixOf(protoUDP, from, to, bytesOf(50))[:60], malformed, 0},
		"without head": {ipv6{0x60}, malformed, 0},
	} {
		near, _, s := dualHosts(t)
		if _, err := unix.Write(s.from, append(make([]byte, vnetSize), c.packet...)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.out.step(false); err != nil {
			t.Fatal(err)
		}
		if got := near.out.shared.drops[c.drop].Load(); got != 1 {
			t.Errorf("%s: %d dropped as %s", name, got, reasonNames[c.drop])
		}
		b := make([]byte, maxPacket)
		n, err := unix.Read(s.from, b)
		if c.answer == 0 {
			if err == nil {
				t.Errorf("%s: answered with % x", name, b[:n])
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: no answer: %v", name, err)
			continue
		}
		if p := ipv6(b[vnetSize:n]); !intactSix(p) || p[minIP6] != c.answer || p.dst().String() != from || p.src() != twoSix.Addr() {
			t.Errorf("%s: answer % x", name, p)
		}
	}
}

// TestIPv6Ingress takes only what a peer's host sends from inside its subnet for
// inside this one's.
func TestIPv6Ingress(t *testing.T) {
	_, far, s := dualHosts(t)
	table := far.table.Load()
	host := table.six.find(twoSix.Addr().Next()).host
	const from, to = "fd00:5:0:2::9", "fd00:5:0:1::7"
	last := sixOf(protoUDP, from, to, nil)
	last[7] = 1
	for name, c := range map[string]struct {
		host   uint64
		packet ipv6
		want   reason
	}{
		"stranger":         {host + 1, sixOf(protoUDP, from, to, nil), unknownHost},
		"another's source": {host, sixOf(protoUDP, "fd00:5:0:3::9", to, nil), wrongSource},
		"our own source":   {host, sixOf(protoUDP, "fd00:5:0:1::9", to, nil), wrongSource},
		"elsewhere":        {host, sixOf(protoUDP, from, "fd00:5:0:3::7", nil), wrongDestination},
		"last hop":         {host, last, ttlExceeded},
		"cut short":        {host, sixOf(protoUDP, from, to, bytesOf(50))[:60], malformed},
	} {
		if got, ok := s.in.packet(table, c.host, c.packet); ok || got != c.want {
			t.Errorf("%s: %s, taken %v", name, reasonNames[got], ok)
		}
	}
	if r, ok := s.in.packet(table, host, sixOf(protoUDP, from, to, nil)); !ok {
		t.Errorf("a good one is dropped as %s", reasonNames[r])
	}
	// A host without IPv6 knows nothing of it, as before.
	four := NewTable(netip.MustParsePrefix("10.5.1.0/24"), nil)
	if r, ok := s.in.packet(four, host, sixOf(protoUDP, from, to, nil)); ok || r != notIPv4 {
		t.Errorf("without IPv6: %s, taken %v", reasonNames[r], ok)
	}
}

// FuzzIPv6 wants that no datagram and no packet of a container does harm.
func FuzzIPv6(f *testing.F) {
	f.Add([]byte(sixOf(protoUDP, "fd00:5:0:2::9", "fd00:5:0:1::7", bytesOf(10))), byte(0), uint16(0), uint16(40), uint16(6))
	f.Add([]byte(sixOf(protoTCP, "fd00:5:0:2::9", "fd00:5:0:1::7", bytesOf(3000))), byte(vnetTCP6), uint16(1000), uint16(40), uint16(16))
	f.Add([]byte(sixOf(protoICMP6, "fd00:5:0:2::9", "fd00:5:0:9::7", nil)), byte(0), uint16(0), uint16(0), uint16(0))
	near, far, s := dualHosts(f)
	host := far.table.Load().six.find(twoSix.Addr().Next()).host
	b := make([]byte, maxPacket+vnetSize)
	f.Fuzz(func(t *testing.T, packet []byte, gso byte, size, start, offset uint16) {
		if len(packet) > 4000 {
			return
		}
		s.in.packet(far.table.Load(), host, bytes.Clone(packet))
		s.in.merge.flush()
		var head [vnetSize]byte
		vnet{needsSum: true, gso: gso, size: int(size), sumStart: int(start), sumOffset: int(offset)}.write(&head)
		if _, err := unix.Write(s.from, append(head[:], packet...)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.out.step(false); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := s.in.step(false)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
		}
		for _, fd := range []int{s.from, s.to} {
			for {
				if _, err := unix.Read(fd, b); err != nil {
					break
				}
			}
		}
		_ = near
	})
}
