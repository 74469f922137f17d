package udp

import (
	"encoding/binary"
	"testing"
)

// superOf is a TCP super-packet as the kernel hands it over.
func superOf(size, payload int, flags byte, options []byte) (ipv4, vnet) {
	p := packet{flags: flags, seq: 1<<32 - 100, id: 65535, options: options, payload: bytesOf(payload)}.make()
	return p, vnet{needsSum: true, gso: vnetTCP4, headers: 40, size: size, sumStart: p.ihl(), sumOffset: 16}
}

func TestSegment(t *testing.T) {
	for _, c := range []struct {
		size, payload, want int
		options             []byte
	}{
		{1432, 1432, 1, nil}, {1432, 1433, 2, nil}, {1432, 64000, 45, nil}, {100, 1000, 10, make([]byte, 8)}, {1, 3, 3, nil},
	} {
		p, v := superOf(c.size, c.payload, tcpACK|tcpPSH|tcpFIN|tcpCWR, c.options)
		out := segmentsOf(t, p, v)
		if len(out) != c.want {
			t.Errorf("%d of %d: %d segments, want %d", c.payload, c.size, len(out), c.want)
		}
		var payload []byte
		for i, s := range out {
			seg, ok := dissect(s)
			if !ok || !seg.intact() {
				t.Fatalf("segment %d of %d is bad", i, len(out))
			}
			if seg.seq != uint32(1<<32-100+i*c.size) || s.id() != uint16(65535+i) {
				t.Errorf("segment %d has sequence %d, id %d", i, seg.seq, s.id())
			}
			want := byte(tcpACK)
			if i == 0 {
				want |= tcpCWR
			}
			if i == len(out)-1 {
				want |= tcpPSH | tcpFIN
			}
			if flags := s[s.ihl()+13]; flags != want {
				t.Errorf("segment %d has flags %02x, want %02x", i, flags, want)
			}
			payload = append(payload, s[seg.headers:]...)
		}
		if string(payload) != string(bytesOf(c.payload)) {
			t.Error("payload differs")
		}
	}
}

func TestSegmentDatagrams(t *testing.T) {
	p := packet{proto: protoUDP, payload: bytesOf(1000)}.make()
	out := segmentsOf(t, p, vnet{gso: vnetUDP, size: 300})
	for i, s := range out {
		if seg, ok := dissect(s); !ok || !seg.intact() || int(binary.BigEndian.Uint16(s[24:])) != len(s)-minIP {
			t.Errorf("datagram %d is bad", i)
		}
	}
	if len(out) != 4 || len(out[3]) != 128 {
		t.Errorf("%d datagrams", len(out))
	}
}

func TestSegmentAges(t *testing.T) {
	p, v := superOf(1000, 3000, tcpACK, nil)
	var s super
	if !s.parse(p, len(p), v) {
		t.Fatal("does not parse")
	}
	s.age()
	b := make([]byte, s.headers)
	s.write(b, 1, p[s.headers+1000:s.headers+2000])
	if b[8] != 63 || fold(sum(b[:minIP])) != 0xffff {
		t.Errorf("TTL %d, header % x", b[8], b[:minIP])
	}
}

// FuzzPacket shows any bytes to everything that reads packets.
func FuzzPacket(f *testing.F) {
	p, _ := superOf(1000, 3000, tcpACK, nil)
	f.Add([]byte(p), byte(1), 1000, 20, 16)
	f.Add([]byte(packet{proto: protoUDP, payload: bytesOf(30)}.make()), byte(5), 7, 20, 6)
	f.Add([]byte{0x4f, 0, 0, 60}, byte(1), 1, 0, 0)
	f.Fuzz(func(_ *testing.T, b []byte, gso byte, size, start, offset int) {
		if len(b) > maxPacket {
			return
		}
		_, total, _, ok := check(b, len(b))
		if !ok {
			return
		}
		v := vnet{gso: gso, size: int(uint16(size)), sumStart: int(uint16(start)), sumOffset: int(uint16(offset))}
		var s super
		for _, head := range [][]byte{b[:total], b[:min(total, maxHeader)], b[:b[0]&15*4]} {
			if s.parse(head, total, v) && s.segments() <= 1000 {
				s.age()
				for i := range s.segments() {
					from, to := s.payloadOf(i)
					s.write(make([]byte, s.headers), i, b[s.headers+from:s.headers+to])
				}
			}
		}
		dst := make([]byte, icmpMax)
		(fault{kind: icmpTimeExceeded}).answer(dst, b[:total], 1)
		if seg, ok := dissect(b[:total]); ok {
			seg.intact()
		}
		ipv4(b[:total]).finish(v.sumStart, v.sumOffset)
	})
}

func FuzzVnet(f *testing.F) {
	f.Add(make([]byte, vnetSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < vnetSize {
			return
		}
		v := readVnet((*[vnetSize]byte)(b))
		var again [vnetSize]byte
		v.write(&again)
		if readVnet(&again) != v {
			t.Errorf("% x became % x", b[:vnetSize], again)
		}
	})
}

func BenchmarkSegment(b *testing.B) {
	p, v := superOf(1432, 64000, tcpACK, nil)
	var s super
	out := make([]byte, maxHeader)
	b.SetBytes(64000)
	b.ReportAllocs()
	for b.Loop() {
		s.parse(p, len(p), v)
		s.age()
		for i := range s.segments() {
			from, to := s.payloadOf(i)
			s.write(out[:s.headers], i, p[s.headers+from:s.headers+to])
		}
	}
}
