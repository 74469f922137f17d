package vxlan

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

func mac(t testing.TB, text string) kernel.MAC {
	t.Helper()
	m, err := kernel.ParseMAC(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func self(t testing.TB, backend string) overlay.Self {
	t.Helper()
	return overlay.Self{
		Config: overlay.Config{
			Network: netip.MustParsePrefix("10.2.0.0/16"),
			Backend: overlay.BackendConfig{Type: Type, Raw: json.RawMessage(backend)},
		},
		Subnet: netip.MustParsePrefix("10.2.46.0/24"), MAC: mac(t, "f2:79:d1:59:ac:77"), Bridge: "fl-0123456789ab", MTU: 1450,
		Underlay: kernel.Underlay{
			Name: "eth0", Index: 2, MTU: 1500,
			Addr: netip.MustParseAddr("172.24.152.191"), PublicIP: netip.MustParseAddr("172.24.152.191"),
			Net: netip.MustParsePrefix("172.24.144.0/20"),
		},
	}
}

func lease(subnet, public, backend, data string) overlay.Lease {
	return overlay.Lease{
		Subnet: netip.MustParsePrefix(subnet), PublicIP: netip.MustParseAddr(public),
		BackendType: backend, BackendData: json.RawMessage(data),
	}
}

func TestPublish(t *testing.T) {
	for _, c := range []struct {
		backend, data string
		mtu           int
	}{
		{`{"Type":"vxlan"}`, `{"VNI":1,"VtepMAC":"f2:79:d1:59:ac:77"}`, 1500},
		{`{"Type":"vxlan","VNI":4096,"Port":4789,"MTU":1400}`, `{"VNI":4096,"VtepMAC":"f2:79:d1:59:ac:77"}`, 1400},
	} {
		pub, err := Backend{}.Publish(self(t, c.backend))
		if err != nil {
			t.Fatal(err)
		}
		if pub.Type != "vxlan" || string(pub.Data) != c.data || pub.MTU != c.mtu || pub.Overhead != 50 {
			t.Errorf("%s publishes %s %s, MTU %d less %d", c.backend, pub.Type, pub.Data, pub.MTU, pub.Overhead)
		}
	}
}

func TestPublishRefuses(t *testing.T) {
	for backend, says := range map[string]string{
		`{"VNI":0}`:                "VNI 0",
		`{"VNI":16777216}`:         "VNI 16777216",
		`{"Port":70000}`:           "port 70000",
		`{"Port":-1}`:              "port -1",
		`{"MTU":600}`:              "MTU 600",
		`{"MTU":9000}`:             "MTU 9000",
		`{"VNI":"one"}`:            "VNI",
		`{"Learning":{"deep":[]}}`: "Learning",
	} {
		if _, err := (Backend{}).Publish(self(t, backend)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one with %q", backend, err, says)
		}
	}
}

// TestPlan is the host of the seeds: its device, and the route to its peer.
func TestPlan(t *testing.T) {
	state, junk := Backend{}.Plan(self(t, `{"Type":"vxlan"}`), []overlay.Lease{
		lease("10.2.28.0/24", "172.24.152.190", "vxlan", `{"VNI":1,"VtepMAC":"5e:01:02:03:04:05"}`),
		lease("10.2.29.0/24", "172.24.152.192", "vxlan", `{"VtepMAC":"5e:01:02:03:04:06"}`),
	})
	if len(junk) != 0 {
		t.Errorf("skipped %v", junk)
	}
	want := `sysctl ipv6/conf/flannel.1/disable_ipv6 = 1
link flannel.1 vxlan id 1 port 8472 local 172.24.152.191 dev eth0 mac f2:79:d1:59:ac:77 mtu 1450
addr flannel.1 10.2.46.0/32
neigh flannel.1 10.2.28.0 5e:01:02:03:04:05
neigh flannel.1 10.2.29.0 5e:01:02:03:04:06
fdb flannel.1 5e:01:02:03:04:05 dst 172.24.152.190
fdb flannel.1 5e:01:02:03:04:06 dst 172.24.152.192
route 10.2.28.0/24 via 10.2.28.0 dev flannel.1 onlink
route 10.2.29.0/24 via 10.2.29.0 dev flannel.1 onlink
door udp 8472 vni 1
admit udp 8472 vni 1 from 172.24.152.190
admit udp 8472 vni 1 from 172.24.152.192
forward in fl-0123456789ab out flannel.1 src 10.2.46.0/24 dst 10.2.0.0/16
forward in flannel.1 out fl-0123456789ab src 10.2.0.0/16 dst 10.2.46.0/24
seal in br-* out eth0 udp 8472
seal in docker* out eth0 udp 8472
seal in fl-* out eth0 udp 8472
guard in flannel.1
guard out flannel.1
chain input type filter hook input priority -5 policy accept
uplink in eth0
seal in br-* udp 8472
seal in docker* udp 8472
seal in fl-* udp 8472`
	if got := strings.TrimSpace(state.String()); got != want {
		t.Errorf("plan:\n%s\nwant:\n%s", got, want)
	}
}

// dualSelf is self with an IPv6 half.
func dualSelf(t testing.TB, backend string) overlay.Self {
	t.Helper()
	s := self(t, backend)
	s.IPv6, s.Config.IPv6Network = true, netip.MustParsePrefix("fd00:5::/48")
	s.IPv6Subnet, s.IPv6MAC = netip.MustParsePrefix("fd00:5:0:2e::/64"), mac(t, "f2:79:d1:59:ac:66")
	addr := netip.MustParseAddr("fd00:c0::191")
	s.Underlay.IPv6 = kernel.Place{Addr: addr, PublicIP: addr, Net: netip.MustParsePrefix("fd00:c0::/64")}
	return s
}

func dualLease(subnet, six, public, public6, data, data6 string) overlay.Lease {
	l := lease(subnet, public, Type, data)
	l.IPv6Subnet, l.BackendV6Data = netip.MustParsePrefix(six), json.RawMessage(data6)
	l.PublicIPv6, _ = netip.ParseAddr(public6)
	return l
}

// TestDualStack: a device a family, each over its own family, as stock flannel's.
func TestDualStack(t *testing.T) {
	host := dualSelf(t, `{"Type":"vxlan"}`)
	pub, err := Backend{}.Publish(host)
	if err != nil || pub.NoIPv6 != nil || pub.Overhead != 70 || string(pub.Data) != `{"VNI":1,"VtepMAC":"f2:79:d1:59:ac:77"}` ||
		string(pub.IPv6Data) != `{"VNI":1,"VtepMAC":"f2:79:d1:59:ac:66"}` {
		t.Errorf("publishes %+v, %v", pub, err)
	}
	const four, six = `{"VNI":1,"VtepMAC":"5e:01:02:03:04:05"}`, `{"VNI":1,"VtepMAC":"5e:01:02:03:04:66"}`
	state, junk := Backend{}.Plan(host, []overlay.Lease{
		dualLease("10.2.28.0/24", "fd00:5:0:1c::/64", "172.24.152.190", "fd00:c0::190", four, six),
		lease("10.2.29.0/24", "172.24.152.192", "vxlan", `{"VtepMAC":"5e:01:02:03:04:06"}`),
	})
	if len(junk) != 0 {
		t.Errorf("skipped %v", junk)
	}
	want := `sysctl ipv6/conf/flannel-v6.1/accept_dad = 0
sysctl ipv6/conf/flannel-v6.1/accept_ra = 0
sysctl ipv6/conf/flannel-v6.1/disable_ipv6 = 0
sysctl ipv6/conf/flannel.1/disable_ipv6 = 1
link flannel-v6.1 vxlan id 1 port 8472 local fd00:c0::191 dev eth0 mac f2:79:d1:59:ac:66 mtu 1430
link flannel.1 vxlan id 1 port 8472 local 172.24.152.191 dev eth0 mac f2:79:d1:59:ac:77 mtu 1450
addr flannel-v6.1 fd00:5:0:2e::/128
addr flannel.1 10.2.46.0/32
neigh flannel-v6.1 fd00:5:0:1c:: 5e:01:02:03:04:66
neigh flannel.1 10.2.28.0 5e:01:02:03:04:05
neigh flannel.1 10.2.29.0 5e:01:02:03:04:06
fdb flannel-v6.1 5e:01:02:03:04:66 dst fd00:c0::190
fdb flannel.1 5e:01:02:03:04:05 dst 172.24.152.190
fdb flannel.1 5e:01:02:03:04:06 dst 172.24.152.192
route 10.2.28.0/24 via 10.2.28.0 dev flannel.1 onlink
route 10.2.29.0/24 via 10.2.29.0 dev flannel.1 onlink
route fd00:5:0:1c::/64 via fd00:5:0:1c:: dev flannel-v6.1 onlink
door udp 8472 vni 1
admit udp 8472 vni 1 from 172.24.152.190
admit udp 8472 vni 1 from 172.24.152.192
admit udp 8472 vni 1 from fd00:c0::190
forward in fl-0123456789ab out flannel-v6.1 src fd00:5:0:2e::/64 dst fd00:5::/48
forward in fl-0123456789ab out flannel.1 src 10.2.46.0/24 dst 10.2.0.0/16
forward in flannel-v6.1 out fl-0123456789ab src fd00:5::/48 dst fd00:5:0:2e::/64
forward in flannel.1 out fl-0123456789ab src 10.2.0.0/16 dst 10.2.46.0/24
seal in br-* out eth0 udp 8472
seal in docker* out eth0 udp 8472
seal in fl-* out eth0 udp 8472
guard in flannel-v6.1
guard in flannel.1
guard out flannel-v6.1
guard out flannel.1
chain input type filter hook input priority -5 policy accept
uplink in eth0
seal in br-* udp 8472
seal in docker* udp 8472
seal in fl-* udp 8472`
	if got := strings.TrimSpace(state.String()); got != want {
		t.Errorf("plan:\n%s\nwant:\n%s", got, want)
	}
	host = dualSelf(t, `{"Type":"vxlan","DirectRouting":true}`)
	state, junk = Backend{}.Plan(host, []overlay.Lease{
		dualLease("10.2.28.0/24", "fd00:5:0:1c::/64", "172.24.152.190", "fd00:c0::190", four, six),
		dualLease("10.2.30.0/24", "fd00:5:0:1e::/64", "172.24.152.193", "", four, six),
		dualLease("10.2.31.0/24", "fd00:5:0:1f::/64", "172.24.152.194", "fd00:c0::194", `{"VNI":1,"VtepMAC":"5e:01:02:03:04:08"}`, `{"VNI":2}`),
	})
	if text := state.String(); !strings.Contains(text, "route fd00:5:0:1c::/64 via fd00:c0::190 dev eth0 src fd00:5:0:2e::1\n") ||
		!strings.Contains(text, "forward in eth0 out fl-0123456789ab src fd00:5::/48 dst fd00:5:0:2e::/64\n") {
		t.Errorf("plan:\n%s", text)
	}
	if len(junk) != 2 || !strings.Contains(junk[0].Reason, "fd00:5:0:1e::/64 names no PublicIPv6") || !strings.Contains(junk[1].Reason, "VNI 2") {
		t.Errorf("skipped %v", junk)
	}
}

// TestTxSum: the device does with checksums as it is told.
func TestTxSum(t *testing.T) {
	host := self(t, `{"Type":"vxlan"}`)
	host.TxSum = kernel.Off
	if state, _ := (Backend{}).Plan(host, nil); state.Links[0].TxSum != kernel.Off {
		t.Errorf("plan:\n%s", state)
	}
}

// TestDirectRouting: a peer on the same layer-2 network gets a plain route.
func TestDirectRouting(t *testing.T) {
	state, junk := Backend{}.Plan(self(t, `{"Type":"vxlan","DirectRouting":true}`), []overlay.Lease{
		lease("10.2.28.0/24", "172.24.152.190", "vxlan", `{"VNI":1,"VtepMAC":"5e:01:02:03:04:05"}`),
		lease("10.2.29.0/24", "172.25.0.1", "vxlan", `{"VNI":1,"VtepMAC":"5e:01:02:03:04:06"}`),
	})
	if len(junk) != 0 {
		t.Errorf("skipped %v", junk)
	}
	text := state.String()
	for _, line := range []string{
		"route 10.2.28.0/24 via 172.24.152.190 dev eth0 src 10.2.46.1\n",
		"route 10.2.29.0/24 via 10.2.29.0 dev flannel.1 onlink\n",
		"fdb flannel.1 5e:01:02:03:04:06 dst 172.25.0.1\n",
		"forward in fl-0123456789ab out eth0 src 10.2.46.0/24 dst 10.2.0.0/16\n",
		"forward in eth0 out fl-0123456789ab src 10.2.0.0/16 dst 10.2.46.0/24\n",
		"closed 10.2.0.0/16\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("plan lacks %q:\n%s", line, text)
		}
	}
	if strings.Contains(text, "5e:01:02:03:04:05") {
		t.Errorf("the direct peer is in the device's tables:\n%s", text)
	}
}

func TestPlanSkips(t *testing.T) {
	good := lease("10.2.28.0/24", "172.24.152.190", "vxlan", `{"VNI":1,"VtepMAC":"5e:01:02:03:04:05"}`)
	for says, bad := range map[string]overlay.Lease{
		`backend "host-gw"`: lease("10.2.30.0/24", "172.24.152.193", "host-gw", ``),
		`backend ""`:        lease("10.2.30.0/24", "172.24.152.193", "", ``),
		"BackendData":       lease("10.2.30.0/24", "172.24.152.193", "vxlan", `{"VtepMAC":"zz"}`),
		"BackendData ":      lease("10.2.30.0/24", "172.24.152.193", "vxlan", ``),
		"VNI 2":             lease("10.2.30.0/24", "172.24.152.193", "vxlan", `{"VNI":2,"VtepMAC":"5e:01:02:03:04:07"}`),
		"unicast":           lease("10.2.30.0/24", "172.24.152.193", "vxlan", `{"VNI":1}`),
		"not a unicast":     lease("10.2.30.0/24", "172.24.152.193", "vxlan", `{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}`),
		"172.24.152.190's":  lease("10.2.30.0/24", "172.24.152.193", "vxlan", `{"VNI":1,"VtepMAC":"5e:01:02:03:04:05"}`),
		"172.24.152.191's":  lease("10.2.30.0/24", "172.24.152.193", "vxlan", `{"VNI":1,"VtepMAC":"f2:79:d1:59:ac:77"}`),
	} {
		state, junk := Backend{}.Plan(self(t, `{}`), []overlay.Lease{good, bad})
		if len(junk) != 1 || !strings.Contains(junk[0].Reason, says) {
			t.Errorf("%s: skipped %v", says, junk)
		}
		if len(state.Routes) != 1 || state.Routes[0].Dst != good.Subnet {
			t.Errorf("%s: routes %v", says, state.Routes)
		}
	}
}

func FuzzVtep(f *testing.F) {
	f.Add(`{"VNI":1,"VtepMAC":"5e:01:02:03:04:05"}`)
	f.Add(`{"VNI":-1,"VtepMAC":null}`)
	f.Add(``)
	f.Fuzz(func(t *testing.T, data string) {
		peer := overlay.Peer{Subnet: netip.MustParsePrefix("10.2.30.0/24"), PublicIP: netip.MustParseAddr("172.24.152.193"), Data: json.RawMessage(data)}
		m, err := vtep(params{VNI: 1}, Type, peer, map[kernel.MAC]netip.Addr{})
		if err == nil && (m.IsZero() || m[0]&1 != 0) {
			t.Errorf("%q gives %s", data, m)
		}
	})
}

// FuzzPlan reads any Backend object and any lease: what is published can be
// planned, and a peer is either reached or skipped with a reason.
func FuzzPlan(f *testing.F) {
	f.Add(`{"Type":"vxlan"}`, `{"VNI":1,"VtepMAC":"5e:01:02:03:04:05"}`)
	f.Add(`{"VNI":4096,"Port":4789,"GBP":true,"DirectRouting":true,"MTU":1400}`, `{"VNI":4096,"VtepMAC":"5e:01:02:03:04:05"}`)
	f.Add(`{"VNI":0}`, `{}`)
	f.Add(`{"MTU":-1}`, `null`)
	f.Add(``, ``)
	f.Fuzz(func(t *testing.T, backend, data string) {
		here := self(t, backend)
		pub, err := Backend{}.Publish(here)
		state, junk := Backend{}.Plan(here, []overlay.Lease{lease("10.2.30.0/24", "172.24.152.190", Type, data)})
		if err != nil {
			if !strings.Contains(err.Error(), "config") && !strings.Contains(err.Error(), "MTU") {
				t.Error(err)
			}
			return
		}
		if len(state.Routes)+len(junk) != 1 || len(state.Links) != 1 || state.Links[0].MTU != pub.MTU-pub.Overhead || pub.MTU < minMTU {
			t.Errorf("%q, %q: %+v, %v\n%s", backend, data, pub, junk, state)
		}
	})
}
