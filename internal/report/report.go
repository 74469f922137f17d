// Package report is what the plugin tells about itself: plain values, read as
// JSON by the operator's tool and as numbers by the metrics.
package report

import (
	"net/netip"
	"time"
)

// Status is everything that one host's plugin tells.
type Status struct {
	Build Build
	// Problems keep the host from working as it should; Notes do not.
	Problems []Finding `json:",omitempty"`
	Notes    []Finding `json:",omitempty"`
	Store    Store
	Host
	// Foreign are the packets that were dropped at the tunnels' ports, by port.
	Foreign []Foreign `json:",omitempty"`
}

// Foreign counts what came to a tunnel's port from addresses that are no peer's.
type Foreign struct {
	Port    int
	Packets uint64
}

// Finding is something to tell a person, and what to do about it.
type Finding struct {
	Text string
	Next string `json:",omitempty"`
}

// Build says what runs.
type Build struct {
	Version  string // of the module, "(devel)" where it was built without one
	Revision string // of the sources, empty where unknown
	Go       string // the compiler
}

// Store is the connection to etcd.
type Store struct {
	Endpoints []string
	Embedded  bool // etcd runs in this plugin
	Asked     bool // something was asked of it, so that the rest is known
	Connected bool
	Since     time.Time `json:",omitzero"` // of Connected
	Error     string    `json:",omitempty"`
}

// Host is this host's part of the networks.
type Host struct {
	Interface string     `json:",omitempty"` // of the underlay, empty while it is not found
	PublicIP  netip.Addr `json:",omitzero"`
	Loop      Loop
	Networks  []Network
}

// Loop is the one loop that writes to the kernel.
type Loop struct {
	Started  time.Time `json:",omitzero"` // zero before it runs
	Passed   time.Time `json:",omitzero"` // the end of the last pass
	Passes   uint64
	Took     time.Duration // of the last pass
	Failures []Failure     `json:",omitempty"` // of the last pass
	Repairs  []Repair      `json:",omitempty"` // of what others changed, since Started
}

// Failure is an object of the kernel that is not as wanted.
type Failure struct{ Object, Error string }

// Repair counts what was put right, of one kind.
type Repair struct {
	Kind  string
	Count uint64
	Last  time.Time
}

// Network is one flannel network as this host sees it.
type Network struct {
	Name      string // empty for the default network
	CIDR      netip.Prefix
	IPv6CIDR  netip.Prefix `json:",omitzero"` // zero without IPv6
	Backend   string
	Subnet    netip.Prefix // this host's
	MTU       int          // bytes, of containers' interfaces
	Interface string
	PublicIP  netip.Addr
	// This host's IPv6 subnet and the address by which the others reach it over
	// IPv6; each zero where there is none.
	IPv6Subnet netip.Prefix `json:",omitzero"`
	PublicIPv6 netip.Addr   `json:",omitzero"`

	DockerID string `json:",omitempty"` // empty while there is no Docker network
	Bridge   string `json:",omitempty"`
	Device   string `json:",omitempty"` // that carries the packets
	// IPv6Device carries the IPv6 packets; empty without an IPv6 subnet in use.
	IPv6Device string `json:",omitempty"`
	Port       int    `json:",omitempty"` // UDP, that the tunnels of other hosts end at; 0 without tunnels
	Lease      Lease
	// Blocked says why no packets are carried; backends in this process only.
	Blocked string    `json:",omitempty"`
	Leases  int       // of the cluster, as last seen
	Peers   []Peer    // the other hosts
	Skipped []Skipped // what the store holds and this host cannot use, now
	Skips   uint64    // how many of those there have been since the start
	Ports   []Port    // of containers
	// Published are ports of this host that lead to containers; only where the
	// network is its containers' way out.
	Published []Published `json:",omitempty"`
	Tunnel    *Traffic    `json:",omitempty"` // of a backend in this process
	Used      *Addresses  `json:",omitempty"`
}

// LeaseState is how this host's lease stands.
type LeaseState string

// The states of a lease.
const (
	Held        LeaseState = "held"
	Unconfirmed LeaseState = "unconfirmed" // from the state file; the store has not answered yet, or not again
	Lost        LeaseState = "lost"        // gone from the store, being claimed back
	Taken       LeaseState = "taken"       // another host has it: the alarm
	Returning   LeaseState = "returning"   // being given back
	None        LeaseState = "none"
)

// Lease is this host's subnet of one network.
type Lease struct {
	State    LeaseState
	TakenBy  netip.Addr    `json:",omitzero"`
	Since    time.Time     `json:",omitzero"` // when it was claimed first
	Renewed  time.Time     `json:",omitzero"` // last, by this process
	Renewals uint64        // by this process
	Failures uint64        // to renew it, by this process
	TTL      time.Duration // without renewal
	Error    string        `json:",omitempty"` // of the last try, where it did not succeed
}

// Peer is another host.
type Peer struct {
	Subnet     netip.Prefix
	PublicIP   netip.Addr
	IPv6Subnet netip.Prefix `json:",omitzero"` // zero without one
	PublicIPv6 netip.Addr   `json:",omitzero"`
	Backend    string
	Skipped    string `json:",omitempty"` // why the plan has no way to it; empty where it has one
	// SkippedIPv6 is why it has none over IPv6.
	SkippedIPv6 string `json:",omitempty"`
	Reach       *Reach `json:",omitempty"` // nil until it was asked
}

// Reach is what became of the last echoes to a host, through the network.
type Reach struct {
	RTT        time.Duration // of the last that came back; zero where none of them did
	Sent, Lost int
	Heard      time.Time `json:",omitzero"` // when one came back last
}

// Loss is the part of the echoes that did not come back, from 0 to 1.
func (r Reach) Loss() float64 { return float64(r.Lost) / float64(max(r.Sent, 1)) }

// Skipped is a key of the store that this host cannot use.
type Skipped struct {
	Key, Reason string
	Since       time.Time
}

// Port is a container's attachment.
type Port struct {
	Endpoint string
	Addr     netip.Addr
	IPv6     netip.Addr `json:",omitzero"` // zero without one
	MAC      string
}

// Published is a port of this host that leads to a container's.
type Published struct {
	Proto    string
	Host, To netip.AddrPort
	Endpoint string
}

// Addresses counts those of a host's subnet.
type Addresses struct{ Used, Free int }

// Traffic is what went through a device or a tunnel.
type Traffic struct {
	SentPackets, SentBytes         uint64
	ReceivedPackets, ReceivedBytes uint64
	Drops                          map[string]uint64 // by reason
}

// Title names a network for people.
func Title(name string) string {
	if name == "" {
		return "the default network"
	}
	return "network " + name
}

// Title names the network for people.
func (n Network) Title() string { return Title(n.Name) }
