package udp

import "encoding/binary"

const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpPSH = 0x08
	tcpACK = 0x10
	tcpURG = 0x20
	tcpCWR = 0x80
)

// super is a super-packet's headers, taken apart once so that those of every
// segment are written quickly.
type super struct {
	template [maxHeader]byte
	headers  int // bytes, IP and TCP or UDP
	ihl      int
	six      bool
	size     int // bytes of payload a segment, but the last
	payload  int // bytes in all
	proto    byte
	flags    byte // of TCP
	id       uint16
	seq      uint32
	ipSum    uint32 // of the header without length, id and checksum
	sum      uint32 // of pseudo header and header without what differs
}

// parse takes apart the super-packet of total bytes that b starts with; b
// holds at least as many bytes as total or maxHeader, whichever is less. It is
// false for what is no well-formed TCP or UDP super-packet.
func (s *super) parse(b []byte, total int, v vnet) bool {
	tcp := byte(vnetTCP4)
	if s.six = b[0]>>4 == 6; s.six {
		// The kernel says where the transport header is: behind others it is
		// too rare to be worth a way of its own.
		if len(b) < minIP6 || v.sumStart != minIP6 {
			return false
		}
		tcp, s.ihl, s.proto, s.size = vnetTCP6, minIP6, b[6], v.size
	} else {
		p := ipv4(b)
		s.ihl, s.proto, s.size = p.ihl(), p.proto(), v.size
		if !p.whole() {
			return false
		}
	}
	switch {
	case s.size == 0:
		return false
	case v.gso&^vnetECN == tcp && s.proto == protoTCP && len(b) >= s.ihl+minTCP:
		s.headers = s.ihl + int(b[s.ihl+12]>>4)*4
		if s.headers < s.ihl+minTCP {
			return false
		}
	case v.gso == vnetUDP && s.proto == protoUDP:
		s.headers = s.ihl + minUDP
	default:
		return false
	}
	if s.headers > len(b) || s.headers >= total {
		return false
	}
	s.payload = total - s.headers
	copy(s.template[:s.headers], b)
	s.prepare()
	return true
}

// prepare clears what differs between segments and sums the rest.
func (s *super) prepare() {
	ip, l4 := s.template[:s.ihl], s.template[s.ihl:s.headers]
	if !s.six {
		s.id = binary.BigEndian.Uint16(ip[4:])
		clear(ip[2:6])
		clear(ip[10:12])
		s.ipSum = sum(ip)
	}
	if s.proto == protoTCP {
		s.seq, s.flags = binary.BigEndian.Uint32(l4[4:]), l4[13]
		clear(l4[4:8])
		l4[13] = 0
		clear(l4[16:18])
	} else {
		clear(l4[4:8])
	}
	if s.six {
		s.sum = pseudo6(ip, s.proto) + sum(l4)
	} else {
		s.sum = pseudo(ip, s.proto, 0) + sum(l4)
	}
}

// age decrements the TTL or hop limit, which must not be zero.
func (s *super) age() {
	if s.six {
		s.template[7]--
		return
	}
	s.template[8]--
	s.ipSum = sum(s.template[:s.ihl])
}

// segments is their number.
func (s *super) segments() int { return (s.payload + s.size - 1) / s.size }

// payloadOf returns where segment i's payload lies in all of the payload.
func (s *super) payloadOf(i int) (from, to int) {
	return i * s.size, min((i+1)*s.size, s.payload)
}

// write writes segment i's headers, given its payload. The destination has
// room for exactly the headers.
func (s *super) write(dst []byte, i int, payload []byte) {
	copy(dst, s.template[:s.headers])
	total := s.headers + len(payload)
	if s.six {
		binary.BigEndian.PutUint16(dst[4:], uint16(total-minIP6))
	} else {
		id := s.id + uint16(i)
		binary.BigEndian.PutUint16(dst[2:], uint16(total))
		binary.BigEndian.PutUint16(dst[4:], id)
		binary.BigEndian.PutUint16(dst[10:], ^fold(s.ipSum+uint32(total)+uint32(id)))
	}
	l4 := dst[s.ihl:]
	length := total - s.ihl
	c := s.sum + uint32(length) + sum(payload)
	if s.proto == protoUDP {
		binary.BigEndian.PutUint16(l4[4:], uint16(length))
		got := ^fold(c + uint32(length))
		if got == 0 {
			got = 0xffff
		}
		binary.BigEndian.PutUint16(l4[6:], got)
		return
	}
	seq, flags := s.seq+uint32(i*s.size), s.flags
	if i > 0 {
		flags &^= tcpCWR // RFC 3168: once
	}
	if (i+1)*s.size < s.payload {
		flags &^= tcpFIN | tcpPSH
	}
	binary.BigEndian.PutUint32(l4[4:], seq)
	l4[13] = flags
	c += seq>>16 + seq&0xffff + uint32(flags)
	binary.BigEndian.PutUint16(l4[16:], ^fold(c))
}
