package udp

import (
	"encoding/binary"
	"slices"
)

const mergeFlows = 8

// sink takes packets for the TUN device.
type sink interface {
	one(p ipv4)
	merged(f *flow)
}

// merger joins packets of one flow that follow each other, within one batch,
// into the super-packet that a sender's kernel would have split into them. A
// flow's packets stay in order. What it was given must stay as it is until
// flush.
type merger struct {
	to    sink
	udp   bool // whether the TUN device takes super-packets of UDP
	n     int
	flows [mergeFlows]*flow
}

func newMerger(to sink, udp bool) *merger {
	m := &merger{to: to, udp: udp}
	for i := range m.flows {
		m.flows[i] = &flow{}
	}
	return m
}

// flow is a super-packet in the making.
type flow struct {
	segment       // the first one
	parts    int  // segments so far
	bytes    int  // of payload
	verified bool // the first one's checksums
	push     byte // tcpPSH if the last one has it
	closed   bool // nothing may follow
	payloads [maxRun][]byte
	header   [maxHeader]byte
}

// segment is a packet that could be part of a super-packet.
type segment struct {
	p       ipv4
	headers int // bytes, IPv4 and TCP or UDP
	src     uint32
	dst     uint32
	ports   uint32
	seq     uint32
	proto   byte
	data    bool // may be merged: plain payload without special flags
}

// dissect reads the headers of a TCP or UDP packet that is no fragment.
func dissect(p ipv4) (s segment, ok bool) {
	ihl := p.ihl()
	if !p.whole() || len(p) < ihl+minUDP {
		return s, false
	}
	l4 := p[ihl:]
	s = segment{p: p, src: p.src(), dst: p.dst(), ports: binary.BigEndian.Uint32(l4), proto: p.proto()}
	switch s.proto {
	case protoTCP:
		if len(l4) < minTCP {
			return s, false
		}
		s.headers = ihl + int(l4[12]>>4)*4
		if s.headers < ihl+minTCP || s.headers > len(p) {
			return s, false
		}
		s.seq = binary.BigEndian.Uint32(l4[4:])
		s.data = len(p) > s.headers && l4[13]&^tcpPSH == tcpACK
	case protoUDP:
		s.headers = ihl + minUDP
		s.data = len(p) > s.headers && int(binary.BigEndian.Uint16(l4[4:])) == len(l4) && l4[6]|l4[7] != 0
	default:
		return s, false
	}
	return s, true
}

func (s *segment) payload() int { return len(s.p) - s.headers }

func (s *segment) sameFlow(o *segment) bool {
	return s.src == o.src && s.dst == o.dst && s.ports == o.ports && s.proto == o.proto
}

// intact verifies both checksums.
func (s *segment) intact() bool {
	ihl := s.p.ihl()
	return fold(sum(s.p[:ihl])) == 0xffff &&
		fold(pseudo(s.p, s.proto, len(s.p)-ihl)+sum(s.p[ihl:])) == 0xffff
}

// add takes the next packet.
func (m *merger) add(p ipv4) {
	s, ok := dissect(p)
	if !ok {
		m.flush() // it may be a fragment of any flow
		m.to.one(p)
		return
	}
	for i := range m.n {
		f := m.flows[i]
		if !f.sameFlow(&s) {
			continue
		}
		if f.take(&s) {
			if f.closed {
				m.finish(i)
			}
			return
		}
		m.finish(i)
		break
	}
	if !s.data || (s.proto == protoUDP && !m.udp) || (s.proto == protoTCP && p[p.ihl()+13]&tcpPSH != 0) {
		m.to.one(p)
		return
	}
	if m.n == mergeFlows {
		m.finish(0)
	}
	m.flows[m.n].start(s)
	m.n++
}

// finish hands over flow i.
func (m *merger) finish(i int) {
	f := m.flows[i]
	if f.parts == 1 {
		m.to.one(f.p)
	} else {
		m.to.merged(f)
	}
	copy(m.flows[i:m.n], m.flows[i+1:m.n])
	m.n--
	m.flows[m.n] = f
}

// flush hands over everything.
func (m *merger) flush() {
	for m.n > 0 {
		m.finish(0)
	}
}

func (f *flow) start(s segment) {
	f.segment, f.parts, f.bytes = s, 1, s.payload()
	f.verified, f.push, f.closed = false, 0, false
	f.payloads[0] = s.p[s.headers:]
}

// take appends a packet of the flow, or leaves the flow as it was.
func (f *flow) take(s *segment) bool {
	size, first := s.payload(), f.payload()
	if f.closed || !s.data || size > first || f.parts == maxRun || f.headers+f.bytes+size > maxPacket {
		return false
	}
	if s.headers != f.headers || !f.follows(s) {
		return false
	}
	if !f.verified {
		if !f.intact() {
			f.closed = true
			return false
		}
		f.verified = true
	}
	if !s.intact() {
		return false
	}
	f.payloads[f.parts] = s.p[s.headers:]
	f.parts++
	f.bytes += size
	if s.proto == protoTCP {
		f.push = s.p[s.p.ihl()+13] & tcpPSH
	}
	f.closed = size < first || f.push != 0 || f.parts == maxRun
	return true
}

// follows tells whether the packet's headers are what splitting a
// super-packet would have written next.
func (f *flow) follows(s *segment) bool {
	a, b, ihl := f.p, s.p, f.p.ihl()
	if a[0] != b[0] || a[1] != b[1] || a[8] != b[8] || a.fragment() != b.fragment() {
		return false
	}
	if !a.df() && b.id() != a.id()+uint16(f.parts) {
		return false
	}
	if !slices.Equal(a[minIP:ihl], b[minIP:ihl]) {
		return false
	}
	if s.proto == protoUDP {
		return true
	}
	a, b = a[ihl:f.headers], b[ihl:f.headers]
	return s.seq == f.seq+uint32(f.bytes) &&
		slices.Equal(a[8:13], b[8:13]) && slices.Equal(a[14:16], b[14:16]) && slices.Equal(a[18:], b[18:])
}

// super writes the super-packet's headers and says what the kernel must know
// of it. Its payload are the flow's payloads.
func (f *flow) super() (header []byte, v vnet) {
	header = f.header[:f.headers]
	copy(header, f.p)
	ihl := f.p.ihl()
	total := f.headers + f.bytes
	binary.BigEndian.PutUint16(header[2:], uint16(total))
	setIPSum(header[:ihl])
	v = vnet{needsSum: true, headers: f.headers, size: f.payload(), sumStart: ihl}
	part := fold(pseudo(header, f.proto, total-ihl))
	if l4 := header[ihl:]; f.proto == protoTCP {
		v.gso, v.sumOffset = vnetTCP4, 16
		l4[13] |= f.push
		binary.BigEndian.PutUint16(l4[16:], part)
	} else {
		v.gso, v.sumOffset = vnetUDP, 6
		binary.BigEndian.PutUint16(l4[4:], uint16(total-ihl))
		binary.BigEndian.PutUint16(l4[6:], part)
	}
	return header, v
}
