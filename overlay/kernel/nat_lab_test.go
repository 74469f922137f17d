//go:build lab

package kernel

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"
)

// wayOut is a host with a container behind a bridge that is its way out, and
// with another bridge that belongs to somebody else.
func wayOut() State {
	return State{
		Sysctls: []Sysctl{{"ipv4/ip_forward", "1"}, {"ipv4/conf/fl-blue/route_localnet", "1"}},
		Links:   []Link{{Name: "fl-blue", MAC: MAC{2, 0x42, 10, 5, 7, 1}, MTU: 1500}},
		Veths:   []Veth{{Name: "flv1", Peer: "flp1", Master: "fl-blue", MAC: MAC{2, 0x42, 10, 5, 7, 2}, MTU: 1500, Hairpin: true, Create: true}},
		Addrs:   []Addr{{"fl-blue", netip.MustParsePrefix("10.5.7.1/24")}},
		Forwards: []Forward{
			{In: "fl-blue", Out: "fl-blue"},
		},
		Guards: []string{"fl-blue"},
		Egresses: []Egress{{Bridge: "fl-blue", Src: netip.MustParsePrefix("10.5.7.0/24"), Masq: true, Uplink: "eth0"},
			{Bridge: "fl-blue", Src: netip.MustParsePrefix("fd00:5:0:7::/64"), Masq: true, Uplink: "eth0"}},
		Inside: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd00:5::/48")},
		Publishes: []Publish{
			{"fl-blue", TCP, netip.MustParseAddrPort("0.0.0.0:8080"), netip.MustParseAddrPort("10.5.7.2:80")},
			{"fl-blue", SCTP, netip.MustParseAddrPort("10.0.0.1:8080"), netip.MustParseAddrPort("10.5.7.2:80")},
			{"fl-blue", UDP, netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("10.5.7.2:53")},
			{"fl-blue", TCP, netip.MustParseAddrPort("[::]:8080"), netip.MustParseAddrPort("[fd00:5:0:7::2]:80")},
			{"fl-blue", UDP, netip.MustParseAddrPort("[fd00:c0::1]:53"), netip.MustParseAddrPort("[fd00:5:0:7::2]:53")},
		},
	}
}

// TestTranslationHeals: what translates addresses is read back as it was
// written, changed when something else is wanted, and put back when others
// changed it.
func TestTranslationHeals(t *testing.T) {
	h := newHost(t)
	want := wayOut()
	woken := h.watch()
	h.apply(want)
	h.expect(want)
	h.quiet()
	h.k.Doubt()
	if again := h.apply(want); again.Changed != 0 || len(again.Repaired) != 0 {
		t.Errorf("read anew: changed %d, repaired %v\n%s", again.Changed, again.Repaired, h.sh("nft list table inet docker-flannel"))
	}
	for _, command := range []string{
		"nft flush chain inet docker-flannel prerouting",
		"nft flush chain inet docker-flannel output",
		"nft flush chain inet docker-flannel postrouting",
		"nft flush chain inet docker-flannel raw",
		"nft delete table inet docker-flannel",
		"nft 'add chain inet docker-flannel raw { policy drop; }'",
		"nft insert rule inet docker-flannel postrouting masquerade",
	} {
		h.notice(woken, command)
		if got := h.apply(want); !maps.Equal(got.Repaired, map[string]int{"nft": 1}) {
			t.Errorf("%s: repaired %v", command, got.Repaired)
		}
		h.expect(want)
		h.quiet()
	}
	h.sh("ip link set flv1 type bridge_slave hairpin off")
	h.k.Doubt()
	if got := h.apply(want); !maps.Equal(got.Repaired, map[string]int{"veth": 1}) {
		t.Errorf("hairpin off: repaired %v", got.Repaired)
	}
	h.expect(want)
	want.Veths[0].Hairpin = false
	want.Publishes = want.Publishes[:1]
	if got := h.apply(want); got.Changed != 2 || len(got.Repaired) != 0 {
		t.Errorf("ports withdrawn: %+v", got)
	}
	h.expect(want)
	want.Publishes, want.Egresses = nil, nil
	h.apply(want)
	h.expect(want)
}

// TestWayOut sends packets through the rules.
func TestWayOut(t *testing.T) {
	h := newHost(t)
	h.sh("iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -I FORWARD -j DOCKER-USER")
	want := wayOut()
	h.apply(want)
	outside, container, stranger := h.namespace(), h.namespace(), h.namespace()
	in := func(pid int, command string) string {
		return h.sh(fmt.Sprintf("nsenter --net=/proc/%d/ns/net sh -c '%s'", pid, command))
	}
	h.sh(fmt.Sprintf(`ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up
		ip link add vd0 type veth peer name vd1 netns %d; ip link set vd0 master docker0 up
		ip link set wire0 netns %d; ip link set flp1 netns %d; ip route replace default via 10.0.0.2`, stranger, outside, container))
	in(outside, `ip link set wire0 up; ip addr add 10.0.0.2/24 dev wire0; ip link set lo up
		ip addr add 198.51.100.1/32 dev lo; ip addr add 10.5.99.1/32 dev lo; ip route add 10.5.7.0/24 via 10.0.0.1`)
	in(stranger, `ip link set vd1 up; ip addr add 172.17.0.2/16 dev vd1; ip route add default via 172.17.0.1`)
	in(container, `ip link set lo up; ip link set flp1 up; ip addr add 10.5.7.2/24 dev flp1; ip route add default via 10.5.7.1`)
	ping := func(pid int, to string) bool {
		return in(pid, "ping -n -c1 -W1 "+to+" >/dev/null && echo passes || true") == "passes\n"
	}
	answers := func(pid int, to string) bool { // the first may come before the neighbours are known
		for range 10 {
			if ping(pid, to) {
				return true
			}
		}
		return false
	}
	for _, c := range []struct {
		name   string
		from   int
		to     string
		passes bool
	}{
		{"out", container, "198.51.100.1", true},
		{"out to the neighbour", container, "10.0.0.2", true},
		{"the network's own addresses are not outside", container, "10.5.99.1", false},
		{"another bridge", container, "172.17.0.2", false},
		{"in without having been asked", outside, "10.5.7.2", false},
		{"from another bridge", stranger, "10.5.7.2", false},
	} {
		try := ping
		if c.passes {
			try = answers
		}
		if got := try(c.from, c.to); got != c.passes {
			t.Errorf("%s: %s passes: %t", c.name, c.to, got)
		}
	}
	// The control: without our table what was dropped passes.
	h.sh("nft delete table inet docker-flannel")
	for _, to := range []string{"10.5.99.1", "172.17.0.2"} {
		if !answers(container, to) {
			t.Errorf("control: %s does not answer", to)
		}
	}
	if !answers(outside, "10.5.7.2") || !answers(stranger, "10.5.7.2") {
		t.Error("control: the container does not answer")
	}
}
