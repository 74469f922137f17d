package overlay

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

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
	// Distinct returns a Backend object for a new network: raw, but what
	// networks of one host must not share is made unlike that of the others'.
	Distinct(raw json.RawMessage, others []json.RawMessage) (json.RawMessage, error)
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
	// Segments is how many packets of at most mtu bytes a container's
	// super-packet should hold at most, so that it leaves in one piece.
	Segments(mtu int) int
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
	// IPv6 says whether the host takes part in the network's IPv6 half.
	// IPv6Subnet and IPv6MAC, of a VTEP of its own, are then as those above.
	IPv6       bool
	IPv6Subnet netip.Prefix
	IPv6MAC    kernel.MAC
	Bridge     string // interface name; empty before the Docker network exists
	MTU        int    // bytes, of containers' interfaces
	// TxSum is for the device that carries the network, if it leaves checksums
	// to the underlay.
	TxSum kernel.Offload
}

// Half is one address family's part of a host's place in a network.
type Half struct {
	Network netip.Prefix // the whole network's
	Subnet  netip.Prefix // this host's, zero before the lease is claimed
	MAC     kernel.MAC   // of the VTEP
	Place   kernel.Place // in the underlay
	self    Self
}

// Halves are the families that the host takes part in, IPv4 first.
func (s Self) Halves() []Half {
	u := s.Underlay
	halves := []Half{{s.Config.Network, s.Subnet, s.MAC, kernel.Place{Addr: u.Addr, PublicIP: u.PublicIP, Net: u.Net}, s}}
	if s.IPv6 {
		halves = append(halves, Half{s.Config.IPv6Network, s.IPv6Subnet, s.IPv6MAC, u.IPv6, s})
	}
	return halves
}

// Is6 tells whether this is the IPv6 half.
func (h Half) Is6() bool { return h.Network.Addr().Is6() }

// Peer is one family's part of another host's lease.
type Peer struct {
	Subnet   netip.Prefix
	PublicIP netip.Addr
	Data     json.RawMessage // what the backend publishes
}

// Of returns this family's part of a lease; false where the host has none.
func (h Half) Of(l Lease) (Peer, bool) {
	if !h.Is6() {
		return Peer{l.Subnet, l.PublicIP, l.BackendData}, true
	}
	return Peer{l.IPv6Subnet, l.PublicIPv6, l.BackendV6Data}, l.IPv6Subnet.IsValid()
}

// Direct is the plain route to a peer on the same layer-2 network. What this
// host sends itself goes out with the bridge's address, which the peer routes
// back. The error says why the peer is out of reach.
func (h Half) Direct(peer Peer) (kernel.Route, error) {
	device := h.self.Underlay.Name
	if !h.Place.Net.Contains(peer.PublicIP) {
		return kernel.Route{}, fmt.Errorf("host %s is not on the layer-2 network %s of this host's interface %s", peer.PublicIP, h.Place.Net, device)
	}
	return kernel.Route{Dst: peer.Subnet, Via: peer.PublicIP, Link: device, Src: h.Subnet.Addr().Next()}, nil
}

// Through accepts the network's packets between the bridge and a device.
func (h Half) Through(device string) []kernel.Forward {
	bridge := h.self.Bridge
	return []kernel.Forward{
		{In: bridge, Out: device, Src: h.Subnet, Dst: h.Network},
		{In: device, Out: bridge, Src: h.Network, Dst: h.Subnet},
	}
}

// Plain accepts the network's packets between the bridge and the underlay, where
// they travel as they are. A packet with a forged address that another of the
// host's bridges sends there would look like one of the network's to the peer:
// so nothing else passes from the network to itself.
func (h Half) Plain(state *kernel.State) {
	state.Forwards = append(state.Forwards, h.Through(h.self.Underlay.Name)...)
	state.Closed = append(state.Closed, h.Network)
}

// Seals keep containers of this host from sending to the tunnels' port of other
// hosts: masqueraded, such a packet comes from a peer, and what is in it looks like
// one of the network's. The devices are Docker's bridges, by the names that Docker
// gives them, and ours.
func (s Self) Seals(port int) (seals []kernel.Seal) {
	for _, in := range []string{"docker", "br-", kernel.BridgePrefix} {
		if !strings.HasPrefix(s.Underlay.Name, in) {
			seals = append(seals, kernel.Seal{In: in, Out: s.Underlay.Name, Port: port})
		}
	}
	return seals
}

// Unlike sets a number in a Backend object to the least from first to last that
// is not taken. An object whose own, now, is not taken stays as it is.
func Unlike(raw json.RawMessage, field string, now, first, last int, taken []int) (json.RawMessage, error) {
	if !slices.Contains(taken, now) {
		return raw, nil
	}
	object := map[string]json.RawMessage{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &object); err != nil {
			return nil, fmt.Errorf("read the Backend object %s: %w", raw, err)
		}
	}
	maps.DeleteFunc(object, func(key string, _ json.RawMessage) bool { return strings.EqualFold(key, field) })
	for n := first; n <= last; n++ {
		if !slices.Contains(taken, n) {
			object[field] = json.RawMessage(strconv.Itoa(n))
			return json.Marshal(object)
		}
	}
	return nil, fmt.Errorf("no %s from %d to %d is free", field, first, last)
}

// Publication is what a host says in its lease, and what it costs.
type Publication struct {
	Type     string // BackendType, empty for the udp backend
	Data     json.RawMessage
	IPv6Data json.RawMessage // BackendV6Data
	NoIPv6   error           // why the backend carries no IPv6; nil where it does
	Overhead int             // bytes that the encapsulation adds to a packet, the larger of both families'
	MTU      int             // bytes, of the largest outer packet: the underlay's or the config's
}
