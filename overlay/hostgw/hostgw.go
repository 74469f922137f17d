// Package hostgw is flannel's host-gw backend: hosts on one layer-2 network
// route to each other's subnets directly, without encapsulation.
package hostgw

import (
	"encoding/json"
	"fmt"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// Type is the backend's name in flannel's config.
const Type = "host-gw"

// Backend routes packets. It has no state.
type Backend struct{}

// Publish refuses a PublicIP that is not the interface's address: peers use it
// as their next hop.
func (Backend) Publish(self overlay.Self) (overlay.Publication, error) {
	if u := self.Underlay; u.PublicIP != u.Addr {
		return overlay.Publication{}, fmt.Errorf(
			"PublicIP %s is not the address %s of interface %s, so other hosts cannot route through it; leave the setting PUBLIC_IP out, or use the backend vxlan",
			u.PublicIP, u.Addr, u.Name)
	}
	pub := overlay.Publication{Type: Type, MTU: self.Underlay.MTU, NoIPv6: self.NoIPv6()}
	if six := self.Underlay.IPv6; six.PublicIP != six.Addr {
		pub.NoIPv6 = fmt.Errorf(
			"PublicIPv6 %s is not the address %s of interface %s, so other hosts cannot route through it; leave the setting PUBLIC_IPV6 out, or use the backend vxlan",
			six.PublicIP, six.Addr, self.Underlay.Name)
	}
	return pub, nil
}

// Distinct returns raw: routes of several networks are in nobody's way.
func (Backend) Distinct(raw json.RawMessage, _ []json.RawMessage) (json.RawMessage, error) {
	return raw, nil
}

// Plan returns one route a peer and family.
func (Backend) Plan(self overlay.Self, peers []overlay.Lease) (kernel.State, []overlay.Junk) {
	state := kernel.State{Routes: make([]kernel.Route, 0, len(peers))}
	var junk []overlay.Junk
	for _, h := range self.Halves() {
		h.Plain(&state)
		for _, lease := range peers {
			peer, both := h.Of(lease)
			if !both {
				continue
			}
			route, err := h.Direct(peer)
			if lease.BackendType != Type {
				err = fmt.Errorf("host %s uses backend %q, this host %q", peer.PublicIP, lease.BackendType, Type)
			}
			if err != nil {
				junk = append(junk, overlay.Junk{Key: peer.Subnet.String(), Reason: err.Error()})
				continue
			}
			state.Routes = append(state.Routes, route)
		}
	}
	return state, junk
}
