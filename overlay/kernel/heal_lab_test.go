//go:build lab

package kernel

import (
	"context"
	"maps"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHeal breaks one thing after the other by hand: each time Watch wakes,
// and the next Apply puts it back and counts it.
func TestHeal(t *testing.T) {
	h := newHost(t)
	want := example(3)
	woken := h.watch()
	h.apply(want)
	h.quiet()
	for _, c := range []struct {
		name, command string
		repaired      map[string]int
	}{
		{"route deleted", "ip route del 10.8.1.0/24", map[string]int{"route": 1}},
		{"route changed", "ip route replace 10.8.1.0/24 via 10.8.2.0 dev flannel.1 onlink proto 117 metric 2", map[string]int{"route": 1}},
		{"routes flushed", "ip route flush proto 117", map[string]int{"route": 3}},
		{"stranger route", "ip route add 10.9.0.0/24 via 10.0.0.9 proto 117", map[string]int{"route": 1}},
		{"stranger blackhole", "ip route add blackhole 10.9.0.0/24 proto 117", map[string]int{"route": 1}},
		{"stranger of several hops", "ip route add 10.9.0.0/24 proto 117 nexthop via 10.0.0.9 nexthop via 10.0.0.8", map[string]int{"route": 1}},
		{"second route of ours", "ip route add 10.8.1.0/24 via 10.0.0.9 proto 117 metric 77", map[string]int{"route": 1}},
		{"neigh deleted", "ip neigh del 10.8.1.0 dev flannel.1", map[string]int{"neigh": 1}},
		{"neigh changed", "ip neigh replace 10.8.1.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent", map[string]int{"neigh": 1}},
		{"neigh not permanent", "ip neigh replace 10.8.1.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud stale", map[string]int{"neigh": 1}},
		{"stranger neigh", "ip neigh add 10.9.1.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent", map[string]int{"neigh": 1}},
		{"fdb deleted", "bridge fdb del 02:42:0a:08:01:00 dev flannel.1 dst 10.0.1.1 self", map[string]int{"fdb": 1}},
		{"fdb changed", "bridge fdb replace 02:42:0a:08:01:00 dev flannel.1 dst 10.0.1.9 self permanent", map[string]int{"fdb": 1}},
		{"stranger fdb", "bridge fdb add 02:00:00:00:00:99 dev flannel.1 dst 10.0.1.9 self permanent", map[string]int{"fdb": 1}},
		{"vxlan deleted", "ip link del flannel.1", map[string]int{"link": 2, "sysctl": 1, "addr": 1, "neigh": 3, "fdb": 3, "route": 3}},
		{"vxlan down", "ip link set flannel.1 down", map[string]int{"link": 1, "neigh": 3, "route": 3}},
		{"vxlan down and up", "ip link set flannel.1 down; ip link set flannel.1 up", map[string]int{"neigh": 3, "route": 3}},
		{"vxlan mtu", "ip link set flannel.1 mtu 1400", map[string]int{"link": 1}},
		{"vxlan mac", "ip link set flannel.1 address 02:00:00:00:00:99", map[string]int{"link": 1, "neigh": 3}},
		{"vxlan renamed", "ip link set flannel.1 down; ip link set flannel.1 name flannel.9; ip link set flannel.9 up", map[string]int{"link": 3, "sysctl": 1, "addr": 1, "neigh": 3, "fdb": 3, "route": 3}},
		{"bridge deleted", "ip link del fl-blue", map[string]int{"link": 2, "sysctl": 1, "addr": 1, "veth": 1}},
		{"bridge down", "ip link set fl-blue down", map[string]int{"link": 1}},
		{"bridge mtu", "ip link set fl-blue mtu 1400", map[string]int{"link": 1}},
		{"bridge mac", "ip link set fl-blue address 02:00:00:00:00:99", map[string]int{"link": 1}},
		{"bridge unmarked", "ip link set fl-blue alias nobody", map[string]int{"link": 1}},
		{"stranger bridge", "ip link add fl-red type bridge; ip link set fl-red up alias docker-flannel", map[string]int{"link": 1}},
		{"stranger vxlan", "ip link add flannel.7 type vxlan id 7 dev eth0 dstport 8472; ip link set flannel.7 up alias docker-flannel", map[string]int{"link": 1}},
		{"stranger veth", "ip link add flv9 type veth peer name flp9; ip link set flv9 up alias docker-flannel", map[string]int{"veth": 1}},
		{"veth deleted", "ip link del flv1", map[string]int{"veth": 1}},
		{"veth down", "ip link set flv1 down", map[string]int{"veth": 1}},
		{"veth off its bridge", "ip link set flv1 nomaster", map[string]int{"veth": 1}},
		{"veth mtu", "ip link set flv1 mtu 1400", map[string]int{"veth": 1}},
		{"veth peer mtu", "ip link set flp1 mtu 1400", map[string]int{"veth": 1}},
		{"veth peer mac", "ip link set flp1 address 02:00:00:00:00:99", map[string]int{"veth": 1}},
		{"bridge addr deleted", "ip addr del 10.5.7.1/24 dev fl-blue", map[string]int{"addr": 1}},
		{"vxlan addr deleted", "ip addr del 10.5.7.0/32 dev flannel.1", map[string]int{"addr": 1, "neigh": 3, "route": 3}},
		{"stranger addr", "ip addr add 10.5.9.1/24 dev fl-blue", map[string]int{"addr": 1}},
		{"ip_forward off", "sysctl -qw net.ipv4.ip_forward=0", map[string]int{"sysctl": 1}},
		{"nft table deleted", "nft delete table inet docker-flannel", map[string]int{"nft": 1}},
		{"nft rule deleted", "nft flush chain inet docker-flannel forward", map[string]int{"nft": 1}},
		{"nft rule added", "nft insert rule inet docker-flannel forward accept", map[string]int{"nft": 1}},
		{"nft policy", "nft 'add chain inet docker-flannel forward { policy drop; }'", map[string]int{"nft": 1}},
		{"door table deleted", "nft delete table inet docker-flannel-doors", map[string]int{"door": 1, "admit": 3}},
		{"door opened", "nft flush chain inet docker-flannel-doors door_8472_1", map[string]int{"door": 1}},
		{"door deleted", "nft delete chain inet docker-flannel-doors door_8472_1", map[string]int{"door": 1}},
		{"door set deleted", "nft delete chain inet docker-flannel-doors door_8472_1; nft delete set inet docker-flannel-doors door_8472_1_ip", map[string]int{"door": 1, "admit": 3}},
		{"door rule added", "nft insert rule inet docker-flannel-doors door_8472_1 accept", map[string]int{"door": 1}},
		{"door policy", "nft 'add chain inet docker-flannel-doors door_8472_1 { policy drop; }'", map[string]int{"door": 1}},
		{"stranger door", "nft add chain inet docker-flannel-doors door_8472_7; nft 'add set inet docker-flannel-doors door_8472_7_ip { type ipv4_addr; }'; nft 'add element inet docker-flannel-doors door_8472_7_ip { 10.0.9.9 }'", map[string]int{"door": 1}},
		{"admit deleted", "nft 'delete element inet docker-flannel-doors door_8472_1_ip { 10.0.1.1 }'", map[string]int{"admit": 1}},
		{"admits flushed", "nft flush set inet docker-flannel-doors door_8472_1_ip", map[string]int{"admit": 3}},
		{"stranger admitted", "nft 'add element inet docker-flannel-doors door_8472_1_ip { 10.0.9.9 }'", map[string]int{"admit": 1}},
		{"stranger admitted over IPv6", "nft 'add element inet docker-flannel-doors door_8472_1_ip6 { fd00::9 }'", map[string]int{"admit": 1}},
		{"ruleset flushed", "nft flush ruleset", map[string]int{"nft": 1, "door": 1, "admit": 3}},
		{"nft chain added", "nft add chain inet docker-flannel more", map[string]int{"nft": 1}},
	} {
		t.Log(c.name)
		h.notice(woken, c.command)
		got := h.apply(want)
		if !maps.Equal(got.Repaired, c.repaired) {
			t.Errorf("%s: repaired %v, want %v", c.name, got.Repaired, c.repaired)
		}
		h.expect(want)
		if again := h.apply(want); again.Changed != 0 {
			t.Errorf("%s: second apply changed %d", c.name, again.Changed)
		}
		h.quiet()
	}
}

// TestUnderlayFlap loses the underlay under host-gw routes: the kernel drops
// them without a word.
func TestUnderlayFlap(t *testing.T) {
	h := newHost(t)
	woken := h.watch()
	want := State{Routes: []Route{
		{Dst: netip.MustParsePrefix("10.8.1.0/24"), Via: netip.MustParseAddr("10.0.0.2"), Link: "eth0"},
	}}
	h.apply(want)
	h.quiet()
	for _, command := range []string{
		"ip link set eth0 down; ip link set eth0 up",
		"ip addr flush dev eth0; ip addr add 10.0.0.1/24 dev eth0",
	} {
		h.notice(woken, command)
		if got := h.apply(want); got.Repaired["route"] != 1 {
			t.Errorf("%s: repaired %v", command, got.Repaired)
		}
		h.expect(want)
		h.quiet()
	}

	h.notice(woken, "ip link set eth0 down")
	if got := h.k.Apply(context.Background(), want); len(got.Failed) != 1 || got.Failed[0].Object != "route 10.8.1.0/24" {
		t.Errorf("underlay down: %v", got.Failed)
	}
	h.notice(woken, "ip link set eth0 up")
	h.apply(want)
	h.expect(want)
}

// TestSysctlAudit finds a changed setting when told to doubt.
func TestSysctlAudit(t *testing.T) {
	h := newHost(t)
	want := example(0)
	h.apply(want)
	h.sh("echo 0 >/proc/sys/net/ipv4/ip_forward")
	if got := h.apply(want); got.Changed != 0 {
		t.Errorf("changed %d without doubt", got.Changed)
	}
	h.k.Doubt()
	if got := h.apply(want); got.Repaired["sysctl"] != 1 {
		t.Errorf("repaired %v", got.Repaired)
	}
	h.expect(want)
}

// TestOverflow loses notifications, which puts everything in doubt.
func TestOverflow(t *testing.T) {
	h := newHost(t)
	h.apply(example(0))
	w := watcher{k: h.k, wake: func() {}}
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if err := unix.SetsockoptInt(w.route.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096); err != nil {
		t.Fatal(err)
	}
	h.sh("for i in $(seq 50); do echo addr add 10.77.0.$i/32 dev lo; done | ip -batch -")
	if err := w.take(); err != nil {
		t.Fatal(err)
	}
	if got := h.k.doubt.Load(); got != doubtAll || w.last.IsZero() {
		t.Errorf("doubt %b after an overflow", got)
	}
	h.apply(example(0))
	h.sh("ip addr add 10.77.1.1/32 dev lo")
	if err := w.take(); err != nil {
		t.Fatal(err)
	}
	if len(w.events) == 0 || h.k.doubt.Load() != 0 {
		t.Errorf("deaf after an overflow: %d notifications, doubt %b", len(w.events), h.k.doubt.Load())
	}
}
