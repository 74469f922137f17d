package overlay_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// TestNamedDualStack makes networks with an IPv6 half of their own, where the pool
// has one, and refuses --ipv6 where it has none.
func TestNamedDualStack(t *testing.T) {
	c, store := realStore(t)
	pool := func(base string, bits int) func(*overlay.Options) {
		return func(o *overlay.Options) { o.Pool.IPv6Base, o.Pool.IPv6Bits = netip.MustParsePrefix(base), bits }
	}
	a := start(t, store, newDualBoard("192.0.2.1", "fd00:c0::1"), t.TempDir(), dualStack(t), pool("fd00:5::/40", 48))
	a.board.occupy("fd00:5:1:7::/64")
	take := func(h *host, name string, subnet netip.Prefix) (overlay.Network, error) {
		t.Helper()
		if _, err := h.Acquire(t.Context(), overlay.Request{Name: name, Subnet: subnet}); err != nil {
			t.Fatal(err)
		}
		return h.Acquire(t.Context(), overlay.Request{Name: name, IPv6: true})
	}
	// fd00:5::/48 is the default network's to come, and the host has a part of
	// the second.
	red, err := take(a, "red", netip.Prefix{})
	if err != nil || red.IPv6CIDR.String() != "fd00:5:2::/48" {
		t.Errorf("red: %+v, %v", red, err)
	}
	blue, err := take(a, "blue", netip.MustParsePrefix("10.77.0.0/16"))
	if err != nil || blue.CIDR.String() != "10.77.0.0/16" || !blue.IPv6CIDR.Contains(blue.IPv6Subnet.Addr()) || blue.IPv6CIDR == red.IPv6CIDR {
		t.Errorf("blue: %+v, %v", blue, err)
	}
	// Another host joins with whatever its own settings say.
	b := start(t, store, newDualBoard("192.0.2.2", "fd00:c0::2"), t.TempDir())
	joined, err := take(b, "red", netip.Prefix{})
	if err != nil || joined.IPv6CIDR != red.IPv6CIDR || joined.IPv6Subnet == red.IPv6Subnet {
		t.Errorf("red on the other host: %+v, %v", joined, err)
	}
	if _, err := take(b, "plain", netip.Prefix{}); err == nil {
		t.Error("--ipv6 on a network of IPv4 alone is not refused")
	} else {
		wantText(t, "refusal", err.Error(), "network plain has no IPv6", "NETWORK_POOL", "base=10.128.0.0/9,size=16,ipv6-base=", "docker flannel network rm plain")
	}
	full := start(t, store, newDualBoard("192.0.2.3", "fd00:c0::3"), t.TempDir(), pool("fd00:5:2::/48", 48))
	if _, err := full.Acquire(t.Context(), overlay.Request{Name: "late"}); err == nil || !strings.Contains(err.Error(), "ipv6-base=fd00:5:2::/48,ipv6-size=48) has no IPv6 CIDR left for network late") {
		t.Errorf("a pool that is used up: %v", err)
	}
	late := start(t, store, newDualBoard("192.0.2.4", "fd00:c0::4"), t.TempDir(), func(o *overlay.Options) {
		dualStack(t)(o)
		text, err := overlay.DualStack([]byte(`{"Network":"10.5.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}`), red.IPv6CIDR)
		if err != nil {
			t.Fatal(err)
		}
		o.Initial = text
	})
	if _, err := late.Acquire(t.Context(), overlay.Request{}); err == nil || !strings.Contains(err.Error(), "setting IPV6_NETWORK="+red.IPv6CIDR.String()+" overlaps network red") {
		t.Errorf("a default network on red's IPv6: %v", err)
	}
	wantText(t, "etcd", dump(t, c)(), fmt.Sprintf(`"EnableIPv6":true,"Network":"10.128.0.0/16","IPv6Network":"%s"`, red.IPv6CIDR), "&"+red.IPv6Subnet.Addr().String()+"-64")
}

// TestPoolAvoidsIPv6 takes the first IPv6 CIDR that neither the host nor the default
// network to come will have.
func TestPoolAvoidsIPv6(t *testing.T) {
	for _, c := range []struct{ base, host, want string }{
		{"fd00:80::/40", "", "fd00:80::/56"},
		{"fd00:80::/40", "fd00:80:0:7::/64", "fd00:80:0:100::/56"},
		{"fd00:5::/47", "", "fd00:5:1::/56"},
		{"fd00:5::/48", "", "no IPv6 CIDR left for network red: give the setting a larger ipv6-base"},
		{"ffff:ffff:ffff:ff00::/56", "ffff:ffff:ffff:ff00::/56", "overlaps"},
	} {
		_, store := realStore(t)
		b := newDualBoard("192.0.2.1", "fd00:c0::1")
		if c.host != "" {
			b.occupy(c.host)
		}
		h := start(t, store, b, t.TempDir(), dualStack(t), func(o *overlay.Options) {
			o.Pool.IPv6Base, o.Pool.IPv6Bits = netip.MustParsePrefix(c.base).Masked(), 56
		})
		n, err := h.Acquire(t.Context(), overlay.Request{Name: "red"})
		if got := fmt.Sprint(n.IPv6CIDR, err); !strings.Contains(got, c.want) {
			t.Errorf("pool %s, host %s: %s, want %s", c.base, c.host, got, c.want)
		}
	}
}
