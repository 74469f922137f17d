package udp

import (
	"fmt"
	"net/netip"
	"testing"
)

func ip(s string) uint32 { return toSubnet(netip.MustParsePrefix(s + "/32")).base }

func testTable() *Table {
	return NewTable(netip.MustParsePrefix("10.5.1.0/24"), []Peer{
		{Subnet: netip.MustParsePrefix("10.5.2.0/24"), Addr: netip.MustParseAddrPort("192.0.2.2:8285")},
		{Subnet: netip.MustParsePrefix("10.5.3.0/24"), Addr: netip.MustParseAddrPort("192.0.2.3:8285")},
		{Subnet: netip.MustParsePrefix("10.6.0.0/15"), Addr: netip.MustParseAddrPort("192.0.2.4:8286")},
		{Subnet: netip.MustParsePrefix("10.6.9.0/24"), Addr: netip.MustParseAddrPort("192.0.2.5:8285")},
		{Subnet: netip.MustParsePrefix("fd00::/64"), Addr: netip.MustParseAddrPort("192.0.2.6:8285")},
		{Subnet: netip.MustParsePrefix("10.9.0.0/24"), Addr: netip.MustParseAddrPort("[fd00::1]:8285")},
		{},
	})
}

func TestTable(t *testing.T) {
	table := testTable()
	for dst, want := range map[string]string{
		"10.5.2.0": "192.0.2.2:8285", "10.5.2.255": "192.0.2.2:8285", "10.5.3.1": "192.0.2.3:8285",
		"10.6.0.1": "192.0.2.4:8286", "10.7.255.255": "192.0.2.4:8286", "10.6.9.9": "192.0.2.5:8285",
		"10.5.1.1": "", "10.5.4.1": "", "10.8.0.0": "", "0.0.0.0": "", "255.255.255.255": "", "10.9.0.1": "",
	} {
		got := ""
		if p := table.find(ip(dst)); p != nil {
			name := p.name
			port := portBytes(&name)
			got = fmt.Sprintf("%s:%d", netip.AddrFrom4(p.name.Addr), int(port[0])<<8|int(port[1]))
		}
		if got != want {
			t.Errorf("%s is at %q, want %q", dst, got, want)
		}
	}
	if !table.self.contains(ip("10.5.1.255")) || table.self.contains(ip("10.5.2.0")) || table.address() != ip("10.5.1.0") {
		t.Error("own subnet is wrong")
	}
	if none := NewTable(netip.Prefix{}, nil); none.self.contains(0) || none.find(0) != nil {
		t.Error("the empty table holds something")
	}
}

func TestCache(t *testing.T) {
	one, two := testTable(), NewTable(netip.MustParsePrefix("10.5.1.0/24"), nil)
	var c cache
	for range 2 {
		if p := c.find(one, ip("10.5.2.1")); p == nil || p.name.Addr != [4]byte{192, 0, 2, 2} {
			t.Fatal("not found")
		}
	}
	if c.find(two, ip("10.5.2.1")) != nil {
		t.Error("a peer of the table before is found")
	}
}

func BenchmarkFind(b *testing.B) {
	var peers []Peer
	for i := range 5000 {
		peers = append(peers, Peer{
			Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
			Addr:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}), DefaultPort),
		})
	}
	t, i := NewTable(netip.MustParsePrefix("10.99.1.0/24"), peers), uint32(0)
	b.ReportAllocs()
	for b.Loop() {
		i += 7919
		t.find(10<<24 | i%5000<<8)
	}
}
