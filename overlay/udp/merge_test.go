package udp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// splitter is a sink that takes super-packets apart again, as the kernel does.
type splitter struct {
	t      testing.TB
	out    []ipv4
	shapes []string
}

func (s *splitter) one(p ipv4) {
	s.out = append(s.out, slices.Clone(p))
	s.shapes = append(s.shapes, fmt.Sprint(len(p)))
}

func (s *splitter) merged(f *flow) {
	header, v := f.super()
	whole := slices.Clone(header)
	for _, b := range f.payloads[:f.parts] {
		whole = append(whole, b...)
	}
	ihl, total, _, ok := check(whole, len(whole))
	if !ok || total != len(whole) || fold(sum(whole[:ihl])) != 0xffff {
		s.t.Fatal("bad super-packet")
	}
	done := ipv4(slices.Clone(whole))
	if !done.finish(v.sumStart, v.sumOffset) || fold(pseudo(done, done.proto(), total-ihl)+sum(done[ihl:])) != 0xffff {
		s.t.Fatal("bad partial checksum")
	}
	segments := segmentsOf(s.t, whole, v)
	s.out = append(s.out, segments...)
	s.shapes = append(s.shapes, fmt.Sprintf("%dx%d", len(segments), v.size))
}

// segmentsOf splits a super-packet.
func segmentsOf(t testing.TB, whole ipv4, v vnet) (out []ipv4) {
	t.Helper()
	var s super
	if !s.parse(whole, len(whole), v) {
		t.Fatal("super-packet does not parse")
	}
	for i := range s.segments() {
		from, to := s.payloadOf(i)
		p := make([]byte, s.headers+to-from)
		copy(p[s.headers:], whole[s.headers+from:s.headers+to])
		s.write(p[:s.headers], i, p[s.headers:])
		out = append(out, p)
	}
	return out
}

// numberless clears what splitting may change: the id of a packet that must
// not be fragmented (RFC 6864).
func numberless(p ipv4) ipv4 {
	if !p.df() {
		return p
	}
	p = slices.Clone(p)
	clear(p[4:6])
	setIPSum(p[:p.ihl()])
	return p
}

// seg is segment i of a TCP flow.
func seg(i, size int, change func(*packet)) ipv4 {
	d := packet{
		flags: tcpACK, id: uint16(65530 + i), seq: uint32(1<<32 - 2000 + i*1000), ack: 77,
		tcp: []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, payload: bytesOf(size),
	}
	if change != nil {
		change(&d)
	}
	return d.make()
}

func dgram(i, size int, change func(*packet)) ipv4 {
	d := packet{proto: protoUDP, id: uint16(i), payload: bytesOf(size)}
	if change != nil {
		change(&d)
	}
	return d.make()
}

func corrupt(p ipv4) ipv4 { p[len(p)-1] ^= 1; return p }

func TestMerge(t *testing.T) {
	push := func(d *packet) { d.flags |= tcpPSH }
	df := func(d *packet) { d.fragment, d.id = flagDF, 0 }
	for name, c := range map[string]struct {
		in   []ipv4
		want string
	}{
		"run":            {[]ipv4{seg(0, 1000, nil), seg(1, 1000, nil), seg(2, 1000, nil)}, "3x1000"},
		"short last":     {[]ipv4{seg(0, 1000, nil), seg(1, 10, nil), seg(2, 1000, nil)}, "2x1000 1052"},
		"push ends":      {[]ipv4{seg(0, 1000, nil), seg(1, 1000, push), seg(2, 1000, nil), seg(3, 1000, nil)}, "2x1000 2x1000"},
		"push first":     {[]ipv4{seg(0, 1000, push), seg(1, 1000, nil)}, "1052 1052"},
		"gap":            {[]ipv4{seg(0, 1000, nil), seg(2, 1000, nil)}, "1052 1052"},
		"swapped":        {[]ipv4{seg(1, 1000, nil), seg(0, 1000, nil)}, "1052 1052"},
		"longer":         {[]ipv4{seg(0, 1000, nil), seg(1, 1001, nil)}, "1052 1053"},
		"other ack":      {[]ipv4{seg(0, 1000, nil), seg(1, 1000, func(d *packet) { d.ack++ })}, "1052 1052"},
		"other option":   {[]ipv4{seg(0, 1000, nil), seg(1, 1000, func(d *packet) { d.tcp[11]++ })}, "1052 1052"},
		"other TTL":      {[]ipv4{seg(0, 1000, nil), seg(1, 1000, func(d *packet) { d.ttl = 9 })}, "1052 1052"},
		"other TOS":      {[]ipv4{seg(0, 1000, nil), seg(1, 1000, func(d *packet) { d.tos = 3 })}, "1052 1052"},
		"other id":       {[]ipv4{seg(0, 1000, nil), seg(1, 1000, func(d *packet) { d.id++ })}, "1052 1052"},
		"any id with DF": {[]ipv4{seg(0, 1000, df), seg(1, 1000, df)}, "2x1000"},
		"fin":            {[]ipv4{seg(0, 1000, nil), seg(1, 1000, func(d *packet) { d.flags |= tcpFIN })}, "1052 1052"},
		"congested":      {[]ipv4{seg(0, 1000, nil), seg(1, 1000, func(d *packet) { d.flags |= tcpCWR })}, "1052 1052"},
		"acks":           {[]ipv4{seg(0, 0, nil), seg(0, 0, nil)}, "52 52"},
		"ack between":    {[]ipv4{seg(0, 1000, nil), seg(1, 0, nil), seg(1, 1000, nil)}, "1052 52 1052"},
		"bad first":      {[]ipv4{corrupt(seg(0, 1000, nil)), seg(1, 1000, nil), seg(2, 1000, nil)}, "1052 2x1000"},
		"bad second":     {[]ipv4{seg(0, 1000, nil), corrupt(seg(1, 1000, nil)), seg(2, 1000, nil)}, "1052 1052 1052"},
		"two flows": {[]ipv4{seg(0, 1000, nil), seg(0, 900, func(d *packet) { d.sport = 5 }), seg(1, 1000, nil)},
			"2x1000 952"},
		"datagrams":     {[]ipv4{dgram(0, 64, nil), dgram(1, 64, nil), dgram(2, 63, nil), dgram(3, 64, nil)}, "3x64 92"},
		"bad datagram":  {[]ipv4{dgram(0, 64, nil), corrupt(dgram(1, 64, nil))}, "92 92"},
		"no checksum":   {[]ipv4{unsummed(dgram(0, 64, nil)), unsummed(dgram(1, 64, nil))}, "92 92"},
		"fragments":     {[]ipv4{dgram(0, 64, func(d *packet) { d.fragment = flagMF }), dgram(1, 64, func(d *packet) { d.fragment = 9 })}, "92 92"},
		"other packets": {[]ipv4{packet{proto: protoICMP, payload: bytesOf(9)}.make(), packet{proto: 47}.make()}, "29 20"},
	} {
		s := &splitter{t: t}
		m := newMerger(s, true)
		for _, p := range c.in {
			m.add(slices.Clone(p))
		}
		m.flush()
		if got := strings.Join(s.shapes, " "); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		sameFlows(t, c.in, s.out)
	}
}

