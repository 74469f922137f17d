package doctor

import (
	"net/netip"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
	"github.com/docker-flannel/docker-flannel/overlay/probe"
)

var (
	here, there   = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	mine, theirs  = netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("10.5.2.0/24")
	cidr          = netip.MustParsePrefix("10.5.0.0/16")
	bridge        = "fl-0123456789ab"
	renewed, left = 24 * time.Hour, 24*time.Hour - 5*time.Minute
)

// sound is a host where all is well, with one peer.
func sound() *World {
	return &World{
		Tool:   "flannel",
		Plugin: Plugin{Name: pluginName, Installed: true, Enabled: true, Version: "v1"},
		Host: report.Host{Interface: "eth0", PublicIP: here, Networks: []report.Network{{
			CIDR: cidr, Backend: "vxlan", Subnet: mine, MTU: 1450, Interface: "eth0", PublicIP: here, DockerID: "0123456789abcdef",
			Bridge: bridge, Device: "flannel.1", Port: 8472, Lease: report.Lease{State: report.Held},
			Peers: []report.Peer{{Subnet: theirs, PublicIP: there, Backend: "vxlan"}},
		}}},
		Audit: []report.Difference{},
		Kernel: Kernel{
			Release:  "6.1",
			Features: map[string]string{"vxlan": "", "tun": "", "bridge": "", "veth": "", "nf_tables": ""},
			Sysctls:  map[string]string{"ipv4/ip_forward": "1", "ipv4/conf/all/rp_filter": "0", "bridge/bridge-nf-call-iptables": "1"},
			Interfaces: []kernel.Interface{
				{Name: "docker0", Up: true, MTU: 1500, Addrs: []netip.Prefix{netip.MustParsePrefix("172.17.0.1/16")}},
				{Name: "eth0", Up: true, MTU: 1500, Addrs: []netip.Prefix{netip.PrefixFrom(here, 24)}},
			},
			Walls: []Wall{
				{Check: "forward", Subject: bridge + " to flannel.1"}, {Check: "br_netfilter", Subject: bridge},
				{Check: "firewall", Subject: "UDP port 8472, in", Packet: kernel.Packet{Port: 8472}},
			},
		},
		Endpoint: []report.Endpoint{{URL: "http://192.0.2.2:2379", Took: time.Millisecond, Version: "3.5", Dated: true, Ahead: time.Second}},
		Clusters: []report.Cluster{{CIDR: cidr, Backend: "vxlan", Leases: []report.ClusterLease{
			{Subnet: mine, PublicIP: here, Backend: "vxlan", TTL: renewed, Left: left, Here: true},
			{Subnet: theirs, PublicIP: there, Backend: "vxlan", TTL: renewed, Left: left},
		}}},
		Peers: []Peer{{
			Backend: "vxlan", Device: "flannel.1", Port: 8472, Sums: probe.Healthy, Way: Way{
				PublicIP: there, Subnet: theirs, Inside: theirs.Addr(), Underlay: Echo{Came: true, Took: time.Millisecond},
				Overlay: Echo{Came: true, Took: time.Millisecond}, Path: 1500, Need: 1500,
			},
		}},
	}
}

// both gives the host and its peer IPv6, and returns that way to the peer.
func both(w *World) *Way {
	n, p := &w.Host.Networks[0], &w.Peers[0]
	n.MTU, n.IPv6Device = 1430, "flannel-v6.1"
	n.IPv6Subnet, n.PublicIPv6 = netip.MustParsePrefix("fd00:5:0:1::/64"), netip.MustParseAddr("fd00:c0::1")
	p.Need = 1480
	p.IPv6 = &Way{
		PublicIP: netip.MustParseAddr("fd00:c0::2"), Subnet: netip.MustParsePrefix("fd00:5:0:2::/64"), Inside: netip.MustParseAddr("fd00:5:0:2::1"),
		Underlay: Echo{Came: true, Took: 2 * time.Millisecond}, Overlay: Echo{Came: true, Took: 2 * time.Millisecond}, Path: 1500, Need: 1500,
	}
	w.Kernel.Sysctls[bridgeKey(true)] = "1"
	w.Kernel.Walls = append(w.Kernel.Walls,
		Wall{Check: "forward", Subject: bridge + " to flannel-v6.1, IPv6", Packet: kernel.Packet{IPv6: true}},
		Wall{Check: "br_netfilter", Subject: bridge + ", IPv6", Packet: kernel.Packet{IPv6: true}},
		Wall{Check: "firewall", Subject: "UDP port 8472, in, IPv6", Packet: kernel.Packet{IPv6: true, Port: 8472}})
	return p.IPv6
}
