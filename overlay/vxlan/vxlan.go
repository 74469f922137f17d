// Package vxlan is flannel's vxlan backend on the kernel's VXLAN device (RFC
// 7348): one device a network, and per peer one route, one permanent neighbour
// and one forwarding entry, as stock flannel sets them.
package vxlan

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// Type is the backend's name in flannel's config.
const Type = "vxlan"

const (
	// DefaultVNI is flannel's.
	DefaultVNI = 1
	// DefaultPort is flannel's and the Linux kernel's UDP port; RFC 7348's
	// own is 4789.
	DefaultPort = 8472
	// Overhead is what VXLAN adds on an IPv4 underlay, in bytes: outer IPv4
	// 20, UDP 8, VXLAN 8, inner Ethernet 14.
	Overhead = 50
	// IPv6Overhead is what it adds on an IPv6 underlay: the outer header is 40.
	IPv6Overhead = 70

	maxVNI  = 1<<24 - 1
	maxPort = 1<<16 - 1
	minMTU  = 576 + Overhead // RFC 791's smallest reassembly buffer inside
)

// Backend carries packets over VXLAN. It has no state.
type Backend struct{}

// params are the fields of flannel's Backend object.
type params struct {
	VNI           int
	Port          int
	GBP           bool
	Learning      bool
	DirectRouting bool
	MTU           int // bytes, of the outer packet
}

// data is what a host publishes in its lease.
type data struct {
	VNI     int
	VtepMAC kernel.MAC
}

func parse(raw json.RawMessage) (params, error) {
	p := params{VNI: DefaultVNI, Port: DefaultPort}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &p); err != nil {
			return p, fmt.Errorf("read the config's Backend %s: %w; correct it", raw, err)
		}
	}
	if p.Port == 0 {
		p.Port = DefaultPort
	}
	switch {
	case p.VNI < 1 || p.VNI > maxVNI:
		return p, fmt.Errorf("VNI %d is outside 1-%d: correct Backend in the network's config", p.VNI, maxVNI)
	case p.Port < 1 || p.Port > maxPort:
		return p, fmt.Errorf("port %d is outside 1-%d: correct Backend in the network's config", p.Port, maxPort)
	case p.MTU != 0 && p.MTU < minMTU:
		return p, fmt.Errorf("MTU %d is below %d: correct Backend in the network's config", p.MTU, minMTU)
	}
	return p, nil
}

// Publish returns the VTEP's VNI and MAC.
func (Backend) Publish(self overlay.Self) (overlay.Publication, error) {
	p, err := parse(self.Config.Backend.Raw)
	if err != nil {
		return overlay.Publication{}, err
	}
	mtu := self.Underlay.MTU
	if p.MTU > mtu {
		return overlay.Publication{}, fmt.Errorf("MTU %d is above the %d of interface %s: correct Backend in the network's config, or the interface's MTU", p.MTU, mtu, self.Underlay.Name)
	}
	if p.MTU > 0 {
		mtu = p.MTU
	}
	pub := overlay.Publication{Type: Type, MTU: mtu, NoIPv6: self.NoIPv6()}
	for _, h := range self.Halves() {
		if !h.Place.Addr.IsValid() {
			continue
		}
		say, err := json.Marshal(data{VNI: p.VNI, VtepMAC: h.MAC})
		if err != nil {
			return pub, fmt.Errorf("write BackendData: %w", err)
		}
		pub.Overhead = max(pub.Overhead, overhead(h))
		if h.Is6() {
			pub.IPv6Data = say
		} else {
			pub.Data = say
		}
	}
	return pub, nil
}

// door is where this host takes the network's packets.
func (p params) door() kernel.Door { return kernel.Door{Port: p.Port, VNI: p.VNI} }

// overhead is what a family's VTEP adds: stock flannel carries IPv4 over IPv4
// and IPv6 over IPv6.
func overhead(h overlay.Half) int {
	if h.Is6() {
		return IPv6Overhead
	}
	return Overhead
}

// Distinct gives a network a VNI of its own.
func (Backend) Distinct(raw json.RawMessage, others []json.RawMessage) (json.RawMessage, error) {
	own, err := parse(raw)
	if err != nil {
		return nil, err
	}
	taken := make([]int, 0, len(others))
	for _, o := range others {
		if p, err := parse(o); err == nil {
			taken = append(taken, p.VNI)
		}
	}
	return overlay.Unlike(raw, "VNI", own.VNI, DefaultVNI+1, maxVNI, taken)
}

// Plan returns the devices, one a family, and what they need to know of each
// peer.
func (Backend) Plan(self overlay.Self, peers []overlay.Lease) (kernel.State, []overlay.Junk) {
	p, err := parse(self.Config.Backend.Raw)
	if err != nil {
		return kernel.State{}, []overlay.Junk{{Key: "config", Reason: err.Error()}}
	}
	state := kernel.State{
		Neighs: make([]kernel.Neigh, 0, len(peers)),
		FDB:    make([]kernel.FDB, 0, len(peers)),
		Routes: make([]kernel.Route, 0, len(peers)),
		Doors:  []kernel.Door{p.door()},
		Admits: make([]kernel.Admit, 0, len(peers)),
	}
	var junk []overlay.Junk
	for _, h := range self.Halves() {
		junk = append(junk, planHalf(&state, p, self, h, peers)...)
	}
	return state, junk
}

