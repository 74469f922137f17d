package kernel

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	testLinks = []linkInfo{
		{index: 1, name: "lo", loopback: true, mtu: 65536},
		{index: 2, name: "eth0", mtu: 1500},
		{index: 3, name: "eth1", mtu: 9000},
		{index: 4, name: "docker0", kind: "bridge", mtu: 1500},
		{index: 5, name: "fl-blue", kind: "bridge", mtu: 1450, alias: Alias},
		{index: 6, name: "wg0", mtu: 1420},
	}
	testAddrs = []addrInfo{
		{index: 1, prefix: prefix("127.0.0.1/8"), flags: unix.IFA_F_PERMANENT, scope: unix.RT_SCOPE_HOST},
		{index: 2, prefix: prefix("192.0.2.9/32"), flags: unix.IFA_F_PERMANENT, scope: unix.RT_SCOPE_LINK},
		{index: 2, prefix: prefix("192.0.2.7/24")}, // by DHCP
		{index: 2, prefix: prefix("fe80::1/64"), flags: unix.IFA_F_PERMANENT, scope: unix.RT_SCOPE_LINK},
		{index: 2, prefix: prefix("2001:db8::7/64"), flags: unix.IFA_F_PERMANENT},
		{index: 3, prefix: prefix("10.0.0.2/24"), flags: unix.IFA_F_PERMANENT | unix.IFA_F_SECONDARY},
		{index: 3, prefix: prefix("10.0.0.1/24"), flags: unix.IFA_F_PERMANENT},
		{index: 4, prefix: prefix("172.17.0.1/16"), flags: unix.IFA_F_PERMANENT},
		{index: 5, prefix: prefix("10.5.7.1/24"), flags: unix.IFA_F_PERMANENT},
	}
	testRoutes = []routeInfo{
		{dst: prefix("::/0"), index: 2, metric: 1, kind: unix.RTN_UNICAST},
		{dst: prefix("0.0.0.0/0"), index: 3, metric: 200, kind: unix.RTN_UNICAST},
		{dst: prefix("0.0.0.0/0"), index: 2, metric: 100, kind: unix.RTN_UNICAST, via: ip("192.0.2.1"), protocol: unix.RTPROT_DHCP},
		{dst: prefix("10.0.0.0/24"), index: 3, kind: unix.RTN_UNICAST, protocol: unix.RTPROT_KERNEL},
		{dst: prefix("10.96.0.0/12"), index: 3, kind: unix.RTN_UNICAST, via: ip("10.0.0.3"), metric: 20, protocol: unix.RTPROT_STATIC},
		{dst: prefix("10.5.7.0/24"), index: 5, kind: unix.RTN_UNICAST, protocol: unix.RTPROT_KERNEL},
		{dst: prefix("10.5.8.0/24"), index: 3, kind: unix.RTN_UNICAST, via: ip("10.0.0.3"), protocol: RouteProtocol},
		{dst: prefix("10.66.0.0/16"), kind: unix.RTN_BLACKHOLE, protocol: unix.RTPROT_BOOT},
	}
)

