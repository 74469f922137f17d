//go:build lab

package kernel

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestDoor lets in what peers send, and counts what others do. Packets of other
// networks on the same port are not the door's.
func TestDoor(t *testing.T) {
	h := newHost(t)
	const port = 8472
	want := State{
		Doors: []Door{{port, 1}, {port, 2}, {8285, 0}},
		Admits: []Admit{
			{Door{port, 1}, netip.MustParseAddr("127.0.0.2")}, {Door{port, 1}, netip.IPv6Loopback()},
			{Door{port, 2}, netip.MustParseAddr("127.0.0.2")}, {Door{port, 2}, netip.MustParseAddr("127.0.0.3")},
			{Door{8285, 0}, netip.MustParseAddr("127.0.0.3")},
		},
	}
	ears := map[int]net.PacketConn{}
	for _, number := range []int{port, 8285} {
		c, err := net.ListenUDP("udp", &net.UDPAddr{Port: number})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ears[number] = c
	}
	// comes tells whether a VXLAN header with that identifier arrives within a time.
	comes := func(from string, number, vni int, wait time.Duration) bool {
		t.Helper()
		to := net.IPv4(127, 0, 0, 1)
		if ip := net.ParseIP(from); ip.To4() == nil {
			to = net.IPv6loopback
		}
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: to, Port: number})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte{8, 0, 0, 0, 0, 0, byte(vni), 0}); err != nil {
			t.Fatal(err)
		}
		_ = ears[number].SetReadDeadline(time.Now().Add(wait))
		_, _, err = ears[number].ReadFrom(make([]byte, 100))
		return err == nil
	}
	wait := map[bool]time.Duration{true: patience, false: 50 * time.Millisecond} // what must not come is awaited only briefly
	for _, open := range []bool{true, false} {                                   // the probe sees everything while there are no doors
		if !open {
			h.apply(want)
			h.expect(want)
		}
		for _, c := range []struct {
			from      string
			port, vni int
			admitted  bool
		}{
			{"127.0.0.2", port, 1, true}, {"127.0.0.3", port, 1, false}, {"::1", port, 1, true},
			{"127.0.0.2", port, 2, true}, {"127.0.0.3", port, 2, true}, {"127.0.0.4", port, 2, false}, {"::1", port, 2, false},
			{"127.0.0.4", port, 3, true}, {"::1", port, 3, true},
			{"127.0.0.3", 8285, 1, true}, {"127.0.0.2", 8285, 1, false}, {"::1", 8285, 1, false},
		} {
			if got := comes(c.from, c.port, c.vni, wait[open || c.admitted]); got != (open || c.admitted) {
				t.Errorf("doors made %t: from %s to %d with identifier %d: comes %t", !open, c.from, c.port, c.vni, got)
			}
		}
	}
	counted := map[int]uint64{port: 3, 8285: 2}
	if got, err := h.k.Foreign(); err != nil || !maps.Equal(got, counted) {
		t.Errorf("counted %v, want %v: %v", got, counted, err)
	}

	// Thousands of peers and another table's rules leave the counts alone.
	more := want
	for i := range 3000 {
		more.Admits = append(more.Admits, Admit{want.Doors[0], netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})})
	}
	more.Admits = append(more.Admits, Admit{want.Doors[0], netip.MustParseAddr("127.0.0.3")})
	more.Guards = []string{"fl-blue"}
	h.apply(more)
	h.expect(more)
	if !comes("127.0.0.3", port, 1, wait[true]) {
		t.Error("one that was admitted does not come")
	}
	h.apply(want)
	h.expect(want)
	if comes("127.0.0.3", port, 1, wait[false]) {
		t.Error("one that is no longer admitted comes")
	}
	counted[port]++
	if got, err := h.k.Foreign(); err != nil || !maps.Equal(got, counted) {
		t.Errorf("counted %v, want %v: %v", got, counted, err)
	}

	h.apply(State{Doors: want.Doors[:1], Admits: want.Admits[:2]})
	h.expect(State{Doors: want.Doors[:1], Admits: want.Admits[:2]})
	h.apply(State{})
	if tables := h.sh("nft list tables"); tables != "" {
		t.Errorf("left behind: %s", tables)
	}
	if got, err := h.k.Foreign(); err != nil || len(got) != 0 {
		t.Errorf("without doors: %v, %v", got, err)
	}
}

// TestOnePeerIsOneElement: what a change of one peer costs does not grow with
// their number.
func TestOnePeerIsOneElement(t *testing.T) {
	h := newHost(t)
	want := example(2000)
	h.apply(want)
	next := example(2001)
	if got := h.apply(next); got.Changed != 4 { // neigh, fdb, route and admit
		t.Errorf("changed %d", got.Changed)
	}
	h.expect(next)
}

// TestDoorWaits stays open while the peers cannot be admitted.
func TestDoorWaits(t *testing.T) {
	h := newHost(t)
	h.sh(`nft add table inet docker-flannel-doors
		nft 'add set inet docker-flannel-doors door_8472_1_ip { type ipv6_addr; }'`)
	want := State{Doors: []Door{{8472, 1}}, Admits: []Admit{
		{Door{8472, 1}, netip.MustParseAddr("10.0.0.8")}, {Door{8472, 1}, netip.MustParseAddr("10.0.0.9")},
	}}
	got := h.k.Apply(context.Background(), want)
	if len(got.Failed) != 1 || got.Failed[0].Object != "admit udp 8472 vni 1 10.0.0.8" || got.Changed != 0 {
		t.Errorf("%+v", got)
	}
	h.sh("nft delete table inet docker-flannel-doors")
	h.apply(want)
	h.expect(want)
}
