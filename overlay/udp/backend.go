package udp

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// Type is the backend's name in flannel's config, and what a config without a
// Backend means. Leases do not say it.
const Type = "udp"

// Backend carries packets over UDP in this process. It has no state.
type Backend struct{}

// params are the fields of flannel's Backend object.
type params struct {
	Port int
}

func parse(raw json.RawMessage) (params, error) {
	p := params{Port: DefaultPort}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &p); err != nil {
			return p, fmt.Errorf("read the config's Backend %s: %w; correct it", raw, err)
		}
	}
	if p.Port == 0 {
		p.Port = DefaultPort
	}
	if p.Port < 1 || p.Port > maxPort {
		return p, fmt.Errorf("port %d is outside 1-%d: correct Backend in the network's config", p.Port, maxPort)
	}
	return p, nil
}

const maxPort = 1<<16 - 1

// device is the TUN device's name: stock flannel's for its port.
func (p params) device() string {
	if p.Port == DefaultPort {
		return kernel.TUNPrefix + "0"
	}
	return kernel.TUNPrefix + strconv.Itoa(p.Port)
}

// Publish says nothing but the PublicIP, as stock flannel's leases do.
func (Backend) Publish(self overlay.Self) (overlay.Publication, error) {
	if _, err := parse(self.Config.Backend.Raw); err != nil {
		return overlay.Publication{}, err
	}
	for _, ip := range []netip.Addr{self.Underlay.Addr, self.Underlay.PublicIP} {
		if !ip.Is4() {
			return overlay.Publication{}, fmt.Errorf("address %s of interface %s is not IPv4, which the tunnel needs", ip, self.Underlay.Name)
		}
	}
	return overlay.Publication{Overhead: Overhead, MTU: self.Underlay.MTU}, nil
}

// vxlanPort is the UDP port of all vxlan networks, on which the kernel listens.
const vxlanPort = 8472

// Distinct gives a network a port of its own.
func (Backend) Distinct(raw json.RawMessage, others []json.RawMessage) (json.RawMessage, error) {
	own, err := parse(raw)
	if err != nil {
		return nil, err
	}
	taken := []int{vxlanPort}
	for _, o := range others {
		if p, err := parse(o); err == nil {
			taken = append(taken, p.Port)
		}
	}
	return overlay.Unlike(raw, "Port", own.Port, DefaultPort+1, maxPort, taken)
}

// Plan returns the TUN device, with the whole network routed to it: what no
// peer holds is answered there.
func (Backend) Plan(self overlay.Self, peers []overlay.Lease) (kernel.State, []overlay.Junk) {
	p, err := parse(self.Config.Backend.Raw)
	if err != nil {
		return kernel.State{}, []overlay.Junk{{Key: "config", Reason: err.Error()}}
	}
	var junk []overlay.Junk
	door := kernel.Door{Port: p.Port}
	admits := make([]kernel.Admit, 0, len(peers))
	for _, peer := range peers {
		if err := fits(peer); err != nil {
			junk = append(junk, overlay.Junk{Key: peer.Subnet.String(), Reason: err.Error()})
			continue
		}
		admits = append(admits, kernel.Admit{Door: door, From: peer.PublicIP})
	}
	name := p.device()
	state := kernel.State{
		// ICMP errors come out of the device with its own address.
		Sysctls: append(overlay.IPv6On(name, self.IPv6), kernel.Sysctl{Key: "ipv4/conf/" + name + "/accept_local", Value: "1"}),
		Links:   []kernel.Link{{Name: name, MTU: self.Underlay.MTU - Overhead, TUN: true}},
		// Other bridges of the host have no business with the network.
		Guards: []string{name},
		Seals:  self.Seals(p.Port),
		Doors:  []kernel.Door{door},
		Admits: admits,
	}
	for _, h := range self.Halves() {
		state.Addrs = append(state.Addrs, kernel.Addr{Link: name, Prefix: netip.PrefixFrom(h.Subnet.Addr(), h.Subnet.Addr().BitLen())})
		state.Routes = append(state.Routes, kernel.Route{Dst: h.Network, Link: name})
		state.Forwards = append(state.Forwards, h.Through(name)...)
	}
	return state, junk
}

// fits tells why a peer cannot be reached. Stock flannel's leases of this
// backend have no BackendType.
func fits(peer overlay.Lease) error {
	if peer.BackendType != "" && peer.BackendType != Type {
		return fmt.Errorf("host %s uses backend %q, this host %q", peer.PublicIP, peer.BackendType, Type)
	}
	if !peer.PublicIP.Is4() {
		return fmt.Errorf("PublicIP %s is not IPv4", peer.PublicIP)
	}
	return nil
}

// Segments is what one message of the socket carries: 44 with an MTU of 1472.
// Containers' super-packets may hold one more, and would go as two messages,
// which the other host cannot put together again.
func (Backend) Segments(mtu int) int { return perMessage(maxRun, max(mtu, minMTU)) }

// Open attaches to the device and listens on the underlay.
func (Backend) Open(self overlay.Self, log *slog.Logger) (overlay.Tunnel, error) {
	p, err := parse(self.Config.Backend.Raw)
	if err != nil {
		return nil, err
	}
	d, err := Open(Options{
		Name: p.device(), Local: netip.AddrPortFrom(self.Underlay.Addr, uint16(p.Port)),
		MTU: self.Underlay.MTU - Overhead, Log: log,
	})
	if err != nil {
		return nil, err
	}
	t := tunnel{Device: d, subnet: self.Subnet, port: uint16(p.Port)}
	if self.IPv6 {
		t.ipv6 = self.IPv6Subnet
	}
	return t, nil
}

// tunnel is a Device that knows whose it is.
type tunnel struct {
	*Device
	subnet netip.Prefix
	ipv6   netip.Prefix // zero without IPv6
	port   uint16
}

// Follow gives the device a new table.
func (t tunnel) Follow(leases []overlay.Lease) {
	peers := make([]Peer, 0, len(leases))
	for _, l := range leases {
		if fits(l) == nil {
			peers = append(peers, Peer{Subnet: l.Subnet, IPv6: l.IPv6Subnet, Addr: netip.AddrPortFrom(l.PublicIP, t.port)})
		}
	}
	t.Set(NewDualTable(t.subnet, t.ipv6, peers))
}

// Traffic is the device's count.
func (t tunnel) Traffic() report.Traffic { return report.Traffic(t.Counters()) }

// Close also tells what was carried.
func (t tunnel) Close() error {
	c := t.Counters()
	t.opt.Log.Info("tunnel closed", "device", t.opt.Name, "sent_packets", c.SentPackets, "received_packets", c.ReceivedPackets, "drops", c.Drops)
	return t.Device.Close()
}
