package udp

import "encoding/binary"

const (
	minIP     = 20
	minTCP    = 20
	minUDP    = 8
	maxHeader = 60 + 60 // IPv4 and TCP with all their options
	maxPacket = 1<<16 - 1

	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17

	flagDF    = 0x4000
	flagMF    = 0x2000
	offsetMax = 0x1fff // the fragment offset's bits
)

// ipv4 is a packet that check has accepted, from the first byte of its header
// to the last of its payload.
type ipv4 []byte

// check returns the IPv4 packet that b starts with. Of length bytes in all, b
// holds at least the header.
func check(b []byte, length int) (ihl, total int, r reason, ok bool) {
	if len(b) < minIP || b[0]>>4 != 4 {
		return 0, 0, notIPv4, false
	}
	ihl, total = int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if ihl < minIP || ihl > len(b) || total < ihl || total > length {
		return 0, 0, malformed, false
	}
	return ihl, total, 0, true
}

func (p ipv4) ihl() int         { return int(p[0]&15) * 4 }
func (p ipv4) ttl() byte        { return p[8] }
func (p ipv4) proto() byte      { return p[9] }
func (p ipv4) src() uint32      { return binary.BigEndian.Uint32(p[12:]) }
func (p ipv4) dst() uint32      { return binary.BigEndian.Uint32(p[16:]) }
func (p ipv4) fragment() uint16 { return binary.BigEndian.Uint16(p[6:]) }
func (p ipv4) id() uint16       { return binary.BigEndian.Uint16(p[4:]) }
func (p ipv4) df() bool         { return p.fragment()&flagDF != 0 }

// whole tells whether the packet is not a fragment.
func (p ipv4) whole() bool { return p.fragment()&(flagMF|offsetMax) == 0 }

// age decrements the TTL, which must not be zero, and corrects the checksum
// for it (RFC 1624).
func (p ipv4) age() {
	p[8]--
	c := uint32(binary.BigEndian.Uint16(p[10:])) + 0x100
	if c >= 0xffff {
		c++
	}
	binary.BigEndian.PutUint16(p[10:], uint16(c))
}

// finish completes a checksum that the kernel left to the device: the field at
// start+offset holds the pseudo header's sum.
func (p ipv4) finish(start, offset int) bool {
	return finish(p, start, offset, p.proto() == protoUDP)
}

// finish is ipv4.finish for either family.
func finish(p []byte, start, offset int, udp bool) bool {
	if start < minIP || offset < 0 || start+offset+2 > len(p) {
		return false
	}
	c := ^fold(sum(p[start:]))
	if c == 0 && udp {
		c = 0xffff // zero would mean none (RFC 768)
	}
	binary.BigEndian.PutUint16(p[start+offset:], c)
	return true
}