func TestChooseUnderlay(t *testing.T) {
	for _, c := range []struct {
		name, iface, public string
		want                string // name, index, MTU, address and public IP; or part of the error
	}{
		{"default route", "", "", "eth0 2 1500 192.0.2.7 192.0.2.7"},
		{"owner of the public IP", "", "10.0.0.1", "eth1 3 9000 10.0.0.1 10.0.0.1"},
		{"public IP is a secondary", "", "10.0.0.2", "eth1 3 9000 10.0.0.2 10.0.0.2"},
		{"public IP of IPv6", "", "2001:db8::7", "eth0 2 1500 2001:db8::7 2001:db8::7"},
		{"public IP of a NAT", "", "198.51.100.1", "no interface has the address 198.51.100.1; behind a NAT the interface must be named; there are eth0 192.0.2.9 192.0.2.7 2001:db8::7, eth1 10.0.0.2 10.0.0.1, docker0 172.17.0.1"},
		{"public IP of a NAT, named", "eth1", "198.51.100.1", "eth1 3 9000 10.0.0.1 198.51.100.1"},
		{"name", "eth1", "", "eth1 3 9000 10.0.0.1 10.0.0.1"},
		{"expression on the name", "^e.*1$", "", "eth1 3 9000 10.0.0.1 10.0.0.1"},
		{"expression on the address", `^10\.`, "", "eth1 3 9000 10.0.0.1 10.0.0.1"},
		{"never ours nor loopback", "10.5.7|127|fl-", "", "no interface has a name or an address that matches"},
		{"no match", "ens3", "", "no interface has a name or an address that matches \"ens3\"; there are eth0"},
		{"not an expression", "e(", "", "no regular expression"},
		{"no address", "wg0", "", "interface wg0 has no address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := UnderlaySpec{Iface: c.iface}
			if c.public != "" {
				spec.PublicIP = netip.MustParseAddr(c.public)
			}
			got, err := chooseUnderlay(spec, testLinks, testAddrs, testRoutes)
			text := fmt.Sprint(got.Name, " ", got.Index, got.MTU, got.Addr, got.PublicIP)
			if err != nil {
				text = err.Error()
			}
			if !strings.Contains(text, c.want) {
				t.Errorf("got %q, want %q", text, c.want)
			}
		})
	}
	if _, err := chooseUnderlay(UnderlaySpec{}, testLinks, testAddrs, nil); err == nil || !strings.Contains(err.Error(), "no default route") {
		t.Errorf("without a default route: %v", err)
	}
}

// The IPv6 half is the chosen interface's own, or what is asked for.
func TestChooseIPv6(t *testing.T) {
	for _, c := range []struct{ iface, public, six, want string }{
		{"eth0", "", "", "2001:db8::7 2001:db8::7 2001:db8::/64"},
		{"eth0", "", "2001:db8:9::1", "2001:db8::7 2001:db8:9::1 2001:db8::/64"},
		{"eth1", "", "", "invalid IP invalid IP invalid Prefix"},
		{"eth0", "2001:db8::7", "", "invalid IP invalid IP invalid Prefix"},
	} {
		spec := UnderlaySpec{Iface: c.iface}
		spec.PublicIP, _ = netip.ParseAddr(c.public)
		spec.PublicIPv6, _ = netip.ParseAddr(c.six)
		got, err := chooseUnderlay(spec, testLinks, testAddrs, testRoutes)
		if text := fmt.Sprint(got.IPv6.Addr, " ", got.IPv6.PublicIP, " ", got.IPv6.Net); err != nil || text != c.want {
			t.Errorf("%+v: got %s, %v", c, text, err)
		}
	}
}

func TestOverlap(t *testing.T) {
	for p, want := range map[string]string{
		"10.5.0.0/16":    "",
		"10.0.0.128/25":  "route 10.0.0.0/24 proto kernel dev eth1",
		"10.100.0.0/16":  "route 10.96.0.0/12 via 10.0.0.3 metric 20 proto static dev eth1",
		"10.66.7.0/24":   "route type 6 10.66.0.0/16 proto boot",
		"203.0.113.0/24": "",
		"fd00::/64":      "",
	} {
		if got := overlap(prefix(p), testRoutes, testLinks); got != want {
			t.Errorf("%s: got %q, want %q", p, got, want)
		}
	}
}

// FuzzUnderlay wants that any interface setting finds an interface that is
// neither ours nor loopback, unless it is named, or is refused with the choice.
func FuzzUnderlay(f *testing.F) {
	f.Add("eth1", "")
	f.Add("^e.*1$", "10.0.0.1")
	f.Add("e(", "")
	f.Add("", "2001:db8::7")
	f.Add("(?i)WG|.*", "198.51.100.1")
	f.Fuzz(func(t *testing.T, iface, public string) {
		spec := UnderlaySpec{Iface: iface}
		spec.PublicIP, _ = netip.ParseAddr(public)
		got, err := chooseUnderlay(spec, testLinks, testAddrs, testRoutes)
		switch {
		case err != nil:
			if !strings.Contains(err.Error(), "there are eth0") {
				t.Errorf("%q %q: %v", iface, public, err)
			}
		case !got.Addr.IsValid() || !got.PublicIP.IsValid():
			t.Errorf("%q %q: %+v", iface, public, got)
		case (got.Name == "lo" || got.Name == "fl-blue") && got.Name != iface && !spec.PublicIP.IsValid():
			t.Errorf("%q %q: %+v", iface, public, got)
		}
	})
}
