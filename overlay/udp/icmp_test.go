package udp

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

func TestAnswer(t *testing.T) {
	p := packet{proto: protoUDP, payload: bytesOf(1400)}.make()
	b := make([]byte, icmpMax)
	n := fault{icmpUnreachable, icmpFragNeeded, 1472}.answer(b, p, ip("10.5.1.0"))
	if n != icmpMax {
		t.Fatalf("length %d", n)
	}
	got := ipv4(b[:n])
	if got.src() != ip("10.5.1.0") || got.dst() != p.src() || got.proto() != protoICMP || got.ttl() != 64 {
		t.Errorf("header % x", b[:minIP])
	}
	if fold(sum(b[:minIP])) != 0xffff || fold(sum(b[minIP:n])) != 0xffff {
		t.Error("checksum")
	}
	if b[20] != 3 || b[21] != 4 || binary.BigEndian.Uint16(b[26:]) != 1472 || !bytes.Equal(b[28:n], p[:n-28]) {
		t.Errorf("ICMP % x", b[20:60])
	}
	if n := (fault{kind: icmpTimeExceeded}).answer(b, packet{payload: bytesOf(1)}.make(), 1); n != 28+41 || b[20] != 11 {
		t.Errorf("length %d, type %d", n, b[20])
	}
}

func TestAnswerable(t *testing.T) {
	for name, c := range map[string]struct {
		p    packet
		want bool
	}{
		"TCP":               {packet{}, true},
		"first fragment":    {packet{fragment: flagMF}, true},
		"later fragment":    {packet{fragment: 3}, false},
		"echo":              {packet{proto: protoICMP, payload: []byte{8, 0, 0, 0}}, true},
		"ICMP error":        {packet{proto: protoICMP, payload: []byte{3, 0, 0, 0}}, false},
		"redirect":          {packet{proto: protoICMP, payload: []byte{5, 0, 0, 0}}, false},
		"ICMP without type": {packet{proto: protoICMP}, false},
		"to many":           {packet{dst: "224.0.0.1"}, false},
		"from many":         {packet{src: "239.0.0.1"}, false},
		"broadcast":         {packet{dst: "255.255.255.255"}, false},
		"no sender":         {packet{src: "0.0.0.0"}, false},
		"loopback":          {packet{src: "127.0.0.1"}, false},
	} {
		if got := answerable(c.p.make()); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestLimiter(t *testing.T) {
	var l limiter
	now := time.Unix(1, 0)
	count := func() (n int) {
		for range 1000 {
			if l.allow(now) {
				n++
			}
		}
		return n
	}
	if n := count(); n != icmpBurst {
		t.Errorf("%d at once", n)
	}
	now = now.Add(10 * time.Millisecond)
	if n := count(); n != 10 {
		t.Errorf("%d after 10 ms", n)
	}
	now = now.Add(time.Hour)
	if n := count(); n != icmpBurst {
		t.Errorf("%d after an hour", n)
	}
}
