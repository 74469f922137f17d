package page

import (
	"net/netip"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

// hostile is a key that somebody put into etcd.
const hostile = `/coreos.com/network/subnets/<script>window.hacked=1</script><img src=x onerror="window.hacked=1">`

// cluster is a view of n other hosts, with something of everything.
func cluster(n int, now time.Time) View {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	stamp := func(d time.Duration) string { return ago(d).Format(time.RFC3339Nano) }
	blue := report.Network{
		CIDR: netip.MustParsePrefix("10.5.0.0/16"), Backend: "vxlan", Subnet: netip.MustParsePrefix("10.5.19.0/24"), MTU: 1450,
		Interface: "eth0", PublicIP: netip.MustParseAddr("192.0.2.1"), DockerID: "d67d0e0c5479", Bridge: "fl-d67d0e0c5479", Device: "flannel.1",
		Lease:  report.Lease{State: report.Held, Since: ago(50 * time.Hour), Renewed: ago(11 * time.Minute), Renewals: 49, TTL: 24 * time.Hour},
		Leases: n + 1, Ports: make([]report.Port, 41), Used: &report.Addresses{Used: 41, Free: 212},
		Skipped: []report.Skipped{{Key: hostile, Reason: "not a subnet", Since: ago(26 * time.Minute)}},
	}
	for i := range n {
		blue.Peers = append(blue.Peers, other(i, now))
	}
	red := report.Network{
		Name: "red", CIDR: netip.MustParsePrefix("10.128.0.0/16"), Backend: "host-gw", Subnet: netip.MustParsePrefix("10.128.4.0/24"), MTU: 1500,
		Interface: "eth0", PublicIP: blue.PublicIP, DockerID: "77ab01fe2c90", Bridge: "fl-77ab01fe2c90", Device: "fl-77ab01fe2c90",
		Lease:  report.Lease{State: report.Held, Since: ago(3 * time.Hour), Renewed: ago(7 * time.Minute), Renewals: 3, TTL: 24 * time.Hour},
		Leases: 2, Ports: make([]report.Port, 3), Used: &report.Addresses{Used: 3, Free: 250},
		Peers: []report.Peer{{Subnet: netip.MustParsePrefix("10.128.9.0/24"), PublicIP: netip.MustParseAddr("192.0.2.3"), Backend: "host-gw"}},
	}
	return View{
		Now: now,
		Status: report.Status{
			Build: report.Build{Version: "v1.0.0"},
			Notes: []report.Finding{{Text: "1 of etcd's entries for the default network cannot be used", Next: "docker flannel status lists them"}},
			Store: report.Store{Endpoints: []string{"http://192.0.2.254:2379"}, Asked: true, Connected: true, Since: ago(50 * time.Hour)},
			Host: report.Host{
				Interface: "eth0", PublicIP: blue.PublicIP,
				Loop:     report.Loop{Started: ago(50 * time.Hour), Passed: ago(time.Second), Passes: 6120, Took: 420 * time.Microsecond, Repairs: []report.Repair{{Kind: "route", Count: 2, Last: ago(4 * time.Minute)}, {Kind: "rule", Count: 1, Last: ago(90 * time.Minute)}}},
				Networks: []report.Network{blue, red},
			},
		},
		Events: Events([]string{
			"time=" + stamp(50*time.Hour) + ` level=INFO msg=serving sockets="[/run/docker/plugins/flannel.sock /host/plugins/flannel.sock]"`,
			"time=" + stamp(26*time.Minute) + ` level=WARN msg="the store holds what this host cannot use" network="the default network" key="/coreos.com/network/subnets/<script>window.hacked=1</script>…" reason="not a subnet"`,
			"time=" + stamp(9*time.Minute) + ` level=INFO msg="hosts came" network="the default network" count=1 hosts="[10.5.22.0/24 at 192.0.2.4]"`,
			"time=" + stamp(4*time.Minute) + ` level=INFO msg="repaired what others changed" kind=route count=2`,
		}),
	}
}

// other is the i-th other host; the first ones have links of every kind.
func other(i int, now time.Time) report.Peer {
	number := 8 + i*7
	p := report.Peer{
		Subnet:   netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5 + byte(number>>8), byte(number), 0}), 24),
		PublicIP: netip.AddrFrom4([4]byte{192, 0, 2 + byte((i+2)>>8), byte(i + 2)}), Backend: "vxlan",
		Reach: &report.Reach{RTT: time.Duration(180+(i*i*37)%450) * time.Microsecond, Sent: 10, Heard: now.Add(-time.Duration(i%9) * time.Second)},
	}
	switch i % 97 {
	case 1:
		p.Reach = &report.Reach{RTT: 1840 * time.Microsecond, Sent: 10, Lost: 2, Heard: now.Add(-3 * time.Second)}
	case 3:
		p.Reach = &report.Reach{Sent: 10, Lost: 10, Heard: now.Add(-104 * time.Second)}
	case 4:
		p.Backend, p.Reach, p.Skipped = "wireguard", nil, `host 192.0.2.6 uses backend "wireguard", this host "vxlan"`
	case 5:
		p.Reach = nil
	}
	return p
}
