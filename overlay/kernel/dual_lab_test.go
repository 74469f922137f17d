//go:build lab

package kernel

import (
	"net/netip"
	"os"
	"strings"
	"testing"
)

// exampleDual is example with an IPv6 half.
func exampleDual() State {
	s := example(2)
	s.Sysctls = []Sysctl{
		{"ipv4/ip_forward", "1"}, {IPv6Forwarding, "1"},
		{"ipv6/conf/fl-blue/disable_ipv6", "0"}, {"ipv6/conf/fl-blue/accept_dad", "0"}, {"ipv6/conf/fl-blue/accept_ra", "0"},
		{"ipv6/conf/flannel.1/disable_ipv6", "1"},
		{"ipv6/conf/flannel-v6.1/disable_ipv6", "0"}, {"ipv6/conf/flannel-v6.1/accept_dad", "0"}, {"ipv6/conf/flannel-v6.1/accept_ra", "0"},
		{"ipv6/conf/flv1/disable_ipv6", "1"},
	}
	s.Links = append(s.Links, Link{
		Name: "flannel-v6.1", MAC: MAC{2, 0x42, 10, 5, 7, 6}, MTU: 1430,
		VXLAN: VXLAN{VNI: 1, Port: 8472, Local: netip.MustParseAddr("fd00:c0::1"), Dev: "eth0"},
	})
	s.Addrs = append(s.Addrs,
		Addr{"fl-blue", netip.MustParsePrefix("fd00:5:0:7::1/64")}, Addr{"flannel-v6.1", netip.MustParsePrefix("fd00:5:0:7::/128")})
	for i, text := range []string{"fd00:5:0:8::", "fd00:5:0:9::"} {
		ip, mac := netip.MustParseAddr(text), MAC{2, 0x42, 6, 0, 0, byte(i)}
		s.Neighs = append(s.Neighs, Neigh{"flannel-v6.1", ip, mac})
		s.FDB = append(s.FDB, FDB{"flannel-v6.1", mac, netip.MustParseAddr("fd00:c0::2")})
		s.Routes = append(s.Routes, Route{Dst: netip.PrefixFrom(ip, 64), Via: ip, Link: "flannel-v6.1", OnLink: true})
	}
	s.Routes = append(s.Routes, Route{
		Dst: netip.MustParsePrefix("fd00:5:0:a::/64"), Via: netip.MustParseAddr("fd00:c0::3"), Link: "eth0", Src: netip.MustParseAddr("fd00:5:0:7::1"),
	})
	six := netip.MustParsePrefix("fd00:5::/48")
	s.Forwards = append(s.Forwards,
		Forward{In: "fl-blue", Out: "flannel-v6.1", Src: six, Dst: six}, Forward{In: "flannel-v6.1", Out: "fl-blue", Src: six})
	s.Guards = append(s.Guards, "flannel-v6.1")
	return s
}

func newDualHost(t *testing.T) *host {
	t.Helper()
	h := newHost(t)
	h.sh("ip addr add fd00:c0::1/64 dev eth0 nodad")
	return h
}

func TestApplyDualStack(t *testing.T) {
	h := newDualHost(t)
	want := exampleDual()
	h.apply(want)
	h.expect(want)
	if got := h.apply(want); got.Changed != 0 {
		t.Errorf("second apply changed %d", got.Changed)
	}
	h.k.Doubt()
	if got := h.apply(want); got.Changed != 0 {
		t.Errorf("apply in doubt changed %d", got.Changed)
	}
	if out := h.sh("ip -6 addr show flv1; ip -6 addr show scope global tentative"); out != "" {
		t.Errorf("addresses that are not to be there, or do not serve yet:\n%s", out)
	}
	h.apply(State{})
	if left := h.read(State{}); left != "" {
		t.Errorf("left over:\n%s", left)
	}
}

func TestHealDualStack(t *testing.T) {
	h := newDualHost(t)
	want := exampleDual()
	woken := h.watch()
	h.apply(want)
	h.quiet()
	for _, c := range []struct{ name, command string }{
		{"routes flushed", "ip -6 route flush proto 117"},
		{"route changed", "ip -6 route replace fd00:5:0:8::/64 via fd00:5:0:9:: dev flannel-v6.1 onlink proto 117"},
		{"stranger route", "ip -6 route add fd00:5:0:b::/64 via fd00:c0::9 proto 117"},
		{"neigh deleted", "ip neigh del fd00:5:0:8:: dev flannel-v6.1"},
		{"neigh changed", "ip neigh replace fd00:5:0:8:: lladdr 02:00:00:00:00:99 dev flannel-v6.1 nud permanent"},
		{"fdb changed", "bridge fdb replace 02:42:06:00:00:00 dev flannel-v6.1 dst fd00:c0::9 self permanent"},
		{"vxlan deleted", "ip link del flannel-v6.1"},
		{"vxlan down", "ip link set flannel-v6.1 down"},
		{"vxlan down and up", "ip link set flannel-v6.1 down; ip link set flannel-v6.1 up"},
		{"bridge down and up", "ip link set fl-blue down; ip link set fl-blue up"},
		{"bridge deleted", "ip link del fl-blue"},
		{"bridge address deleted", "ip addr del fd00:5:0:7::1/64 dev fl-blue"},
		{"stranger vxlan", "ip link add flannel-v6.7 type vxlan id 7 dev eth0 local fd00:c0::1 dstport 8472; ip link set flannel-v6.7 up alias docker-flannel"},
		{"table deleted", "nft delete table inet docker-flannel"},
	} {
		h.notice(woken, c.command)
		if got := h.apply(want); len(got.Repaired) == 0 {
			t.Errorf("%s: nothing repaired", c.name)
		}
		h.expect(want)
		h.quiet()
	}
	h.sh("sysctl -qw net.ipv6.conf.all.forwarding=0")
	h.k.Doubt()
	h.apply(want)
	h.expect(want)
}

// TestRouters keeps devices that hear IPv6 routers hearing them.
func TestRouters(t *testing.T) {
	h := newDualHost(t)
	h.sh(`ip link add deaf type bridge; ip link add off type bridge; ip link add mine type bridge
		sysctl -qw net.ipv6.conf.eth0.accept_ra=1 net.ipv6.conf.deaf.accept_ra=0 net.ipv6.conf.mine.accept_ra=2
		sysctl -qw net.ipv6.conf.off.accept_ra=1 net.ipv6.conf.off.disable_ipv6=1`)
	h.apply(State{Sysctls: []Sysctl{{IPv6Forwarding, "1"}}})
	for device, want := range map[string]string{"eth0": "2", "deaf": "0", "mine": "2", "off": "1"} {
		got, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + device + "/accept_ra")
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(got)) != want {
			t.Errorf("%s: accept_ra is %s, want %s", device, got, want)
		}
	}
}
