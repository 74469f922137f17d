package report

import (
	"net/netip"
	"time"
)

// Difference is an object of the kernel that is not as wanted.
type Difference struct {
	Object string // such as "link flannel.1"
	Change string // what would put it right
}

// Endpoint is what became of asking one etcd endpoint.
type Endpoint struct {
	URL     string
	Took    time.Duration `json:",omitempty"` // to answer
	Version string        `json:",omitempty"`
	// Dated says that the endpoint told its time, which is Ahead of this host's,
	// to a second.
	Dated bool          `json:",omitempty"`
	Ahead time.Duration `json:",omitempty"`
	Error string        `json:",omitempty"`
}

// maxRenewal is the longest that a plugin leaves a lease unrenewed; it renews
// earlier where the lease is short.
const maxRenewal = time.Hour

// Idle is how long the lease has not been renewed; zero where that is unknown.
func (l ClusterLease) Idle() time.Duration { return max(l.TTL-l.Left, 0) }

// Stale tells whether the lease was left unrenewed for longer than a plugin that
// runs does. Stock flanneld leaves one so for 23 hours.
func (l ClusterLease) Stale() bool { return l.TTL > 0 && l.Idle() > min(l.TTL/3, maxRenewal)*5/4 }

// InsideIPv6 is where a peer's host answers in the network over IPv6, at its bridge;
// zero where this host and that one do not both have IPv6 there. Whether the peer's
// Docker network has it no lease tells.
func (n Network) InsideIPv6(p Peer) netip.Addr {
	if !n.IPv6Subnet.IsValid() || n.IPv6Device == "" || !p.IPv6Subnet.IsValid() {
		return netip.Addr{}
	}
	return p.IPv6Subnet.Addr().Next()
}

// Inside is where a peer's host answers in the network: at its tunnel's device
// or, without a tunnel, at its bridge.
func (n Network) Inside(p Peer) netip.Addr {
	if n.Backend == "host-gw" {
		return p.Subnet.Addr().Next()
	}
	return p.Subnet.Addr()
}
