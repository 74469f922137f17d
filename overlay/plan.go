package overlay

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// plan is everything wanted on this host now; the caller holds mu. What
// depends on the peers is planned once a change, so that a container's start
// costs the same with two hosts as with thousands.
func (o *Overlay) plan() kernel.State {
	if o.peers == nil {
		o.peers = o.planPeers()
	}
	want := *o.peers
	want.Links = slices.Clip(want.Links)
	want.Addrs = slices.Clip(want.Addrs)
	want.Forwards = slices.Clip(want.Forwards)
	want.Guards = slices.Clip(want.Guards)
	want.Sysctls = slices.Clip(want.Sysctls)
	dual := false
	var inside []netip.Prefix
	for _, n := range o.sorted() {
		if n.Docker == nil {
			continue
		}
		dual = dual || n.Docker.IPv6Subnet.IsValid()
		bridge := planBridge(&n.record, *n.Docker)
		want.Links = append(want.Links, bridge.Links...)
		want.Addrs = append(want.Addrs, bridge.Addrs...)
		want.Forwards = append(want.Forwards, bridge.Forwards...)
		want.Guards = append(want.Guards, bridge.Guards...)
		want.Sysctls = append(want.Sysctls, bridge.Sysctls...)
		want.Veths = append(want.Veths, o.planPorts(bridge.Links[0], &n.record, n.joining)...)
		want.Egresses = append(want.Egresses, bridge.Egresses...)
		want.Publishes = append(want.Publishes, bridge.Publishes...)
		inside = append(inside, n.Config.Network)
		if n.Config.EnableIPv6 {
			inside = append(inside, n.Config.IPv6Network)
		}
		if n.Docker.IPv6Subnet.IsValid() {
			want.Sysctls = append(want.Sysctls, planSilence(n.Ports)...)
		}
	}
	if len(want.Egresses) > 0 {
		want.Inside = inside
	}
	if o.forward && len(want.Guards) > 0 {
		want.Sysctls = append(want.Sysctls, kernel.Sysctl{Key: "ipv4/ip_forward", Value: "1"})
	}
	if o.forward && dual {
		want.Sysctls = append(want.Sysctls, kernel.Sysctl{Key: kernel.IPv6Forwarding, Value: "1"})
	}
	return want
}

// planPeers joins the backends' plans; the caller holds mu.
func (o *Overlay) planPeers() *kernel.State {
	var all kernel.State
	for _, n := range o.sorted() {
		if n.Docker == nil {
			o.skip(n, byPlan, nil)
			continue
		}
		backend, err := o.backend(n.Config.Backend.Type)
		if err != nil {
			continue // refused by Acquire; only a downgrade comes here, and keep reports it
		}
		part, junk := backend.Plan(n.self(), others(n.self(), n.peers))
		o.skip(n, byPlan, junk)
		all.Sysctls = append(all.Sysctls, part.Sysctls...)
		all.Links = append(all.Links, part.Links...)
		all.Addrs = append(all.Addrs, part.Addrs...)
		all.Neighs = append(all.Neighs, part.Neighs...)
		all.FDB = append(all.FDB, part.FDB...)
		all.Routes = append(all.Routes, part.Routes...)
		all.Forwards = append(all.Forwards, part.Forwards...)
		all.Guards = append(all.Guards, part.Guards...)
		all.Closed = append(all.Closed, part.Closed...)
		all.Seals = append(all.Seals, part.Seals...)
		all.Doors = append(all.Doors, part.Doors...)
		all.Admits = append(all.Admits, part.Admits...)
	}
	return &all
}

// others are the leases that are not this host's.
func others(self Self, leases []Lease) []Lease {
	out := make([]Lease, 0, len(leases))
	for _, l := range leases {
		if l.Subnet != self.Subnet && l.PublicIP != self.Underlay.PublicIP {
			out = append(out, l)
		}
	}
	return out
}