// planHalf adds one family's device and peers to the state.
func planHalf(state *kernel.State, p params, self overlay.Self, h overlay.Half, leases []overlay.Lease) []overlay.Junk {
	name := kernel.VXLANPrefix + strconv.Itoa(p.VNI)
	if h.Is6() {
		name = kernel.VXLAN6Prefix + strconv.Itoa(p.VNI)
	}
	addDevice(state, name, p, self, h)
	var junk []overlay.Junk
	direct := false
	owner := map[kernel.MAC]netip.Addr{h.MAC: h.Place.PublicIP}
	for _, lease := range leases {
		peer, both := h.Of(lease)
		if !both {
			continue
		}
		mac, err := vtep(p, lease.BackendType, peer, owner)
		if err != nil {
			junk = append(junk, overlay.Junk{Key: peer.Subnet.String(), Reason: err.Error()})
			continue
		}
		// One that is reached directly may see that otherwise.
		state.Admits = append(state.Admits, kernel.Admit{Door: p.door(), From: peer.PublicIP})
		if route, err := h.Direct(peer); err == nil && p.DirectRouting {
			state.Routes = append(state.Routes, route)
			direct = true
			continue
		}
		ip := peer.Subnet.Addr()
		state.Neighs = append(state.Neighs, kernel.Neigh{Link: name, IP: ip, MAC: mac})
		if _, known := owner[mac]; !known {
			state.FDB = append(state.FDB, kernel.FDB{Link: name, MAC: mac, Dst: peer.PublicIP})
		}
		owner[mac] = peer.PublicIP
		state.Routes = append(state.Routes, kernel.Route{Dst: peer.Subnet, Via: ip, Link: name, OnLink: true})
	}
	if direct {
		h.Plain(state)
	}
	return junk
}

// addDevice adds the VTEP itself: it holds the subnet's own address alone, so
// that the host reaches containers with an address that peers route back.
func addDevice(state *kernel.State, name string, p params, self overlay.Self, h overlay.Half) {
	mtu := self.Underlay.MTU
	if p.MTU > 0 {
		mtu = p.MTU
	}
	state.Sysctls = append(state.Sysctls, overlay.IPv6On(name, h.Is6())...)
	state.Links = append(state.Links, kernel.Link{
		Name: name, MAC: h.MAC, MTU: mtu - overhead(h), TxSum: self.TxSum,
		VXLAN: kernel.VXLAN{
			VNI: p.VNI, Port: p.Port, Local: h.Place.Addr, Dev: self.Underlay.Name,
			Learning: p.Learning, GBP: p.GBP,
		},
	})
	state.Addrs = append(state.Addrs, kernel.Addr{Link: name, Prefix: netip.PrefixFrom(h.Subnet.Addr(), h.Subnet.Addr().BitLen())})
	state.Forwards = append(state.Forwards, h.Through(name)...)
	// Other bridges of the host have no business with the network.
	state.Guards = append(state.Guards, name)
	state.Seals = append(state.Seals, self.Seals(p.Port)...)
}

// vtep reads a peer's VTEP address, or says why the peer cannot be reached.
func vtep(p params, backend string, peer overlay.Peer, owner map[kernel.MAC]netip.Addr) (kernel.MAC, error) {
	if backend != Type {
		return kernel.MAC{}, fmt.Errorf("host %s uses backend %q, this host %q", peer.PublicIP, backend, Type)
	}
	if !peer.PublicIP.IsValid() {
		return kernel.MAC{}, fmt.Errorf("the lease of %s names no PublicIPv6", peer.Subnet)
	}
	d := data{VNI: p.VNI}
	if err := json.Unmarshal(peer.Data, &d); err != nil {
		return kernel.MAC{}, fmt.Errorf("BackendData %s of host %s: %w", peer.Data, peer.PublicIP, err)
	}
	switch other, dup := owner[d.VtepMAC]; {
	case d.VNI != p.VNI:
		return d.VtepMAC, fmt.Errorf("host %s uses VNI %d, this host %d", peer.PublicIP, d.VNI, p.VNI)
	case d.VtepMAC.IsZero() || d.VtepMAC[0]&1 != 0:
		return d.VtepMAC, fmt.Errorf("VtepMAC %q of host %s is not a unicast address", d.VtepMAC, peer.PublicIP)
	case dup && other != peer.PublicIP:
		return d.VtepMAC, fmt.Errorf("VtepMAC %s of host %s is host %s's", d.VtepMAC, peer.PublicIP, other)
	}
	return d.VtepMAC, nil
}
