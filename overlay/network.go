package overlay

import (
	"net/netip"
	"slices"

	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// Request is what a user asked of docker network create about addresses.
type Request struct {
	Name   string       // flannel network; empty for the default network
	Subnet netip.Prefix // --subnet; zero for none
	// Backend is flannel's name of the backend that the network is made
	// with, or must have been made with; empty for any.
	Backend string
	// IPv6 asks, after a call without it, for the IPv6 half of what that
	// returned. Subnet is then that of IPv6.
	IPv6 bool
}

// Network is one flannel network as this host sees it.
type Network struct {
	Name    string
	CIDR    netip.Prefix // the cluster network
	Subnet  netip.Prefix // this host's lease
	Gateway netip.Addr   // the bridge's address, the subnet's first
	MTU     int          // bytes

	IPv6CIDR   netip.Prefix // the cluster network's; zero without IPv6
	IPv6Subnet netip.Prefix // this host's; zero without one
}

// Bridge is the Docker network that uses a host's subnet.
type Bridge struct {
	ID     string       // Docker's network id
	Subnet netip.Prefix // a subnet that Acquire returned
	MTU    int          // bytes; 0 for the largest that the network carries
	// IPv6Subnet is that of Subnet's lease; zero for a Docker network of IPv4
	// alone.
	IPv6Subnet netip.Prefix
	// Gateway has the containers go out by this bridge, and not by the engine's
	// docker_gwbridge.
	Gateway bool
	NoMasq  bool // what goes out by this bridge keeps the containers' addresses
	// Internal networks have no way out.
	Internal bool
}

// leadsOut tells whether containers go out, and are reached from outside, by
// this bridge.
func (b Bridge) leadsOut() bool { return b.Gateway && !b.Internal }

// Name is the bridge's interface name, from the head of Docker's network id
// as Docker's own bridges are named.
func (b Bridge) Name() string { return kernel.BridgePrefix + head(b.ID) }

// Port is one container's attachment to a Docker network.
type Port struct {
	Network  string     // Docker's network id
	Endpoint string     // Docker's endpoint id
	Addr     netip.Addr // inside the network's subnet
	MAC      kernel.MAC
	MTU      int        // bytes, of the container's interface; AddPort sets it
	IPv6     netip.Addr // inside the network's IPv6 subnet; zero without one
}

// has tells whether the port has the address.
func (p Port) has(addr netip.Addr) bool { return p.Addr == addr || addr.IsValid() && p.IPv6 == addr }

// Attachment is a Docker network and its ports.
type Attachment struct {
	Bridge
	Ports     []Port
	Published []Published
}

// Holds tells whether a port has the address.
func (a Attachment) Holds(addr netip.Addr) bool {
	return slices.ContainsFunc(a.Ports, func(p Port) bool { return p.has(addr) })
}

// Joined tells the engine how to plug a port into a container.
type Joined struct {
	Interface string // on the host, to be moved into the container
	Network   Network
	Gateway   netip.Addr // of the default route; invalid for none
	IPv6      bool       // the port has an IPv6 address
	// GatewayIPv6 is that of the IPv6 default route; invalid for none.
	GatewayIPv6 netip.Addr
}

// shortID is how much of a Docker id an interface name has room for: the
// kernel's IFNAMSIZ leaves 15 characters, three of them our prefix.
const shortID = 12

func head(id string) string { return id[:min(len(id), shortID)] }
