package overlay_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// dualStack begins with a network of both families.
func dualStack(t *testing.T) func(*overlay.Options) {
	return func(o *overlay.Options) {
		text, err := overlay.DualStack(o.Initial, netip.MustParsePrefix("fd00:5::/48"))
		if err != nil {
			t.Fatal(err)
		}
		o.Initial = text
	}
}

// newDualBoard is a host with both families.
func newDualBoard(ip, six string) *board {
	b := newBoard(ip)
	addr := netip.MustParseAddr(six)
	b.under.IPv6 = kernel.Place{Addr: addr, PublicIP: addr, Net: netip.PrefixFrom(addr, 64).Masked()}
	return b
}

// dualNetwork makes a Docker network with --ipv6.
func (h *host) dualNetwork(t *testing.T) overlay.Network {
	t.Helper()
	if _, err := h.Acquire(t.Context(), overlay.Request{}); err != nil {
		t.Fatal(err)
	}
	n, err := h.Acquire(t.Context(), overlay.Request{IPv6: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Attach(t.Context(), overlay.Bridge{ID: dockerNet, Subnet: n.Subnet, IPv6Subnet: n.IPv6Subnet}); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDualStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		a := start(t, store, newDualBoard("192.0.2.1", "fd00:c0::1"), t.TempDir(), dualStack(t))
		b := start(t, store, newDualBoard("192.0.2.2", "fd00:c0::2"), t.TempDir(), dualStack(t))
		n, m := a.dualNetwork(t), b.dualNetwork(t)
		if n.MTU != 1430 || n.IPv6Subnet == m.IPv6Subnet || n.IPv6CIDR != netip.MustParsePrefix("fd00:5::/48") {
			t.Fatalf("networks %+v and %+v", n, m)
		}
		p := port(n)
		p.IPv6 = n.IPv6Subnet.Addr().Next().Next()
		if err := a.AddPort(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		joined, err := a.Join(t.Context(), dockerNet, endpoint)
		if err != nil || !joined.IPv6 {
			t.Fatalf("joined %+v, %v", joined, err)
		}
		other := p
		other.Endpoint, other.Addr = strings.Repeat("e", 64), p.Addr.Next()
		if err := a.AddPort(t.Context(), other); err == nil || !strings.Contains(err.Error(), "--ip6") {
			t.Errorf("one IPv6 address for two: %v", err)
		}
		if !a.Taken(n.IPv6Subnet, p.IPv6) || !a.Attached(n.IPv6Subnet) {
			t.Error("the IPv6 half is not known as used")
		}
		synctest.Wait()
		const bridge = "fl-0123456789ab"
		bothFamilies := []string{
			"sysctl ipv6/conf/all/forwarding = 1",
			"sysctl ipv6/conf/" + bridge + "/disable_ipv6 = 0",
			"sysctl ipv6/conf/" + bridge + "/accept_dad = 0",
			"sysctl ipv6/conf/" + bridge + "/accept_ra = 0",
			"sysctl ipv6/conf/flvfedcba987654/disable_ipv6 = 1",
			"sysctl ipv6/conf/flannel.1/disable_ipv6 = 1",
			"sysctl ipv6/conf/flannel-v6.1/disable_ipv6 = 0",
			"link flannel.1 vxlan id 1 port 8472 local 192.0.2.1 dev eth0",
			"link flannel-v6.1 vxlan id 1 port 8472 local fd00:c0::1 dev eth0",
			"addr " + bridge + " " + n.Gateway.String() + "/24",
			"addr " + bridge + " " + n.IPv6Subnet.Addr().Next().String() + "/64",
			"addr flannel-v6.1 " + n.IPv6Subnet.Addr().String() + "/128",
			"dst fd00:c0::2", "dst 192.0.2.2",
			"route " + m.Subnet.String() + " via " + m.Subnet.Addr().String() + " dev flannel.1 onlink",
			"route " + m.IPv6Subnet.String() + " via " + m.IPv6Subnet.Addr().String() + " dev flannel-v6.1 onlink",
			"forward in " + bridge + " out flannel-v6.1 src " + n.IPv6Subnet.String() + " dst fd00:5::/48",
			"guard in flannel-v6.1",
		}
		wantText(t, "state", a.board.text(), bothFamilies...)

		t.Log("the next process goes on where this one ended, without the store")
		a.stop()
		store.edit(func() { store.down = errDown })
		again := start(t, store, a.board, a.dir, dualStack(t))
		synctest.Wait()
		wantText(t, "state after a restart", again.board.text(), bothFamilies[1:]...)

		t.Log("a lost lease is claimed back, both halves")
		store.edit(func() { store.down = nil; clear(store.leases) })
		time.Sleep(time.Minute) // the fake clock's
		synctest.Wait()
		own := store.held()[n.Subnet]
		if own.IPv6Subnet != n.IPv6Subnet || own.PublicIPv6.String() != "fd00:c0::1" || len(own.BackendV6Data) == 0 {
			t.Errorf("lease %+v", own)
		}

		t.Log("an interface that loses its address keeps the network going")
		again.board.mu.Lock()
		again.board.under.IPv6 = kernel.Place{}
		again.board.mu.Unlock()
		again.board.wake()
		synctest.Wait()
		wantText(t, "state without an IPv6 underlay", again.board.text(), "local fd00:c0::1", m.IPv6Subnet.String())
		again.remove(t, n)
		synctest.Wait()
		if _, left := store.held()[n.Subnet]; left {
			t.Error("the lease is left")
		}
		lacksText(t, "state after the end", again.board.text(), "fd00", "flannel-v6")
	})
}

// A network of both families is one of IPv4 for who asks for no more, and for
// a host that has no more.
func TestIPv4OfDualStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		plain := start(t, store, newDualBoard("192.0.2.1", "fd00:c0::1"), t.TempDir(), dualStack(t))
		old := start(t, store, newBoard("192.0.2.2"), t.TempDir(), dualStack(t))
		n := plain.network(t)
		if _, err := old.Acquire(t.Context(), overlay.Request{}); err != nil {
			t.Fatal(err)
		}
		_, err := old.Acquire(t.Context(), overlay.Request{IPv6: true})
		if err == nil || !strings.Contains(err.Error(), "interface eth0 has no IPv6 address") {
			t.Errorf("--ipv6 without an IPv6 underlay: %v", err)
		}
		synctest.Wait()
		lacksText(t, "state", plain.board.text(), "fd00", "flannel-v6", "forwarding")
		held := store.held()
		if !held[n.Subnet].IPv6Subnet.IsValid() {
			t.Errorf("lease %+v lacks the half that a later network can use", held[n.Subnet])
		}
		for _, l := range held {
			if l.PublicIP.String() == "192.0.2.2" && (l.IPv6Subnet.IsValid() || l.PublicIPv6.IsValid()) {
				t.Errorf("lease %+v of a host without IPv6", l)
			}
		}
	})
}

