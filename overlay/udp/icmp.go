package udp

import (
	"encoding/binary"
	"time"
)

// ICMP types and codes (RFC 792, RFC 1191).
const (
	icmpUnreachable  = 3
	icmpNet          = 0
	icmpFragNeeded   = 4
	icmpTimeExceeded = 11
	icmpSize         = 8
	icmpMax          = 576 // bytes of the whole answer (RFC 1812, 4.3.2.3)
)

// fault is what an ICMP error says.
type fault struct {
	kind, code byte
	mtu        int // of the next hop, for icmpFragNeeded
}

// answer writes the ICMP error about p, sent by from, and returns its length;
// zero where RFC 1812 4.3.2.7 forbids one. It may be given only the first
// bytes of p. The destination has room for icmpMax bytes.
func (f fault) answer(dst []byte, p ipv4, from uint32) int {
	if !answerable(p) {
		return 0
	}
	quoted := copy(dst[minIP+icmpSize:icmpMax], p)
	total := minIP + icmpSize + quoted
	ip, icmp := dst[:minIP], dst[minIP:total]
	clear(dst[:minIP+icmpSize])
	ip[0], ip[1] = 0x45, 0xc0 // internetwork control (RFC 1812, 4.3.2.5)
	binary.BigEndian.PutUint16(ip[2:], uint16(total))
	ip[8], ip[9] = 64, protoICMP
	binary.BigEndian.PutUint32(ip[12:], from)
	binary.BigEndian.PutUint32(ip[16:], p.src())
	setIPSum(ip)
	icmp[0], icmp[1] = f.kind, f.code
	binary.BigEndian.PutUint16(icmp[6:], uint16(f.mtu))
	binary.BigEndian.PutUint16(icmp[2:], ^fold(sum(icmp)))
	return total
}

// answerable tells whether an error about p may be sent.
func answerable(p ipv4) bool {
	if p.fragment()&offsetMax != 0 {
		return false
	}
	if src := p.src(); src == 0 || src>>24 == 127 || src>>28 >= 0xe {
		return false
	}
	if dst := p.dst(); dst>>28 >= 0xe {
		return false
	}
	if p.proto() != protoICMP {
		return true
	}
	if len(p) <= p.ihl() {
		return false
	}
	switch p[p.ihl()] { // queries only
	case 0, 8, 13, 14, 15, 16, 17, 18:
		return true
	}
	return false
}

// limiter bounds what ICMP errors cost: icmpRate a second, in bursts of
// icmpBurst.
type limiter struct {
	tokens int
	last   time.Time
}

const (
	icmpRate  = 1000
	icmpBurst = 50
)

func (l *limiter) allow(now time.Time) bool {
	if l.last.IsZero() {
		l.tokens, l.last = icmpBurst, now
	}
	if earned := int(min(now.Sub(l.last)*icmpRate/time.Second, icmpBurst)); earned > 0 {
		l.tokens, l.last = min(l.tokens+earned, icmpBurst), now
	}
	if l.tokens == 0 {
		return false
	}
	l.tokens--
	return true
}
