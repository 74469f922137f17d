package overlay

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// Backend is one way of carrying packets between hosts. It holds no state: it
// turns values into values.
type Backend interface {
	// Publish checks the network's Backend object and returns what this
	// host's lease says. An error names the field, its value and what is
	// accepted.
	Publish(self Self) (Publication, error)
	// Plan returns what the kernel must hold so that self reaches peers,
	// and the peers that were skipped, each with its reason. Peers never
	// include self.
	Plan(self Self, peers []Lease) (kernel.State, []Junk)
}

// Carrier is a Backend that carries packets in this process.
type Carrier interface {
	Backend
	// Open attaches to the device of Plan, once the kernel has it, on a
	// thread in the host's network namespace. An error names what is in the
	// way.
	Open(self Self, log *slog.Logger) (Tunnel, error)
}

// Tunnel carries the packets of one network while Run runs.
type Tunnel interface {
	// Follow replaces the peers. Run carries nothing before the first call.
	Follow(peers []Lease)
	// Run returns ctx's error when ctx ends.
	Run(ctx context.Context) error
	// Traffic is what it has carried and dropped so far.
	Traffic() report.Traffic
	Close() error
}

// Self is this host's place in one network.
type Self struct {
	Config   Config
	Subnet   netip.Prefix // zero before the lease is claimed
	MAC      kernel.MAC   // of this host's VTEP
	Underlay kernel.Underlay
	Bridge   string // interface name; empty before the Docker network exists
	MTU      int    // bytes, of containers' interfaces
	// TxSum is for the device that carries the network, if it leaves checksums
	// to the underlay.
	TxSum kernel.Offload
}

// Direct is the plain route to a peer on the same layer-2 network. What this
// host sends itself goes out with the bridge's address, which the peer routes
// back. The error says why the peer is out of reach.
func (s Self) Direct(peer Lease) (kernel.Route, error) {
	if !s.Underlay.Net.Contains(peer.PublicIP) {
		return kernel.Route{}, fmt.Errorf("host %s is not on the layer-2 network %s of this host's interface %s", peer.PublicIP, s.Underlay.Net, s.Underlay.Name)
	}
	return kernel.Route{Dst: peer.Subnet, Via: peer.PublicIP, Link: s.Underlay.Name, Src: s.Subnet.Addr().Next()}, nil
}

// Through accepts the network's packets between the bridge and a device.
func (s Self) Through(device string) []kernel.Forward {
	return []kernel.Forward{
		{In: s.Bridge, Out: device, Src: s.Subnet, Dst: s.Config.Network},
		{In: device, Out: s.Bridge, Src: s.Config.Network, Dst: s.Subnet},
	}
}

// Publication is what a host says in its lease, and what it costs.
type Publication struct {
	Type     string // BackendType, empty for the udp backend
	Data     json.RawMessage
	Overhead int // bytes that the encapsulation adds to a packet
	MTU      int // bytes, of the largest outer packet: the underlay's or the config's
}
