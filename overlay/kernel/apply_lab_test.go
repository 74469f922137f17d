//go:build lab

package kernel

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestApplyTwice(t *testing.T) {
	h := newHost(t)
	want := example(3)
	if got := h.apply(want); len(got.Repaired) != 0 {
		t.Errorf("first apply repaired %v", got.Repaired)
	}
	h.expect(want)
	if got := h.apply(want); got.Changed != 0 {
		t.Errorf("second apply changed %d", got.Changed)
	}
	h.k.Doubt()
	if got := h.apply(want); got.Changed != 0 {
		t.Errorf("apply in doubt changed %d", got.Changed)
	}
}

// TestAdopt finds at a new start what an earlier process left, keeps what is
// wanted and removes the rest without counting it as repaired.
func TestAdopt(t *testing.T) {
	h := newHost(t)
	h.apply(example(3))
	again, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := again.Apply(t.Context(), example(3)); got.Changed != 0 || len(got.Failed) != 0 {
		t.Errorf("a second process changed %d, failed %v", got.Changed, got.Failed)
	}
	third, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	got := third.Apply(t.Context(), State{})
	if got.Changed != 5 || len(got.Repaired) != 0 || len(got.Failed) != 0 {
		t.Errorf("clearing: %+v", got)
	}
	if left := h.read(State{}); left != "" {
		t.Errorf("left over:\n%s", left)
	}
}

// TestThreads applies from a thread in another namespace.
func TestThreads(t *testing.T) {
	h := newHost(t)
	want := example(1)
	woken := make(chan struct{}, 10)
	result := make(chan Result)
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error)
	go func() { watched <- h.k.Watch(ctx, func() { woken <- struct{}{} }) }()
	go func() { result <- h.k.Apply(ctx, want) }()
	if got := <-result; len(got.Failed) != 0 {
		t.Fatalf("failed: %v", got.Failed)
	}
	h.await(woken)
	h.expect(want)
	cancel()
	if err := <-watched; err != nil {
		t.Error(err)
	}
}

// TestCapabilities makes do with CAP_NET_ADMIN and CAP_NET_RAW on a thread
// that is in the namespace already.
func TestCapabilities(t *testing.T) {
	h := newHost(t)
	h.sh("iptables-nft -N DOCKER-USER")
	few := [2]unix.CapUserData{{Effective: 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW}}
	few[0].Permitted = few[0].Effective
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &few[0]); err != nil {
		t.Fatal(err)
	}
	h.apply(example(3))
	h.expect(example(3))
	h.apply(State{})
}

