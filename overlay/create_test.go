package overlay_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// TestNamedNetworks makes networks of their own CIDR, VNI and lease, by the
// store as it is.
func TestNamedNetworks(t *testing.T) {
	c, store := realStore(t)
	a := start(t, store, newBoard("192.0.2.1"), t.TempDir())
	b := start(t, store, newBoard("192.0.2.2"), t.TempDir())
	a.network(t)
	a.board.occupy("10.128.0.0/16")
	take := func(h *host, req overlay.Request) overlay.Network {
		t.Helper()
		n, err := h.Acquire(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	red, red2 := take(a, overlay.Request{Name: "red"}), take(b, overlay.Request{Name: "red"})
	if red.CIDR != netip.MustParsePrefix("10.129.0.0/16") || red2.CIDR != red.CIDR || red.Subnet == red2.Subnet {
		t.Errorf("red: %+v and %+v", red, red2)
	}
	green := take(b, overlay.Request{Name: "green"})
	if green.CIDR != netip.MustParsePrefix("10.128.0.0/16") {
		t.Errorf("green: %+v", green)
	}
	asked := take(a, overlay.Request{Name: "blue", Subnet: netip.MustParsePrefix("10.77.0.0/16"), Backend: "host-gw"})
	if asked.CIDR != netip.MustParsePrefix("10.77.0.0/16") || asked.MTU != 1500 {
		t.Errorf("blue: %+v", asked)
	}
	text := dump(t, c)()
	wantText(t, "etcd", text, `/red/config {"Network":"10.129.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan","VNI":2}}`,
		`/green/config {"Network":"10.128.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan","VNI":3}}`,
		`/blue/config {"Network":"10.77.0.0/16","SubnetLen":24,"Backend":{"Type":"host-gw"}}`,
		"/red/subnets/"+red.Subnet.Addr().String()+"-24")
	third := start(t, store, newBoard("192.0.2.3"), t.TempDir())
	for says, req := range map[string]overlay.Request{
		"overlaps network red (10.129.0.0/16)":                  {Name: "grey", Subnet: netip.MustParsePrefix("10.129.0.0/18")},
		"overlaps the default network (10.5.0.0/16)":            {Name: "grey", Subnet: netip.MustParsePrefix("10.4.0.0/14")},
		"network grey does not exist yet, and every host":       {Name: "grey", Subnet: netip.MustParsePrefix("10.78.7.0/24")},
		"--subnet 10.78.0.0/16 does not lie in":                 {Name: "red", Subnet: netip.MustParsePrefix("10.78.0.0/16")},
		"--ipam-opt backend=host-gw: the network was made with": {Name: "red", Backend: "host-gw"},
		`backend "warp" is not supported`:                       {Name: "grey", Backend: "warp"},
		`network name "a/b"`:                                    {Name: "a/b"},
	} {
		if _, err := third.Acquire(t.Context(), req); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", req, err, says)
		}
	}
}

// TestNetworksAtOnce has twenty hosts begin six networks at once, two of each
// host's wish: each network is the same for all, and shares neither CIDR nor VNI
// with another.
func TestNetworksAtOnce(t *testing.T) {
	pool := func(o *overlay.Options) {
		o.Pool.IPv6Base, o.Pool.IPv6Bits = netip.MustParsePrefix("fd00:80::/40"), 56
	}
	_, store := realStore(t)
	names := []string{"", "red", "green", "grey", "amber", "olive"}
	var g errgroup.Group
	for i := range 20 {
		h := start(t, store, newDualBoard(fmt.Sprintf("192.0.2.%d", i+1), fmt.Sprintf("fd00:c0::%d", i+1)), t.TempDir(), dualStack(t), pool)
		for _, name := range []string{names[i%len(names)], names[(i+1)%len(names)]} {
			g.Go(func() error {
				_, err := h.Acquire(t.Context(), overlay.Request{Name: name})
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	all, err := store.Networks(t.Context())
	if err != nil || len(all) != len(names) {
		t.Fatalf("networks %v, %v", all, err)
	}
	seen := map[string]string{}
	for name, cfg := range all {
		var backend struct{ VNI int }
		if err := json.Unmarshal(cfg.Backend.Raw, &backend); err != nil {
			t.Fatal(err)
		}
		for _, own := range []string{cfg.Network.String(), cfg.IPv6Network.String(), fmt.Sprintf("VNI %d", backend.VNI)} {
			if other, taken := seen[own]; taken {
				t.Errorf("%q and %q both have %s", name, other, own)
			}
			seen[own] = name
		}
	}
	if got := all[""].Network.String() + " " + all[""].IPv6Network.String(); got != "10.5.0.0/16 fd00:5::/48" {
		t.Errorf("the default network is %s", got)
	}
	for _, want := range []string{"fd00:80::/56", "fd00:80:0:100::/56", "fd00:80:0:200::/56", "fd00:80:0:300::/56", "fd00:80:0:400::/56"} {
		if _, taken := seen[want]; !taken {
			t.Errorf("no network has %s: %v", want, seen)
		}
	}
}

// TestPoolAvoids takes from the pool what neither Docker, nor the host, nor the
// default network to come will have, and says so where nothing is left.
func TestPoolAvoids(t *testing.T) {
	for _, c := range []struct{ base, host, want string }{
		{"172.16.0.0/12", "", "172.16.0.0/16"},
		{"172.16.0.0/12", "172.16.9.0/24", "Docker takes subnets"},
		{"192.168.0.0/16", "", "Docker takes subnets"},
		{"10.4.0.0/15", "", "10.4.0.0/16"},
		{"10.4.0.0/15", "10.4.0.0/24", "no CIDR left for network red"},
		{"10.4.0.0/14", "10.4.0.0/24", "10.6.0.0/16"},
	} {
		_, store := realStore(t)
		b := newBoard("192.0.2.1")
		if c.host != "" {
			b.occupy(c.host)
		}
		h := start(t, store, b, t.TempDir(), func(o *overlay.Options) {
			o.Pool = overlay.Pool{Base: netip.MustParsePrefix(c.base), Bits: 16}
		})
		n, err := h.Acquire(t.Context(), overlay.Request{Name: "red"})
		if got := fmt.Sprint(n.CIDR, err); !strings.Contains(got, c.want) {
			t.Errorf("pool %s, host %s: %s, want %s", c.base, c.host, got, c.want)
		}
	}
}

// TestSubnetNamesNetwork joins, without a name, the network whose CIDR --subnet is.
func TestSubnetNamesNetwork(t *testing.T) {
	_, store := realStore(t)
	a := start(t, store, newBoard("192.0.2.1"), t.TempDir())
	b := start(t, store, newBoard("192.0.2.2"), t.TempDir())
	red := overlay.Request{Name: "red", Subnet: netip.MustParsePrefix("10.77.0.0/16")}
	if _, err := a.Acquire(t.Context(), red); err != nil {
		t.Fatal(err)
	}
	n, err := b.Acquire(t.Context(), overlay.Request{Subnet: red.Subnet})
	if err != nil || n.Name != "red" {
		t.Errorf("--subnet alone gives %+v, %v", n, err)
	}
	for subnet, says := range map[string]string{
		"10.77.7.0/24": "overlaps network red (10.77.0.0/16): give --ipam-opt network=red",
		"10.78.0.0/16": "does not lie in the flannel network 10.5.0.0/16",
	} {
		if _, err := b.Acquire(t.Context(), overlay.Request{Subnet: netip.MustParsePrefix(subnet)}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("--subnet %s: %v, want %q", subnet, err, says)
		}
	}
	if n, err := b.Acquire(t.Context(), overlay.Request{Subnet: netip.MustParsePrefix("10.5.9.0/24")}); err != nil || n.Name != "" || n.Subnet.String() != "10.5.9.0/24" {
		t.Errorf("a subnet of the default network: %+v, %v", n, err)
	}
	c := start(t, store, newBoard("192.0.2.3"), t.TempDir())
	c.board.occupy("10.79.3.0/24")
	if _, err := c.Acquire(t.Context(), overlay.Request{Name: "grey", Subnet: netip.MustParsePrefix("10.79.0.0/16")}); err == nil || !strings.Contains(err.Error(), "10.79.3.0/24") {
		t.Errorf("a CIDR that the host routes: %v", err)
	}
}

// TestCheckName names what is accepted.
func TestCheckName(t *testing.T) {
	for _, name := range []string{"red", "r", "1.2_3-4", strings.Repeat("x", 64)} {
		if err := overlay.CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "config", "subnets", "subnets-red", "a/b", "..", ".red", "-red", "red ", "röt", strings.Repeat("x", 65)} {
		if err := overlay.CheckName(name); err == nil || !strings.Contains(err.Error(), "are accepted") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
