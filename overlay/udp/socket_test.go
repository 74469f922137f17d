package udp

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loopback is a socket of 127.0.0.1 and itself as a peer.
func loopback(t testing.TB) (*socket, *peer, *bell) {
	t.Helper()
	s, err := openSocket(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBell()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.close() != nil || b.close() != nil {
			t.Error("close")
		}
	})
	bound, err := unix.Getsockname(s.fd)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(bound.(*unix.SockaddrInet4).Port))
	table := NewTable(netip.MustParsePrefix("10.5.1.0/24"), []Peer{{Subnet: netip.MustParsePrefix("10.5.2.0/24"), Addr: to}})
	return s, table.find(ip("10.5.2.1")), b
}

// receiveAll returns the datagrams that wait, taken apart.
func receiveAll(t testing.TB, s *socket, count int) (got [][]byte) {
	t.Helper()
	fd := s.fd
	b, oob := make([]byte, 1<<16), make([]byte, 64)
	for end := time.Now().Add(30 * time.Second); len(got) < count && time.Now().Before(end); {
		n, on, _, _, err := unix.Recvmsg(fd, b, oob, 0)
		if err != nil {
			continue
		}
		size := n
		if items, err := unix.ParseSocketControlMessage(oob[:on]); err == nil && len(items) > 0 {
			size = int(items[0].Data[0]) | int(items[0].Data[1])<<8
		}
		for at := 0; at < n; at += size {
			got = append(got, bytes.Clone(b[at:min(at+size, n)]))
		}
	}
	return got
}

func TestOutbox(t *testing.T) {
	type send func(o *outbox, p *peer, b []byte)
	one := func(sizes ...int) send {
		return func(o *outbox, p *peer, b []byte) {
			for _, size := range sizes {
				o.add(p, b[:size], nil)
				b = b[size:]
			}
		}
	}
	for name, c := range map[string]struct {
		send     send
		messages int
		want     []int
	}{
		"equal sizes":  {one(100, 100, 100), 1, []int{100, 100, 100}},
		"short last":   {one(100, 100, 10, 100), 2, []int{100, 100, 10, 100}},
		"growing":      {one(10, 20, 30), 3, []int{10, 20, 30}},
		"run":          {func(o *outbox, p *peer, b []byte) { o.addRun(p, b[:3500], 1000, 4) }, 1, []int{1000, 1000, 1000, 500}},
		"two messages": {func(o *outbox, p *peer, b []byte) { o.addRun(p, b[:66000], 1000, 66) }, 2, sizes(66, 1000)},
		"in pieces": {func(o *outbox, p *peer, b []byte) {
			o.add(p, b[:10], b[500:600])
			o.add(p, b[20:30], b[700:790])
		}, 1, []int{110, 100}},
	} {
		for _, segment := range []bool{true, false} {
			s, p, bell := loopback(t)
			if segment && !s.segment.Load() {
				continue
			}
			s.segment.Store(segment)
			var tal tally
			o := newOutbox(s, bell, &tal)
			c.send(o, p, bytesOf(70000))
			if segment && o.n != c.messages {
				t.Errorf("%s: %d messages, want %d", name, o.n, c.messages)
			}
			if err := o.flush(); err != nil {
				t.Fatal(err)
			}
			got := receiveAll(t, s, len(c.want))
			for i := range c.want {
				if i >= len(got) || len(got[i]) != c.want[i] {
					t.Fatalf("%s, segment %v: datagram %d of %d differs", name, segment, i, len(got))
				}
			}
			if tal.now.packets != uint64(len(c.want)) || tal.now.dropped {
				t.Errorf("%s: counted %+v", name, tal.now)
			}
		}
	}
}

func sizes(n, size int) (s []int) {
	for range n {
		s = append(s, size)
	}
	return s
}

// TestApart sends the datagrams of a run one by one, as when the underlay
// refuses runs.
func TestApart(t *testing.T) {
	s, p, bell := loopback(t)
	var tal tally
	o := newOutbox(s, bell, &tal)
	b := bytesOf(5000)
	o.addRun(p, b[:2500], 1000, 3)
	o.add(p, b[3000:3020], b[4000:4100])
	o.add(p, b[3020:3030], b[4200:4300])
	for i := range o.n {
		if _, err := o.refused(i, unix.EMSGSIZE); err != nil {
			t.Fatal(err)
		}
	}
	want := [][]byte{b[:1000], b[1000:2000], b[2000:2500], append(bytes.Clone(b[3000:3020]), b[4000:4100]...), append(bytes.Clone(b[3020:3030]), b[4200:4300]...)}
	got := receiveAll(t, s, len(want))
	for i := range want {
		if i >= len(got) || !bytes.Equal(got[i], want[i]) {
			t.Fatalf("datagram %d of %d differs", i, len(got))
		}
	}
}

// TestNoAllocs holds the promise that a packet costs no allocation.
func TestNoAllocs(t *testing.T) {
	s, p, bell := loopback(t)
	var tal tally
	o, m, b := newOutbox(s, bell, &tal), newMerger(nothing{}, true), bytesOf(5000)
	whole, v := superOf(1000, 8000, tcpACK, nil)
	var in []ipv4
	for i := range 10 {
		in = append(in, seg(i, 1000, nil), dgram(i, 64, nil))
	}
	var sup super
	var c cache
	two, three := ip("10.5.3.3"), ip("10.7.3.3")
	table, answer := testTable(), make([]byte, icmpMax)
	for name, f := range map[string]func(){
		"outbox": func() {
			for range 10 {
				o.add(p, b[:100], b[2000:2100])
			}
			o.addRun(p, b, 1000, 5)
			if o.flush() != nil {
				t.Error("flush")
			}
			tal.share()
		},
		"merge": func() {
			for _, p := range in {
				m.add(p)
			}
			m.flush()
		},
		"segment": func() {
			sup.parse(whole, len(whole), v)
			sup.write(answer, 3, whole[100:1100])
		},
		"table": func() { c.find(table, two); c.find(table, three) },
		"ICMP":  func() { fault{kind: icmpTimeExceeded}.answer(answer, in[0], 7) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
