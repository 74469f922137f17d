package kernel

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestChangedStreams(t *testing.T) {
	with := func(p ...Publish) string { return tableOf(State{Publishes: p}).text }
	dns := Publish{"fl-a", UDP, netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("10.5.7.2:53")}
	log := Publish{"fl-a", UDP, netip.MustParseAddrPort("0.0.0.0:514"), netip.MustParseAddrPort("10.5.7.2:514")}
	web := Publish{"fl-a", TCP, netip.MustParseAddrPort("0.0.0.0:80"), netip.MustParseAddrPort("10.5.7.2:80")}
	six := Publish{"fl-a", UDP, netip.MustParseAddrPort("[fd00::1]:53"), netip.MustParseAddrPort("[fd00:5:0:7::2]:53")}
	sixes := Publish{"fl-a", UDP, netip.MustParseAddrPort("[::]:515"), netip.MustParseAddrPort("[fd00:5:0:7::2]:515")}
	moved := log
	moved.To = netip.MustParseAddrPort("10.5.7.3:514")
	for _, c := range []struct {
		name          string
		before, after string
		want          []netip.AddrPort
	}{
		{"nothing", with(dns, web), with(dns, web), nil},
		{"tcp", "", with(web), nil},
		{"published", with(web), with(web, dns), []netip.AddrPort{dns.Host}},
		{"withdrawn", with(dns, log), with(dns), []netip.AddrPort{log.Host}},
		{"another container", with(dns, log), with(dns, moved), []netip.AddrPort{log.Host}},
	} {
		got := slices.SortedFunc(maps.Keys(changedStreams(c.before, c.after)), netip.AddrPort.Compare)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	all := changedStreams("", with(dns, log, six, sixes))
	if got := all.families(); len(got) != 2 || len(changedStreams("", with(dns)).families()) != 1 {
		t.Errorf("families %v", got)
	}
	for _, c := range []struct {
		ip    string
		port  uint16
		proto uint8
		want  bool
	}{
		{"192.0.2.1", 53, 17, true}, {"192.0.2.2", 53, 17, false}, {"192.0.2.9", 514, 17, true},
		{"192.0.2.1", 53, 6, false}, {"192.0.2.1", 80, 17, false}, {"fd00::1", 514, 17, false},
		{"fd00::1", 53, 17, true}, {"fd00::2", 53, 17, false}, {"fd00::9", 515, 17, true}, {"192.0.2.1", 515, 17, false},
	} {
		flow := &netlink.ConntrackFlow{Forward: netlink.IPTuple{DstIP: net.ParseIP(c.ip), DstPort: c.port, Protocol: c.proto}}
		if got := all.MatchConntrackFlow(flow); got != c.want {
			t.Errorf("%+v: matches %t", c, got)
		}
	}
}