func unsummed(p ipv4) ipv4 { p[26], p[27] = 0, 0; return p }

type flowID struct {
	src, dst, ports uint32
	proto           byte
}

// sameFlows checks that every flow's packets are the same in the same order.
func sameFlows(t *testing.T, in, out []ipv4) {
	t.Helper()
	byFlow := func(packets []ipv4) map[flowID][]string {
		flows := map[flowID][]string{}
		for _, p := range packets {
			s, _ := dissect(p)
			key := flowID{s.src, s.dst, s.ports, s.proto}
			flows[key] = append(flows[key], string(numberless(p)))
		}
		return flows
	}
	before, after := byFlow(in), byFlow(out)
	if len(in) != len(out) || len(before) != len(after) {
		t.Fatalf("%d packets of %d flows became %d of %d", len(in), len(before), len(out), len(after))
	}
	for flow, packets := range before {
		if !slices.Equal(packets, after[flow]) {
			t.Fatalf("packets of flow %x differ", flow.ports)
		}
	}
}

func TestMergeLimits(t *testing.T) {
	for size, want := range map[int]string{1000: "64x1000 6x1000", 1400: "46x1400 24x1400"} {
		s := &splitter{t: t}
		m := newMerger(s, true)
		for i := range 70 {
			m.add(seg(i, size, func(d *packet) { d.seq = uint32(i * size) }))
		}
		m.flush()
		if got := strings.Join(s.shapes, " "); got != want {
			t.Errorf("%d: %s, want %s", size, got, want)
		}
	}
	s := &splitter{t: t}
	m := newMerger(s, true)
	for i := range 40 { // more flows than places
		m.add(seg(0, 1000, func(d *packet) { d.sport = uint16(i%20 + 1) }))
	}
	m.flush()
	if len(s.out) != 40 {
		t.Errorf("%d packets", len(s.out))
	}
}

// FuzzMerge builds packets from a script: every 6 bytes change the next
// segment of one of a few flows, or are a packet of any bytes.
func FuzzMerge(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0})
	f.Add(bytes.Repeat([]byte{4, 0, 0, 0, 0, 0}, 80))
	f.Add(bytes.Repeat([]byte{2, 0, 3, 0, 0, 1}, 30))
	f.Fuzz(func(t *testing.T, script []byte) {
		var in []ipv4
		next := map[byte]*packet{}
		for ; len(script) >= 6; script = script[6:] {
			kind, at, value := script[0], int(binary.BigEndian.Uint16(script[1:])), script[3]
			flow := kind & 7
			d := next[flow]
			if d == nil {
				d = &packet{sport: uint16(flow) + 1, flags: tcpACK, proto: protoTCP}
				if flow&4 != 0 {
					d.proto = protoUDP
				}
				next[flow] = d
			}
			d.payload = bytesOf(200 - int(script[4])%200)
			d.flags = tcpACK | script[5]&tcpPSH
			p := d.make()
			d.id++
			d.seq += uint32(len(d.payload))
			p[at%len(p)] ^= value
			if kind&0x80 != 0 { // any change, but right checksums
				if ihl := p.ihl(); ihl >= minIP && ihl < len(p) {
					setIPSum(p[:ihl])
				}
			}
			if _, total, _, ok := check(p, len(p)); ok {
				in = append(in, p[:total])
			}
		}
		s := &splitter{t: t}
		m := newMerger(s, true)
		for _, p := range in {
			m.add(slices.Clone(p))
		}
		m.flush()
		sameFlows(t, in, s.out)
	})
}

func BenchmarkMerge(b *testing.B) {
	var in []ipv4
	for i := range 45 {
		in = append(in, seg(i, 1420, func(d *packet) { d.seq = uint32(i * 1420) }))
	}
	m := newMerger(nothing{}, true)
	b.SetBytes(45 * 1420)
	b.ReportAllocs()
	for b.Loop() {
		for _, p := range in {
			m.add(p)
		}
		m.flush()
	}
}

type nothing struct{}

func (nothing) one(ipv4)       {}
func (nothing) merged(f *flow) { f.super() }
