package udp

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

func place(backend string) overlay.Self {
	addr := netip.MustParseAddr("192.0.2.1")
	cfg := overlay.Config{Network: netip.MustParsePrefix("10.5.0.0/16")}
	cfg.Backend.Raw = []byte(backend)
	return overlay.Self{
		Config: cfg, Subnet: netip.MustParsePrefix("10.5.7.0/24"), Bridge: "fl-0123456789ab",
		Underlay: kernel.Underlay{Name: "eth0", Index: 2, MTU: 1500, Addr: addr, PublicIP: addr},
	}
}

func held(subnet, host, backend string) overlay.Lease {
	return overlay.Lease{Subnet: netip.MustParsePrefix(subnet), PublicIP: netip.MustParseAddr(host), BackendType: backend}
}

func TestPublish(t *testing.T) {
	pub, err := Backend{}.Publish(place(""))
	if err != nil || pub.Type != "" || pub.Data != nil || pub.MTU != 1500 || pub.Overhead != 28 {
		t.Errorf("%+v, %v", pub, err)
	}
	six := place("")
	six.Underlay.Addr = netip.MustParseAddr("fd00::1")
	for name, self := range map[string]overlay.Self{
		"port 70000 is outside 1-65535": place(`{"Port":70000}`),
		"read the config's Backend":     place(`{"Port":"x"}`),
		"fd00::1 of interface eth0":     six,
	} {
		if _, err := (Backend{}).Publish(self); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want %q", err, name)
		}
	}
}

// TestSegments: what a container sends at once leaves as one message.
func TestSegments(t *testing.T) {
	for mtu, want := range map[int]int{
		1472:  44, // of 1500
		8972:  7,  // of 9000
		1000:  64, // where the kernel's limit is the smaller one
		40000: 1,
		0:     64, // of a state file that lacks it
	} {
		got := Backend{}.Segments(mtu)
		if got != want || got > 1 && got*mtu > maxDatagram {
			t.Errorf("MTU %d: %d segments, want %d", mtu, got, want)
		}
	}
}

func TestPlan(t *testing.T) {
	state, junk := Backend{}.Plan(place(""), []overlay.Lease{
		held("10.5.9.0/24", "192.0.2.2", ""),
		held("10.5.10.0/24", "192.0.2.3", "udp"),
		held("10.5.11.0/24", "192.0.2.4", "vxlan"),
		held("10.5.12.0/24", "fd00::5", ""),
	})
	want := `sysctl ipv4/conf/flannel0/accept_local = 1
sysctl ipv6/conf/flannel0/disable_ipv6 = 1
link flannel0 tun mtu 1472
addr flannel0 10.5.7.0/32
route 10.5.0.0/16 dev flannel0
door udp 8285
admit udp 8285 from 192.0.2.2
admit udp 8285 from 192.0.2.3
forward in fl-0123456789ab out flannel0 src 10.5.7.0/24 dst 10.5.0.0/16
forward in flannel0 out fl-0123456789ab src 10.5.0.0/16 dst 10.5.7.0/24
seal in br-* out eth0 udp 8285
seal in docker* out eth0 udp 8285
seal in fl-* out eth0 udp 8285
guard in flannel0
guard out flannel0
chain input type filter hook input priority -5 policy accept
uplink in eth0
seal in br-* udp 8285
seal in docker* udp 8285
seal in fl-* udp 8285`
	if got := strings.TrimSpace(state.String()); got != want {
		t.Errorf("plan:\n%s\nwant:\n%s", got, want)
	}
	if len(junk) != 2 || !strings.Contains(junk[0].Reason, `192.0.2.4 uses backend "vxlan", this host "udp"`) || !strings.Contains(junk[1].Reason, "fd00::5 is not IPv4") {
		t.Errorf("skipped %v", junk)
	}
	other, _ := Backend{}.Plan(place(`{"Type":"udp","Port":9000}`), nil)
	if other.Links[0].Name != "flannel9000" {
		t.Errorf("device %s", other.Links[0].Name)
	}
}

// TestDualStack: one device carries both families, over IPv4.
func TestDualStack(t *testing.T) {
	self := place("")
	self.IPv6, self.Config.IPv6Network, self.IPv6Subnet = true, netip.MustParsePrefix("fd00:5::/48"), netip.MustParsePrefix("fd00:5:0:7::/64")
	if pub, err := (Backend{}).Publish(self); err != nil || pub.NoIPv6 != nil || pub.Overhead != 28 {
		t.Errorf("%+v, %v", pub, err)
	}
	state, junk := Backend{}.Plan(self, nil)
	want := `sysctl ipv4/conf/flannel0/accept_local = 1
sysctl ipv6/conf/flannel0/accept_dad = 0
sysctl ipv6/conf/flannel0/accept_ra = 0
sysctl ipv6/conf/flannel0/disable_ipv6 = 0
link flannel0 tun mtu 1472
addr flannel0 10.5.7.0/32
addr flannel0 fd00:5:0:7::/128
route 10.5.0.0/16 dev flannel0
route fd00:5::/48 dev flannel0
door udp 8285
forward in fl-0123456789ab out flannel0 src 10.5.7.0/24 dst 10.5.0.0/16
forward in fl-0123456789ab out flannel0 src fd00:5:0:7::/64 dst fd00:5::/48
forward in flannel0 out fl-0123456789ab src 10.5.0.0/16 dst 10.5.7.0/24
forward in flannel0 out fl-0123456789ab src fd00:5::/48 dst fd00:5:0:7::/64
seal in br-* out eth0 udp 8285
seal in docker* out eth0 udp 8285
seal in fl-* out eth0 udp 8285
guard in flannel0
guard out flannel0
chain input type filter hook input priority -5 policy accept
uplink in eth0
seal in br-* udp 8285
seal in docker* udp 8285
seal in fl-* udp 8285`
	if got := strings.TrimSpace(state.String()); got != want || len(junk) != 0 {
		t.Errorf("plan:\n%s\nwant:\n%s\nskipped %v", got, want, junk)
	}
}

// FuzzPlan reads any Backend object: what is published can be planned.
func FuzzPlan(f *testing.F) {
	f.Add(`{"Type":"udp","Port":8285}`, "")
	f.Add(`{"Port":65536}`, "udp")
	f.Add(`{"Port":0}`, "vxlan")
	f.Add(``, "")
	f.Fuzz(func(t *testing.T, backend, kind string) {
		_, err := Backend{}.Publish(place(backend))
		state, junk := Backend{}.Plan(place(backend), []overlay.Lease{held("10.5.9.0/24", "192.0.2.2", kind)})
		if err != nil {
			if !strings.Contains(err.Error(), "config") {
				t.Error(err)
			}
			return
		}
		if len(state.Links) != 1 || len(state.Links[0].Name) > 15 || (len(junk) == 0) != (kind == "" || kind == Type) {
			t.Errorf("%q: %v\n%s", backend, junk, state)
		}
	})
}
