package udp

import (
	"encoding/binary"
	"math/bits"
)

// sum is the 16-bit one's complement sum of b (RFC 1071), not complemented. It
// adds 64-bit words in the order that loads fastest and turns the result
// around at the end.
func sum(b []byte) uint32 {
	var s, c uint64
	for len(b) >= 64 {
		w := (*[64]byte)(b)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[0:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[8:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[16:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[24:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[32:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[40:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[48:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(w[56:]), c)
		b = b[64:]
	}
	for len(b) >= 8 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), c)
		b = b[8:]
	}
	if len(b) > 0 {
		var rest [8]byte
		copy(rest[:], b)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(rest[:]), c)
	}
	s, c = bits.Add64(s, 0, c)
	s += c
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	return uint32(bits.ReverseBytes16(fold(uint32(s>>16 + s&0xffff))))
}

// fold brings a sum of 16-bit words down to 16 bits.
func fold(s uint32) uint16 {
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s)
}

// pseudo is the sum of the pseudo header of TCP and UDP over IPv4.
func pseudo(ip []byte, proto byte, length int) uint32 {
	return sum(ip[12:20]) + uint32(proto) + uint32(length)
}

// setIPSum writes the checksum of an IPv4 header.
func setIPSum(header []byte) {
	header[10], header[11] = 0, 0
	binary.BigEndian.PutUint16(header[10:], ^fold(sum(header)))
}
