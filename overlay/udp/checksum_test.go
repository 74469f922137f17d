package udp

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// plainSum is RFC 1071 to the letter.
func plainSum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		s += w
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func TestSum(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 2000)
	for range 2000 {
		part := b[:r.IntN(len(b))]
		for i := range part {
			part[i] = byte(r.Uint32())
			if r.IntN(3) > 0 {
				part[i] = 0xff
			}
		}
		if got, want := fold(sum(part)), plainSum(part); got != want {
			t.Fatalf("sum of %d bytes is %04x, want %04x", len(part), got, want)
		}
	}
	for i := range b {
		b[i] = 0xff
	}
	for n := range b {
		if got, want := fold(sum(b[:n])), plainSum(b[:n]); got != want {
			t.Fatalf("sum of %d bytes ff is %04x, want %04x", n, got, want)
		}
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := fold(sum(b)), plainSum(b); got != want {
			t.Errorf("sum %04x, want %04x", got, want)
		}
	})
}

func TestAge(t *testing.T) {
	p := packet{}.make()
	for field := range 1 << 16 {
		binary.BigEndian.PutUint16(p[4:], uint16(field))
		setIPSum(p[:minIP])
		p[8] = 64
		setIPSum(p[:minIP])
		p.age()
		got := binary.BigEndian.Uint16(p[10:])
		setIPSum(p[:minIP])
		if want := binary.BigEndian.Uint16(p[10:]); got != want || p.ttl() != 63 {
			t.Fatalf("id %04x: checksum %04x, want %04x, TTL %d", field, got, want, p.ttl())
		}
	}
}

func BenchmarkSum(b *testing.B) {
	p := make([]byte, 64<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		sum(p)
	}
}