func TestIPv6Refused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		small := func(b *board) *board { b.under.MTU = 1300; return b }
		for _, c := range []struct {
			name, says string
			board      *board
			more       []func(*overlay.Options)
			asked      string
			twice      bool // also the first call, for IPv4
		}{
			{"network without", "IPV6_NETWORK", newDualBoard("192.0.2.1", "fd00:c0::1"), nil, "", true},
			{"other CIDR", "fd00:6::/48: the flannel network's IPv6 is fd00:5::/48", newDualBoard("192.0.2.1", "fd00:c0::1"), []func(*overlay.Options){dualStack(t)}, "fd00:6::/48", true},
			{"small MTU", "IPv6 needs 1280", small(newDualBoard("192.0.2.1", "fd00:c0::1")), []func(*overlay.Options){dualStack(t)}, "", true},
			{"IPv6 alone", "--ipv4=false", newDualBoard("192.0.2.1", "fd00:c0::1"), []func(*overlay.Options){dualStack(t)}, "", false},
		} {
			h := start(t, newMemory(), c.board, t.TempDir(), c.more...)
			if c.twice {
				if _, err := h.Acquire(t.Context(), overlay.Request{}); err != nil {
					t.Fatal(err)
				}
			}
			req := overlay.Request{IPv6: true}
			if c.asked != "" {
				req.Subnet = netip.MustParsePrefix(c.asked)
			}
			if _, err := h.Acquire(t.Context(), req); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: error %v, want one with %q", c.name, err, c.says)
			}
		}
		store := newMemory()
		store.config = []byte(`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`)
		h := start(t, store, newDualBoard("192.0.2.1", "fd00:c0::1"), t.TempDir())
		if _, err := h.Acquire(t.Context(), overlay.Request{}); err == nil || !strings.Contains(err.Error(), "EnableIPv4 true") {
			t.Errorf("a network of IPv6 alone: %v", err)
		}
	})
}