// planBridge is the bridge of a Docker network: it holds the subnets' first
// addresses and forwards only what a backend's plan accepts.
func planBridge(r *record, b Bridge) kernel.State {
	name, ip := b.Name(), r.Subnet.Addr().Next()
	mac := kernel.MAC{0x02, 0x42}
	octets := ip.As4()
	copy(mac[2:], octets[:])
	out := planOut(r, b)
	six := b.IPv6Subnet
	state := kernel.State{
		Sysctls: append(out.Sysctls, IPv6On(name, six.IsValid())...),
		Links:   []kernel.Link{{Name: name, MAC: mac, MTU: r.bridgeMTU()}},
		Addrs:   []kernel.Addr{{Link: name, Prefix: netip.PrefixFrom(ip, r.Subnet.Bits())}},
		// Whatever the bridge passes between its own ports, multicast and
		// broadcast too.
		Forwards:  []kernel.Forward{{In: name, Out: name}},
		Guards:    []string{name},
		Egresses:  out.Egresses,
		Publishes: out.Publishes,
	}
	if six.IsValid() {
		state.Addrs = append(state.Addrs, kernel.Addr{Link: name, Prefix: netip.PrefixFrom(six.Addr().Next(), six.Bits())})
	}
	return state
}

// IPv6On are the settings of a device of ours with IPv6 or without. With it,
// addresses serve at once, since leases make them unique, and nobody on the
// network tells this host routes.
func IPv6On(device string, on bool) []kernel.Sysctl {
	conf := "ipv6/conf/" + device + "/"
	if !on {
		return []kernel.Sysctl{{Key: conf + "disable_ipv6", Value: "1"}}
	}
	return []kernel.Sysctl{
		{Key: conf + "disable_ipv6", Value: "0"},
		{Key: conf + "accept_dad", Value: "0"},
		{Key: conf + "accept_ra", Value: "0"},
	}
}

// planSilence keeps the host's ends of veth pairs from taking part in the
// network's IPv6 with link-local addresses of their own.
func planSilence(ports []Port) []kernel.Sysctl {
	var out []kernel.Sysctl
	for _, p := range ports {
		out = append(out, IPv6On(vethName(p.Endpoint), false)...)
	}
	return out
}

// planOut is what a bridge needs beside that where it is its containers' way out.
func planOut(r *record, b Bridge) (out kernel.State) {
	if !b.leadsOut() {
		return out
	}
	name := b.Name()
	out.Egresses = []kernel.Egress{{Bridge: name, Src: r.Subnet, Masq: !b.NoMasq, Uplink: r.Underlay.Name}}
	if b.IPv6Subnet.IsValid() {
		out.Egresses = append(out.Egresses, kernel.Egress{Bridge: name, Src: b.IPv6Subnet, Masq: !b.NoMasq, Uplink: r.Underlay.Name})
	}
	for _, p := range r.Published {
		out.Publishes = append(out.Publishes, kernel.Publish{Bridge: name, Proto: p.Asked.Proto, Host: p.Host, To: p.To})
	}
	if len(r.Published) > 0 {
		// Lets the host itself reach them by its loopback addresses.
		out.Sysctls = []kernel.Sysctl{{Key: "ipv4/conf/" + name + "/route_localnet", Value: "1"}}
	}
	return out
}

// planPorts is a veth pair a port.
func (o *Overlay) planPorts(bridge kernel.Link, r *record, joining map[string]bool) []kernel.Veth {
	published := map[string]bool{}
	for _, p := range r.Published {
		published[p.Endpoint] = true
	}
	carrier := o.carrier(r)
	out := make([]kernel.Veth, 0, len(r.Ports))
	for _, p := range r.Ports {
		veth := kernel.Veth{
			Name: vethName(p.Endpoint), Peer: peerName(p.Endpoint), Master: bridge.Name,
			MAC: p.MAC, MTU: cmp.Or(p.MTU, bridge.MTU), Create: joining[p.Endpoint],
			Hairpin: published[p.Endpoint], Addrs: [2]netip.Addr{p.Addr, p.IPv6},
		}
		if carrier != nil {
			veth.Segments = carrier.Segments(veth.MTU)
		}
		out = append(out, veth)
	}
	return out
}
