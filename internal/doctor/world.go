package doctor

import (
	"net/netip"
	"slices"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
	"github.com/docker-flannel/docker-flannel/overlay/probe"
)

// World is everything that the checks look at, read once. An error beside a
// value tells why it is not known.
type World struct {
	Tool   string // how this program is called
	Plugin Plugin
	// Host is this host's part of the networks: from the plugin, or, while it
	// does not answer, from its state files.
	Host     report.Host
	HostErr  string
	Problems []report.Finding // the plugin's own
	Audit    []report.Difference
	AuditErr string

	Kernel   Kernel
	Endpoint []report.Endpoint // of etcd
	EtcdErr  string            // why it was not asked
	Clusters []report.Cluster
	StoreErr string // why those are not known

	Peers []Peer
	Left  int    // peers that were not asked, there being so many
	Probe string // why none was asked
}

// Plugin is how the plugin stands with the engine.
type Plugin struct {
	Engine    string // why the engine was not asked, empty where it was
	Name      string // as the engine has it
	Installed bool
	Enabled   bool
	Error     string // why it does not answer; empty where it does
	Embedded  bool   // etcd runs in it
	Version   string
}

// Answers tells whether the plugin does.
func (p Plugin) Answers() bool { return p.Error == "" }

// Kernel is what was read of the host's own network.
type Kernel struct {
	Error       string // why nothing could be
	Release     string
	Features    map[string]string // what the kernel said against each; empty for nothing
	FeaturesErr string
	Sysctls     map[string]string
	Interfaces  []kernel.Interface
	Legacy      string // what mends the legacy xtables, empty for nothing
	LegacyWhy   string
	Walls       []Wall
}

// Wall is what drops one kind of packet.
type Wall struct {
	Check, Subject string
	Packet         kernel.Packet
	Obstacles      []kernel.Obstacle
	Error          string
}

// Peer is another host, and what became of the probes to it.
type Peer struct {
	Network string
	Backend string
	Skipped string // why the plan has no way to it
	Device  string // this host's, that leads there
	Port    int    // UDP, of the tunnel; 0 without one
	Way            // of IPv4
	Sums    probe.Verdict
	IPv6    *Way `json:",omitempty"` // nil where the two hosts do not both have it
}

// Way is one family's way to another host, and what became of the probes on it.
type Way struct {
	PublicIP netip.Addr // that the packets go to; of IPv6 too where IPv4 carries it
	Subnet   netip.Prefix
	Inside   netip.Addr // the host's address in the network
	Skipped  string     // why the plan has no way to it over IPv6

	Underlay Echo // to PublicIP
	Overlay  Echo // to Inside
	Refused  bool // it answers a datagram to the tunnel's port: nobody listens there
	Path     int  // MTU found, 0 where it is not known
	Narrow   bool // not even the smallest packet passes that every path must carry
	Need     int  // outer bytes of the largest packet of a container
}

// ways are all that were tried.
func (p Peer) ways() []Way {
	if p.IPv6 == nil {
		return []Way{p.Way}
	}
	return []Way{p.Way, *p.IPv6}
}

// second tells a way of IPv6.
func (w Way) second() bool { return w.Subnet.Addr().Is6() }

// carried tells that IPv6 packets go through the tunnel of IPv4, so that it is
// the way to nothing of its own.
func (w Way) carried() bool { return w.second() && w.PublicIP.Is4() }

// Echo is what became of an ICMP echo.
type Echo struct {
	Came  bool
	Took  time.Duration
	Error string // why it could not be sent
}

// overhead is what a backend adds to a packet that it carries over IPv4, or over
// IPv6, in bytes.
func overhead(backend string, six bool) int {
	switch {
	case backend == "vxlan" && six:
		return 70
	case backend == "vxlan":
		return 50
	case backend == "udp":
		return 28
	}
	return 0
}

// networks are those that a Docker network uses.
func (w *World) networks() []report.Network {
	return slices.DeleteFunc(slices.Clone(w.Host.Networks), func(n report.Network) bool { return n.DockerID == "" })
}

// iface is the device of that name.
func (w *World) iface(name string) (kernel.Interface, bool) {
	i := slices.IndexFunc(w.Kernel.Interfaces, func(i kernel.Interface) bool { return i.Name == name })
	if i < 0 {
		return kernel.Interface{}, false
	}
	return w.Kernel.Interfaces[i], true
}

// owner is the device that has an address.
func (w *World) owner(addr netip.Addr) (kernel.Interface, bool) {
	i := slices.IndexFunc(w.Kernel.Interfaces, func(i kernel.Interface) bool {
		return slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return p.Addr() == addr })
	})
	if i < 0 {
		return kernel.Interface{}, false
	}
	return w.Kernel.Interfaces[i], true
}

// silent are the peers of a family that were asked and do not answer through the
// tunnel.
func (w *World) silent(six bool) (silent, asked int) {
	for _, p := range w.Peers {
		for _, y := range p.ways() {
			if p.Skipped != "" || y.second() != six || y.Overlay.Error != "" {
				continue
			}
			asked++
			if !y.Overlay.Came {
				silent++
			}
		}
	}
	return silent, asked
}

// lease is what etcd holds of a host's subnet.
func (w *World) lease(network string, subnet netip.Prefix) (report.ClusterLease, bool) {
	for _, c := range w.Clusters {
		for _, l := range c.Leases {
			if c.Network == network && l.Subnet == subnet {
				return l, true
			}
		}
	}
	return report.ClusterLease{}, false
}
