package udp

import (
	"bytes"
	"testing"
)

// reassemble puts fragments together that arrive in order, and checks each.
func reassemble(t *testing.T, frags []ipv4, mtu int) (payload []byte) {
	t.Helper()
	for i, f := range frags {
		ihl, total, _, ok := check(f, len(f))
		if !ok || total != len(f) || total > mtu || fold(sum(f[:ihl])) != 0xffff {
			t.Fatalf("fragment %d of %d bytes is bad", i, len(f))
		}
		if at := int(f.fragment()&offsetMax)*8 - int(frags[0].fragment()&offsetMax)*8; at != len(payload) {
			t.Fatalf("fragment %d starts at %d, want %d", i, at, len(payload))
		}
		payload = append(payload, f[ihl:]...)
	}
	return payload
}

func fragmentsOf(p ipv4, mtu int) (frags []ipv4) {
	for from := 0; ; {
		b := make([]byte, len(p))
		n, next := fragment(b, p, mtu, from)
		frags = append(frags, b[:n])
		if next == 0 {
			return frags
		}
		from = next
	}
}

func TestFragment(t *testing.T) {
	record := []byte{7, 7, 4, 0, 0, 0, 0, 0}     // record route: not copied
	source := []byte{0x83, 7, 4, 10, 0, 0, 1, 1} // loose source route: copied
	both := append(append([]byte{}, record...), source...)
	for name, c := range map[string]struct {
		p    packet
		mtu  int
		want int
	}{
		"fits":           {packet{proto: protoUDP, payload: bytesOf(1000)}, 1472, 1},
		"in two":         {packet{proto: protoUDP, payload: bytesOf(1472)}, 1472, 2},
		"odd MTU":        {packet{proto: protoUDP, payload: bytesOf(1700)}, 577, 4},
		"smallest":       {packet{proto: protoUDP, payload: bytesOf(400)}, 68, 9},
		"middle of more": {packet{proto: protoUDP, payload: bytesOf(1800), fragment: flagMF | 185}, 1000, 2},
		"last of more":   {packet{proto: protoUDP, payload: bytesOf(1801), fragment: 185}, 1000, 2},
		"options":        {packet{proto: protoUDP, payload: bytesOf(1500), options: both}, 600, 3},
	} {
		p := c.p.make()
		frags := fragmentsOf(p, c.mtu)
		if len(frags) != c.want {
			t.Errorf("%s: %d fragments, want %d", name, len(frags), c.want)
		}
		if !bytes.Equal(reassemble(t, frags, c.mtu), p[p.ihl():]) {
			t.Errorf("%s: payload differs", name)
		}
		last := frags[len(frags)-1]
		if last.fragment()&flagMF != p.fragment()&flagMF {
			t.Errorf("%s: last fragment's flags %04x", name, last.fragment())
		}
		if name == "options" && (!bytes.Equal(frags[0][20:36], both) || last[20] != 1 || last[28] != 0x83) {
			t.Errorf("options % x", last[20:36])
		}
	}
}

func FuzzFragment(f *testing.F) {
	f.Add([]byte(packet{proto: protoUDP, payload: bytesOf(1472)}.make()), 600)
	f.Add([]byte(packet{options: []byte{0x83, 0, 0, 9}, payload: bytesOf(100)}.make()), 68)
	f.Fuzz(func(t *testing.T, b []byte, mtu int) {
		_, total, _, ok := check(b, len(b))
		if !ok || mtu < minMTU || total <= mtu {
			return
		}
		p := ipv4(b[:total])
		if int(p.fragment()&offsetMax)*8+total > maxPacket {
			return // longer than any packet: the receiver's to refuse
		}
		if got := reassemble(t, fragmentsOf(p, mtu), mtu); !bytes.Equal(got, p[p.ihl():]) {
			t.Error("payload differs")
		}
	})
}
