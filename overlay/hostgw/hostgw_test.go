package hostgw

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

func self() overlay.Self {
	addr := netip.MustParseAddr("192.0.2.1")
	return overlay.Self{
		Config: overlay.Config{Network: netip.MustParsePrefix("10.5.0.0/16")},
		Subnet: netip.MustParsePrefix("10.5.7.0/24"), Bridge: "fl-0123456789ab",
		Underlay: kernel.Underlay{Name: "eth0", Index: 2, MTU: 1500, Addr: addr, PublicIP: addr, Net: netip.MustParsePrefix("192.0.2.0/24")},
	}
}

func lease(subnet, host, backend string) overlay.Lease {
	return overlay.Lease{Subnet: netip.MustParsePrefix(subnet), PublicIP: netip.MustParseAddr(host), BackendType: backend}
}

func TestPublish(t *testing.T) {
	pub, err := Backend{}.Publish(self())
	if err != nil || pub.Type != "host-gw" || pub.Data != nil || pub.MTU != 1500 || pub.Overhead != 0 {
		t.Errorf("%+v, %v", pub, err)
	}
	behind := self()
	behind.Underlay.PublicIP = netip.MustParseAddr("203.0.113.5")
	if _, err := (Backend{}).Publish(behind); err == nil || !strings.Contains(err.Error(), "203.0.113.5") || !strings.Contains(err.Error(), "PUBLIC_IP") {
		t.Errorf("a NAT's address: %v", err)
	}
}

func TestDualStack(t *testing.T) {
	host, six := self(), netip.MustParseAddr("fd00:c0::1")
	host.IPv6, host.Config.IPv6Network, host.IPv6Subnet = true, netip.MustParsePrefix("fd00:5::/48"), netip.MustParsePrefix("fd00:5:0:7::/64")
	host.Underlay.IPv6 = kernel.Place{Addr: six, PublicIP: six, Net: netip.MustParsePrefix("fd00:c0::/64")}
	if pub, err := (Backend{}).Publish(host); err != nil || pub.NoIPv6 != nil || pub.Overhead != 0 {
		t.Errorf("%+v, %v", pub, err)
	}
	near, far := lease("10.5.9.0/24", "192.0.2.2", "host-gw"), lease("10.5.10.0/24", "192.0.2.3", "host-gw")
	near.IPv6Subnet, near.PublicIPv6 = netip.MustParsePrefix("fd00:5:0:9::/64"), netip.MustParseAddr("fd00:c0::2")
	far.IPv6Subnet, far.PublicIPv6 = netip.MustParsePrefix("fd00:5:0:a::/64"), netip.MustParseAddr("fd00:c1::3")
	state, junk := Backend{}.Plan(host, []overlay.Lease{near, far, lease("10.5.11.0/24", "192.0.2.4", "host-gw")})
	want := `route 10.5.10.0/24 via 192.0.2.3 dev eth0 src 10.5.7.1
route 10.5.11.0/24 via 192.0.2.4 dev eth0 src 10.5.7.1
route 10.5.9.0/24 via 192.0.2.2 dev eth0 src 10.5.7.1
route fd00:5:0:9::/64 via fd00:c0::2 dev eth0 src fd00:5:0:7::1
forward in eth0 out fl-0123456789ab src 10.5.0.0/16 dst 10.5.7.0/24
forward in eth0 out fl-0123456789ab src fd00:5::/48 dst fd00:5:0:7::/64
forward in fl-0123456789ab out eth0 src 10.5.7.0/24 dst 10.5.0.0/16
forward in fl-0123456789ab out eth0 src fd00:5:0:7::/64 dst fd00:5::/48
closed 10.5.0.0/16
closed fd00:5::/48`
	if got := strings.TrimSpace(state.String()); got != want {
		t.Errorf("plan:\n%s\nwant:\n%s", got, want)
	}
	if len(junk) != 1 || !strings.Contains(junk[0].Reason, "layer-2 network fd00:c0::/64") {
		t.Errorf("skipped %v", junk)
	}
	host.Underlay.IPv6.PublicIP = netip.MustParseAddr("2001:db8::5")
	if pub, err := (Backend{}).Publish(host); err != nil || pub.NoIPv6 == nil || !strings.Contains(pub.NoIPv6.Error(), "PUBLIC_IPV6") {
		t.Errorf("a NAT's address: %+v, %v", pub, err)
	}
}

func TestPlan(t *testing.T) {
	state, junk := Backend{}.Plan(self(), []overlay.Lease{
		lease("10.5.9.0/24", "192.0.2.2", "host-gw"),
		lease("10.5.10.0/24", "203.0.113.9", "host-gw"),
		lease("10.5.11.0/24", "192.0.2.3", "vxlan"),
	})
	want := `route 10.5.9.0/24 via 192.0.2.2 dev eth0 src 10.5.7.1
forward in eth0 out fl-0123456789ab src 10.5.0.0/16 dst 10.5.7.0/24
forward in fl-0123456789ab out eth0 src 10.5.7.0/24 dst 10.5.0.0/16
closed 10.5.0.0/16`
	if got := strings.TrimSpace(state.String()); got != want {
		t.Errorf("plan:\n%s\nwant:\n%s", got, want)
	}
	if len(junk) != 2 || !strings.Contains(junk[0].Reason, "layer-2 network 192.0.2.0/24") || !strings.Contains(junk[1].Reason, `backend "vxlan"`) {
		t.Errorf("skipped %v", junk)
	}
}
