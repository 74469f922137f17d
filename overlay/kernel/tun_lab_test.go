//go:build lab

package kernel

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
)

// tunnel is a state with a TUN device.
func tunnel() State {
	return State{
		Sysctls: []Sysctl{{"ipv4/conf/flannel0/accept_local", "1"}, {"ipv6/conf/flannel0/disable_ipv6", "1"}},
		Links:   []Link{{Name: "flannel0", MTU: 1472, TUN: true}},
		Addrs:   []Addr{{"flannel0", netip.MustParsePrefix("10.5.7.0/32")}},
		Routes:  []Route{{Dst: netip.MustParsePrefix("10.5.0.0/16"), Link: "flannel0"}},
		Guards:  []string{"flannel0"},
	}
}

func TestTUN(t *testing.T) {
	h := newHost(t)
	woken := h.watch()
	h.apply(tunnel())
	h.expect(tunnel())
	h.quiet()
	for _, c := range []struct {
		name, command string
		repaired      map[string]int
	}{
		{"deleted", "ip link del flannel0", map[string]int{"link": 2, "sysctl": 2, "addr": 1, "route": 1}},
		{"down", "ip link set flannel0 down", map[string]int{"link": 1, "route": 1}},
		{"mtu", "ip link set flannel0 mtu 1400", map[string]int{"link": 1}},
		{"addr deleted", "ip addr del 10.5.7.0/32 dev flannel0", map[string]int{"addr": 1, "route": 1}},
		{"route deleted", "ip route del 10.5.0.0/16", map[string]int{"route": 1}},
		{"stranger tun", "ip tuntap add flannel9 mode tun; ip link set flannel9 up alias docker-flannel", map[string]int{"link": 1}},
	} {
		t.Log(c.name)
		h.notice(woken, c.command)
		if got := h.apply(tunnel()); !maps.Equal(got.Repaired, c.repaired) {
			t.Errorf("%s: repaired %v, want %v", c.name, got.Repaired, c.repaired)
		}
		h.expect(tunnel())
		h.quiet()
	}
	h.apply(State{})
	if left := h.sh("ip tuntap show"); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestTUNOfOthers keeps away from a TUN device that stock flanneld has made.
func TestTUNOfOthers(t *testing.T) {
	h := newHost(t)
	h.sh("ip tuntap add flannel0 mode tun; ip link set flannel0 up")
	before := h.sh("ip link show flannel0")
	got := h.k.Apply(t.Context(), tunnel())
	if len(got.Failed) == 0 || !strings.Contains(got.Failed[0].Error(), "a tun device flannel0 exists and is not ours") {
		t.Errorf("failed %v", got.Failed)
	}
	conflict, err := h.k.Conflict(netip.Prefix{}, "flannel0")
	if err != nil || !strings.Contains(conflict, "flannel0") {
		t.Errorf("conflict %q: %v", conflict, err)
	}
	h.k.Apply(t.Context(), State{})
	if after := h.sh("ip link show flannel0"); after != before {
		t.Errorf("before: %s after: %s", before, after)
	}
}