// TestForeign leaves alone what has our names or our shape, but not our mark.
func TestForeign(t *testing.T) {
	h := newHost(t)
	h.sh(`ip link add fl-office type bridge
		ip link add flannel.5 type vxlan id 5 dev eth0 dstport 4789
		ip link add flvpn0 type veth peer name flvpn1
		ip link set flannel.5 up
		ip addr add 10.77.0.1/24 dev flannel.5
		ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:99 dev flannel.5 nud permanent
		bridge fdb add 02:00:00:00:00:99 dev flannel.5 dst 10.0.0.9 self permanent
		ip route add 10.78.0.0/24 via 10.77.0.2
		ip route add 10.8.0.0/24 via 10.0.0.9 proto 117 table 77
		nft add table inet docker-flannel-2`)
	list := func() string {
		return h.sh(`ip -br link show type bridge; ip -br link show type vxlan; ip -br link show type veth
			ip addr show dev flannel.5; ip neigh show dev flannel.5; bridge fdb show dev flannel.5
			ip route show table all; nft list tables`)
	}
	before := list()
	h.apply(example(3))
	h.k.Doubt()
	h.apply(State{})
	if after := list(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestBlocked cannot have what belongs to somebody else, says so, and takes it
// once it is free.
func TestBlocked(t *testing.T) {
	h := newHost(t)
	woken := h.watch()
	h.sh(`ip route add 10.8.1.0/24 via 10.0.0.9 proto static metric 100
		ip link add flannel.1 type vxlan id 1 dev eth0 dstport 8472`)
	want := example(3)
	got := h.k.Apply(t.Context(), want)
	if len(got.Failed) != 1 || got.Failed[0].Object != "link flannel.1" {
		t.Fatalf("failed: %v", got.Failed)
	}
	if text := got.Failed[0].Error(); !strings.Contains(text, "ip link del flannel.1") {
		t.Errorf("no help in %q", text)
	}
	h.quiet()

	h.notice(woken, "ip link del flannel.1")
	for range 2 {
		got = h.k.Apply(t.Context(), want)
		if len(got.Failed) != 1 || got.Failed[0].Object != "route 10.8.1.0/24" {
			t.Fatalf("failed: %v", got.Failed)
		}
		if text := got.Failed[0].Error(); !strings.Contains(text, "via 10.0.0.9 metric 100 proto static dev eth0") {
			t.Errorf("no owner in %q", text)
		}
	}
	h.quiet()

	h.notice(woken, "ip route del 10.8.1.0/24")
	h.apply(want)
	h.expect(want)

	// A route that comes when ours is there takes no effect, unless it
	// replaces ours.
	h.quiet()
	h.notice(woken, "ip route replace 10.8.1.0/24 via 10.0.0.9 metric 2")
	got = h.k.Apply(t.Context(), want)
	if len(got.Failed) != 1 || got.Failed[0].Object != "route 10.8.1.0/24" {
		t.Fatalf("failed: %v", got.Failed)
	}
}

// TestRouteConflictLater meets a foreign route that came while nobody watched.
func TestRouteConflictLater(t *testing.T) {
	h := newHost(t)
	h.apply(example(2))
	h.sh("ip route add 10.8.2.0/24 via 10.0.0.9")
	got := h.k.Apply(t.Context(), example(3))
	if len(got.Failed) != 1 || got.Failed[0].Object != "route 10.8.2.0/24" {
		t.Fatalf("failed: %v", got.Failed)
	}
}

func TestLinkChanges(t *testing.T) {
	h := newHost(t)
	h.watch()
	want := example(3)
	h.apply(want)
	for _, change := range []struct {
		name   string
		change func(*State)
	}{
		{"vxlan port", func(s *State) { s.Links[1].VXLAN.Port = 4789 }},
		{"vxlan learning", func(s *State) { s.Links[1].VXLAN.Learning = true }},
		{"vxlan gbp", func(s *State) { s.Links[1].VXLAN.GBP = true }},
		{"vxlan local", func(s *State) { s.Links[1].VXLAN.Local = netip.MustParseAddr("10.0.0.77") }},
		{"vxlan dev", func(s *State) { s.Links[1].VXLAN.Dev = "wire0" }},
		{"vxlan mac", func(s *State) { s.Links[1].MAC[0] = 6 }},
		{"mtu", func(s *State) { s.Links[0].MTU, s.Links[1].MTU, s.Veths[0].MTU = 1400, 1400, 1400 }},
		{"bridge mac", func(s *State) { s.Links[0].MAC[0] = 6 }},
		{"veth mac", func(s *State) { s.Veths[0].MAC[0] = 6 }},
		{"gateway", func(s *State) { s.Addrs[0].Prefix = netip.MustParsePrefix("10.5.7.254/24") }},
	} {
		want.Links, want.Veths, want.Addrs = slices.Clone(want.Links), slices.Clone(want.Veths), slices.Clone(want.Addrs)
		change.change(&want)
		if got := h.apply(want); len(got.Repaired) != 0 {
			t.Errorf("%s: repaired %v", change.name, got.Repaired)
		}
		h.expect(want)
		h.quiet()
	}
}

// TestBridgeMTU keeps a bridge's MTU when its last port leaves.
func TestBridgeMTU(t *testing.T) {
	h := newHost(t)
	want := example(0)
	h.apply(want)
	want.Veths = nil
	h.apply(want)
	h.expect(want)
}

// TestBadObjects fails what is impossible, alone, and says once what the rest
// waits for.
func TestBadObjects(t *testing.T) {
	h := newHost(t)
	want := example(3)
	want.Links = append(want.Links, Link{Name: "flannel.2", VXLAN: VXLAN{VNI: 2, Dev: "eth7"}})
	want.Addrs = append(want.Addrs, Addr{"flannel.2", netip.MustParsePrefix("10.6.7.0/32")})
	want.Routes = append(slices.Clone(want.Routes),
		Route{Dst: netip.MustParsePrefix("10.8.9.0/24"), Via: netip.MustParseAddr("10.99.0.1"), Link: "eth0"},
		Route{Dst: netip.MustParsePrefix("10.8.2.0/24"), Via: netip.MustParseAddr("10.0.0.3"), Link: "eth0"})
	want.Sysctls = append(want.Sysctls, Sysctl{"ipv4/no_such_thing", "1"})
	for range 2 {
		var objects []string
		for _, f := range h.k.Apply(t.Context(), want).Failed {
			objects = append(objects, f.Object)
		}
		slices.Sort(objects)
		if got := strings.Join(objects, ", "); got != "link flannel.2, route 10.8.2.0/24, route 10.8.9.0/24, sysctl ipv4/no_such_thing" {
			t.Errorf("failed: %s", got)
		}
	}
	h.expect(example(3))
}

// TestTooLargeMTU is refused by the kernel, alone.
func TestTooLargeMTU(t *testing.T) {
	h := newHost(t)
	want := example(3)
	want.Links[1].MTU = 9000
	for range 3 {
		got := h.k.Apply(t.Context(), want)
		if len(got.Failed) != 1 || got.Failed[0].Object != "link flannel.1" {
			t.Errorf("failed: %v", got.Failed)
		}
	}
	want.Links[1].MTU = 1400
	if got := h.apply(want); got.Changed != 1 {
		t.Errorf("with the right MTU changed %d", got.Changed)
	}
	h.expect(want)
}

// TestManyPeers handles thousands of peers under Watch: what Apply does to
// them is no reason for doubt, and after their loss one Apply is enough.
func TestManyPeers(t *testing.T) {
	h := newHost(t)
	woken := h.watch()
	want := example(5000)
	h.apply(want)
	h.quiet()
	h.notice(woken, "ip route flush proto 117")
	if got := h.apply(want); got.Repaired["route"] != 5000 {
		t.Errorf("repaired %v", got.Repaired)
	}
	h.quiet()
	for len(woken) > 0 { // while the kernel was still flushing
		<-woken
	}
	if got := h.apply(want); got.Changed != 0 {
		t.Errorf("changed %d once more", got.Changed)
	}
	h.quiet()
	if len(woken) != 0 {
		t.Errorf("woken %d times more", len(woken))
	}
	h.apply(State{})
	h.quiet()
}

// TestUnderlay finds the underlay and overlapping routes of a real namespace.
func TestUnderlay(t *testing.T) {
	h := newHost(t)
	h.apply(example(2))
	got, err := h.k.Underlay(UnderlaySpec{})
	if err != nil || got.Name != "eth0" || got.MTU != 1500 || got.Addr != netip.MustParseAddr("10.0.0.1") || got.PublicIP != got.Addr {
		t.Errorf("underlay %+v, %v", got, err)
	}
	for p, want := range map[string]string{"10.5.0.0/16": "", "10.8.0.0/16": "", "10.0.0.0/8": "route 10.0.0.0/24 proto kernel dev eth0"} {
		if got, err := h.k.Overlap(netip.MustParsePrefix(p)); got != want || err != nil {
			t.Errorf("overlap of %s: %q, %v", p, got, err)
		}
	}
}

// TestDeadline stops at the end of the context and goes on from there.
func TestDeadline(t *testing.T) {
	h := newHost(t)
	want := example(3)
	over, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if got := h.k.Apply(over, want); len(got.Failed) != 1 || got.Changed != 0 {
		t.Errorf("%+v", got)
	}
	h.apply(want)
	h.expect(want)
}

func TestConflict(t *testing.T) {
	h := newHost(t)
	h.sh(`ip link add flannel.1 type vxlan id 1 dstport 8472 dev eth0
ip route add 10.8.1.0/24 via 10.0.0.9
ip addr add 10.9.3.1/32 dev lo`)
	for _, c := range []struct{ prefix, device, says string }{
		{"10.8.2.0/24", "flannel.2", ""},
		{"10.9.2.0/24", "flannel.2", ""},
		{"10.9.0.0/16", "flannel.2", "this host's address 10.9.3.1 on lo"},
		{"", "flannel.1", "ip link del flannel.1"},
		{"10.8.0.0/16", "flannel.2", "10.8.1.0/24 via 10.0.0.9"},
	} {
		var p netip.Prefix
		if c.prefix != "" {
			p = netip.MustParsePrefix(c.prefix)
		}
		got, err := h.k.Conflict(p, c.device)
		if err != nil || (c.says == "") != (got == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s and %s: %q, %v; want %q", c.prefix, c.device, got, err, c.says)
		}
	}
}
