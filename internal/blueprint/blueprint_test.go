package blueprint

import (
	"net/netip"
	"testing"
)

func TestDiffers(t *testing.T) {
	base := Network{Name: "blue", Flannel: "red", Options: map[string]string{"mtu": "1400"}}
	for _, c := range []struct {
		name string
		edit func(*Network)
		want string
	}{
		{"the same", func(*Network) {}, ""},
		{"named otherwise", func(n *Network) {
			n.Subnets, n.IPAM, n.Labels = []netip.Prefix{netip.MustParsePrefix("10.6.0.0/16")}, map[string]string{"network": "red"}, map[string]string{"a": "b"}
		}, ""},
		{"another flannel network", func(n *Network) { n.Flannel = "" }, "flannel network is red here and the default one there"},
		{"another option", func(n *Network) { n.Options = map[string]string{"mtu": "1300"} }, "-o mtu is 1400 here and 1300 there"},
		{"more and less options", func(n *Network) { n.Options = map[string]string{"x": "1"} }, "-o mtu is 1400 here and absent there; -o x is absent here and 1 there"},
		{"flags", func(n *Network) { n.Internal, n.Attachable, n.IPv6 = true, true, true },
			"--internal is false here and true there; --attachable is false here and true there; --ipv6 is false here and true there"},
	} {
		there := base
		c.edit(&there)
		if got := Differs(base, there); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
