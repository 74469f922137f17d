package udp

import (
	"encoding/binary"
	"net/netip"
)

// packet describes a test packet; zero fields mean a TCP segment without
// payload from 10.5.2.9 to 10.5.1.7, ports 1000 and 80.
type packet struct {
	src, dst string
	proto    byte
	ttl      byte
	tos      byte
	id       uint16
	fragment uint16
	options  []byte // of IPv4
	sport    uint16
	seq      uint32
	ack      uint32
	flags    byte
	tcp      []byte // options
	payload  []byte
}

func addr(s, otherwise string) []byte {
	if s == "" {
		s = otherwise
	}
	a := netip.MustParseAddr(s).As4()
	return a[:]
}

// make builds the packet with right checksums.
func (d packet) make() ipv4 {
	if d.proto == 0 {
		d.proto = protoTCP
	}
	if d.ttl == 0 {
		d.ttl = 64
	}
	if d.sport == 0 {
		d.sport = 1000
	}
	ip := make([]byte, minIP, 2000)
	ip = append(ip, d.options...)
	ihl := len(ip)
	ip[0], ip[1], ip[8], ip[9] = 0x40|byte(ihl/4), d.tos, d.ttl, d.proto
	binary.BigEndian.PutUint16(ip[4:], d.id)
	binary.BigEndian.PutUint16(ip[6:], d.fragment)
	copy(ip[12:], addr(d.src, "10.5.2.9"))
	copy(ip[16:], addr(d.dst, "10.5.1.7"))
	field := 0
	switch d.proto {
	case protoTCP:
		l4 := make([]byte, minTCP)
		binary.BigEndian.PutUint32(l4[4:], d.seq)
		binary.BigEndian.PutUint32(l4[8:], d.ack)
		l4[12], l4[13] = byte(minTCP+len(d.tcp))<<2, d.flags
		binary.BigEndian.PutUint16(l4[14:], 501)
		ip, field = append(append(ip, l4...), d.tcp...), 16
	case protoUDP:
		l4 := make([]byte, minUDP)
		binary.BigEndian.PutUint16(l4[4:], uint16(minUDP+len(d.payload)))
		ip, field = append(ip, l4...), 6
	}
	if field > 0 {
		binary.BigEndian.PutUint16(ip[ihl:], d.sport)
		binary.BigEndian.PutUint16(ip[ihl+2:], 80)
	}
	ip = append(ip, d.payload...)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	setIPSum(ip[:ihl])
	if field > 0 {
		c := ^fold(pseudo(ip, d.proto, len(ip)-ihl) + sum(ip[ihl:]))
		if c == 0 && d.proto == protoUDP {
			c = 0xffff
		}
		binary.BigEndian.PutUint16(ip[ihl+field:], c)
	}
	return ip
}

// bytesOf is n bytes that differ.
func bytesOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}
