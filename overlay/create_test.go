package overlay_test

import (
	"net/netip"
	"strings"
	"testing"

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
