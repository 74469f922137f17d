package overlay

import (
	"encoding/json"
	"net/netip"
	"testing"
)

func TestIPv6Subnets(t *testing.T) {
	for _, c := range []struct {
		network string
		bits    int
		count   int
		first   string
		at      int
		subnet  string
	}{
		{"fd00:5::/48", 0, 65535, "fd00:5:0:1::/64", 255, "fd00:5:0:100::/64"},
		{"fd00:5::/62", 0, 3, "fd00:5:0:1::/64", 2, "fd00:5:0:3::/64"},
		{"fd00:5::/32", 48, 65535, "fd00:5:1::/48", 65534, "fd00:5:ffff::/48"},
		{"fd00:5::/96", 112, 65535, "fd00:5::1:0/112", 1, "fd00:5::2:0/112"},
		{"fd00:5::/56", 72, 65535, "fd00:5:0:0:100::/72", 255, "fd00:5:0:1::/72"},
		{"fd00:5::/124", 0, 3, "fd00:5::4/126", 1, "fd00:5::8/126"},
		{"fd00::/8", 64, 1 << 30, "fd00:0:0:1::/64", 1 << 16, "fd00:0:1:1::/64"},
	} {
		raw, err := json.Marshal(configJSON{EnableIPv6: true, Network: "10.5.0.0/16", IPv6Network: c.network, IPv6SubnetLen: c.bits})
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := ParseConfig(raw)
		if err != nil {
			t.Fatal(err)
		}
		if n, first, at := cfg.CountIPv6(), cfg.IPv6Subnet(0), cfg.IPv6Subnet(c.at); n != c.count || first.String() != c.first || at.String() != c.subnet {
			t.Errorf("%s: %d subnets, the first is %s, number %d is %s", c.network, n, first, c.at, at)
		}
		if last := cfg.IPv6Subnet(c.count - 1); cfg.Fits(last) != nil {
			t.Errorf("%s: the last is %s: %v", c.network, last, cfg.Fits(last))
		}
	}
}

func TestAddDualStack(t *testing.T) {
	four, err := NewConfig(netip.MustParsePrefix("10.5.0.0/16"), 24, []byte(`{"Type":"vxlan"}`))
	if err != nil {
		t.Fatal(err)
	}
	both, err := DualStack(four, netip.MustParsePrefix("fd00:5::/48"))
	want := `{"EnableIPv6":true,"Network":"10.5.0.0/16","IPv6Network":"fd00:5::/48","SubnetLen":24,"Backend":{"Type":"vxlan"}}`
	if err != nil || string(both) != want {
		t.Errorf("config %s, %v", both, err)
	}
	if _, err := DualStack(four, netip.MustParsePrefix("fd00:5::/125")); err == nil {
		t.Error("a network without room was taken")
	}
}
