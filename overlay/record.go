package overlay

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// record is what this host must remember of one network over a restart.
type record struct {
	Name   string
	Config Config
	Subnet netip.Prefix // the lease, or the one held last
	VTEP   kernel.MAC
	// IPv6Subnet is in one lease with Subnet; zero without one.
	IPv6Subnet netip.Prefix
	IPv6VTEP   kernel.MAC
	Underlay   kernel.Underlay // as last seen
	Former     netip.Addr      // the PublicIP that the lease still says, where it changed
	MTU        int             // bytes, of containers' interfaces
	Leased     bool            // a lease may stand in the store
	Held       bool            // the engine's address manager uses the subnet
	Docker     *Bridge         // the Docker network; nil when there is none
	Ports      []Port
	// Published are the ports of this host that lead to Ports.
	Published []Published
	Since     time.Time // when the subnet was claimed first
	Faulty    platform  // where transmit checksum offload was found to spoil packets
}

// network is a record and what is known beside it while the process runs.
type network struct {
	record
	peers   []Lease
	skipped skipped
	tenure  tenure
	// published is the BackendData that this process wrote last.
	published []byte
	writing   chan struct{}   // filled while the lease is claimed or given back
	handed    time.Time       // when Acquire last returned the subnet
	joining   map[string]bool // endpoints whose veth pair is being made
	turn      chan struct{}   // the network began or ceased to be used
	kick      chan struct{}   // the lease needs care now
	idle      chan struct{}   // closed while the store holds no lease of ours
	carrying  carrying
	mourning  mourning
	mending   mending
}

func newNetwork(r record) *network {
	n := &network{
		record: r, joining: map[string]bool{},
		turn: make(chan struct{}, 1), kick: make(chan struct{}, 1), idle: make(chan struct{}),
		writing: make(chan struct{}, 1), carrying: newCarrying(), mending: newMending(),
	}
	if !r.Leased {
		close(n.idle)
	}
	return n
}

// move notes the underlay as it is now. The lease says the earlier PublicIP
// until it is claimed again.
func (r *record) move(now kernel.Underlay) {
	now = r.sees(now)
	if r.Underlay.PublicIP.IsValid() && r.Underlay.PublicIP != now.PublicIP && !r.Former.IsValid() {
		r.Former = r.Underlay.PublicIP
	}
	r.Underlay = now
}

// sees is the underlay as far as the network has to do with it. Of IPv6 a
// network without it knows nothing; one that has a lease with it goes on with
// the address seen last while the interface has none.
func (r *record) sees(now kernel.Underlay) kernel.Underlay {
	switch {
	case !r.Config.EnableIPv6 || r.Docker != nil && !r.IPv6Subnet.IsValid():
		now.IPv6 = kernel.Place{}
	case !now.IPv6.Addr.IsValid() && r.IPv6Subnet.IsValid():
		now.IPv6 = r.Underlay.IPv6
	}
	return now
}

// enter begins a claim or a release: one must not overtake the other.
func (n *network) enter(ctx context.Context) error {
	select {
	case n.writing <- struct{}{}:
		return nil // also where ctx has ended: who goes on finds out, and cleans up
	default:
	}
	select {
	case n.writing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for another call about %s: %w", title(n.Name), ctx.Err())
	}
}

func (n *network) leave() { <-n.writing }

// address is the host's, as the network has it.
func (o *Overlay) address(n *network) netip.Addr {
	o.mu.Lock()
	defer o.mu.Unlock()
	return n.Underlay.Addr
}

// blank tells that nothing is known of the network but its name: a call about it
// is under way, and may be refused.
func (n *network) blank() bool { return !n.Subnet.IsValid() }

// used tells whether the engine still needs the subnet.
func (n *network) used() bool { return n.Held || n.Docker != nil }

// portMTU is the MTU of a port that comes now.
func (r *record) portMTU() int {
	if r.Docker != nil && r.Docker.MTU > 0 {
		return min(r.Docker.MTU, r.MTU)
	}
	return r.MTU
}

// bridgeMTU is no less than any port's: a bridge drops without a word what is
// too large for it, and only what is routed is answered.
func (r *record) bridgeMTU() int {
	mtu := r.portMTU()
	for _, p := range r.Ports {
		mtu = max(mtu, p.MTU)
	}
	return mtu
}

// view is the network as the clerks see it.
func (n *network) view() Network {
	return Network{
		Name: n.Name, CIDR: n.Config.Network, Subnet: n.Subnet,
		Gateway: n.Subnet.Addr().Next(), MTU: n.MTU,
		IPv6CIDR: n.Config.IPv6Network, IPv6Subnet: n.IPv6Subnet,
	}
}

// self is the network as a backend sees it.
func (n *network) self() Self {
	s := Self{
		Config: n.Config, Subnet: n.Subnet, MAC: n.VTEP, Underlay: n.Underlay, MTU: n.MTU, TxSum: n.txSum(),
		IPv6: n.Config.EnableIPv6, IPv6Subnet: n.IPv6Subnet, IPv6MAC: n.IPv6VTEP,
	}
	if n.Docker != nil {
		s.Bridge = n.Docker.Name()
		s.IPv6 = s.IPv6 && n.Docker.IPv6Subnet.IsValid()
	}
	return s
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// title names a network for people.
func title(name string) string {
	if name == "" {
		return "the default network"
	}
	return "network " + name
}

// save returns once networks.json holds what is known now.
func (o *Overlay) save() error {
	if err := o.file.Commit(); err != nil {
		return fmt.Errorf("%w; mend that and try again", err)
	}
	return nil
}

// records is the content of networks.json.
func (o *Overlay) records() any {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]record, 0, len(o.nets))
	for _, n := range o.sorted() {
		r := n.record
		r.Ports, r.Published = slices.Clone(r.Ports), slices.Clone(r.Published)
		out = append(out, r)
	}
	return out
}

// leases is the content of leases.json.
func (o *Overlay) leases() any {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := map[string][]Lease{}
	for _, n := range o.sorted() {
		out[n.Name] = n.peers
	}
	return out
}

// sorted lists the networks that have, or had, a subnet here, by name; the caller
// holds mu.
func (o *Overlay) sorted() []*network {
	out := make([]*network, 0, len(o.nets))
	for _, name := range slices.Sorted(maps.Keys(o.nets)) {
		if n := o.nets[name]; !n.blank() {
			out = append(out, n)
		}
	}
	return out
}

func (o *Overlay) all() []*network {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sorted()
}

// bySubnet finds the network whose lease has the subnet, of either family; the
// caller holds mu.
func (o *Overlay) bySubnet(subnet netip.Prefix) *network {
	for _, n := range o.nets {
		if (n.Subnet == subnet || n.IPv6Subnet == subnet) && subnet.IsValid() && n.used() {
			return n
		}
	}
	return nil
}

// byDocker finds the network of a Docker network id; the caller holds mu.
func (o *Overlay) byDocker(id string) *network {
	for _, n := range o.nets {
		if n.Docker != nil && n.Docker.ID == id {
			return n
		}
	}
	return nil
}
