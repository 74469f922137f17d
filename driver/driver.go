// Package driver is the network clerk: it reads the engine's NetworkDriver
// calls, asks the overlay room, and answers. It holds no state of its own.
package driver

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// Networks is what the clerk asks of the overlay room.
type Networks interface {
	Attach(ctx context.Context, b overlay.Bridge) error
	Detach(ctx context.Context, id string) error
	AddPort(ctx context.Context, p overlay.Port) error
	Join(ctx context.Context, network, endpoint string) (overlay.Joined, error)
	RemovePort(ctx context.Context, network, endpoint string) error
}

// Addresses is what the clerk asks of whoever hands addresses out.
type Addresses interface {
	// Held tells whether the address is handed out.
	Held(addr netip.Addr) bool
}

// AddressSpace is what the ipam clerk calls its addresses; by it the driver
// knows that a pool is a lease.
const AddressSpace = "flannel"

// Clerk answers NetworkDriver calls. Every call is idempotent.
type Clerk struct {
	nets  Networks
	ports Publisher
	addrs Addresses
}

// New makes a Clerk.
func New(nets Networks, ports Publisher, addrs Addresses) *Clerk { return &Clerk{nets, ports, addrs} }

// Capabilities says that each host has its own part of the network and that
// the parts reach each other.
func (*Clerk) Capabilities() *network.CapabilitiesResponse {
	return &network.CapabilitiesResponse{Scope: network.LocalScope, ConnectivityScope: network.GlobalScope}
}

// CreateNetwork makes the bridge of a Docker network on this host's lease.
func (c *Clerk) CreateNetwork(ctx context.Context, req *network.CreateNetworkRequest) error {
	if err := checkIDs(req.NetworkID); err != nil {
		return err
	}
	opt, err := parseOptions(req.Options)
	if err != nil {
		return err
	}
	b := overlay.Bridge{
		ID: req.NetworkID, MTU: opt.mtu,
		Gateway: opt.gateway, NoMasq: opt.keepAddr, Internal: opt.internal,
	}
	if b.Subnet, err = leasePool("IPv4", req.IPv4Data); err != nil {
		return err
	}
	switch {
	case len(req.IPv6Data) > 0:
		if b.IPv6Subnet, err = leasePool("IPv6", req.IPv6Data); err != nil {
			return err
		}
	case opt.ipv6:
		return fmt.Errorf("--ipv6: the engine asked for no IPv6 addresses; tell it which, by the flannel network's IPv6 network, as in: docker network create -d flannel --ipam-driver flannel --ipv6 --subnet fd00:5::/48 NAME")
	}
	return c.nets.Attach(ctx, b)
}

// leasePool is a family's one pool of the request, which must be a lease.
func leasePool(family string, pools []*network.IPAMData) (netip.Prefix, error) {
	if len(pools) != 1 {
		return netip.Prefix{}, fmt.Errorf("%d %s pools given; a flannel network has one a host: give --subnet once a family or not at all", len(pools), family)
	}
	data := pools[0]
	if data == nil || data.AddressSpace != AddressSpace {
		return netip.Prefix{}, fmt.Errorf("a flannel network takes its addresses from flannel too; use: docker network create -d flannel --ipam-driver flannel NAME")
	}
	pool, err := netip.ParsePrefix(data.Pool)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("pool %q is not a subnet such as 10.5.7.0/24: leave --subnet out", data.Pool)
	}
	return pool.Masked(), nil
}

// DeleteNetwork removes a Docker network; an unknown one is no error.
func (c *Clerk) DeleteNetwork(ctx context.Context, req *network.DeleteNetworkRequest) error {
	if err := checkIDs(req.NetworkID); err != nil {
		return err
	}
	return c.nets.Detach(ctx, req.NetworkID)
}

// CreateEndpoint records a container's address. The answer holds a MAC address
// only where the engine gave none, for the engine refuses an echo.
func (c *Clerk) CreateEndpoint(ctx context.Context, req *network.CreateEndpointRequest) (*network.CreateEndpointResponse, error) {
	if err := checkIDs(req.NetworkID, req.EndpointID); err != nil {
		return nil, err
	}
	if req.Interface == nil || req.Interface.Address == "" {
		return nil, fmt.Errorf("endpoint %s has no IPv4 address: create the network with --ipam-driver flannel", req.EndpointID)
	}
	prefix, err := netip.ParsePrefix(req.Interface.Address)
	if err != nil || !prefix.Addr().Is4() {
		return nil, fmt.Errorf("address %q of endpoint %s is not an IPv4 address with its subnet's length, such as 10.5.7.2/24: leave --ip out", req.Interface.Address, req.EndpointID)
	}
	if !c.addrs.Held(prefix.Addr()) {
		return nil, fmt.Errorf("address %s of endpoint %s was not handed out by flannel on this host: start the container again", prefix.Addr(), req.EndpointID)
	}
	port := overlay.Port{Network: req.NetworkID, Endpoint: req.EndpointID, Addr: prefix.Addr()}
	if port.IPv6, err = c.ipv6(req); err != nil {
		return nil, err
	}
	var answer network.EndpointInterface
	if req.Interface.MacAddress == "" {
		port.MAC = macOf(port.Addr)
		answer.MacAddress = port.MAC.String()
	} else if port.MAC, err = kernel.ParseMAC(req.Interface.MacAddress); err != nil {
		return nil, fmt.Errorf("endpoint %s: %w: correct --mac-address or leave it out", req.EndpointID, err)
	}
	if err := c.nets.AddPort(ctx, port); err != nil {
		return nil, err
	}
	return &network.CreateEndpointResponse{Interface: &answer}, nil
}

// ipv6 is an endpoint's IPv6 address; zero for none.
func (c *Clerk) ipv6(req *network.CreateEndpointRequest) (netip.Addr, error) {
	text := req.Interface.AddressIPv6
	if text == "" {
		return netip.Addr{}, nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil || !prefix.Addr().Is6() || prefix.Addr().Is4In6() {
		return netip.Addr{}, fmt.Errorf("address %q of endpoint %s is not an IPv6 address with its subnet's length, such as fd00:5:0:7::2/64: leave --ip6 out", text, req.EndpointID)
	}
	if !c.addrs.Held(prefix.Addr()) {
		return netip.Addr{}, fmt.Errorf("address %s of endpoint %s was not handed out by flannel on this host: start the container again", prefix.Addr(), req.EndpointID)
	}
	return prefix.Addr(), nil
}

// macOf is the address that Docker gives a container with this IP address:
// stable, so that neighbours' caches stay right when a container restarts.
func macOf(ip netip.Addr) kernel.MAC {
	four := ip.As4()
	return kernel.MAC{0x02, 0x42, four[0], four[1], four[2], four[3]}
}

// DeleteEndpoint forgets a container's port; an unknown one is no error.
func (c *Clerk) DeleteEndpoint(ctx context.Context, req *network.DeleteEndpointRequest) error {
	if err := checkIDs(req.NetworkID, req.EndpointID); err != nil {
		return err
	}
	return c.nets.RemovePort(ctx, req.NetworkID, req.EndpointID)
}

// EndpointInfo has nothing to add to what the engine knows.
func (*Clerk) EndpointInfo(_ context.Context, req *network.InfoRequest) (*network.InfoResponse, error) {
	if err := checkIDs(req.NetworkID, req.EndpointID); err != nil {
		return nil, err
	}
	return &network.InfoResponse{Value: map[string]string{}}, nil
}

// routeVia is libnetwork's route type for a route with a next hop.
const routeVia = 0

// Join makes the container's interface. Where it names no gateway the engine's
// own docker_gwbridge carries egress and published ports. The cluster network is
// one static route a family in any case: the default route may lead into another
// network of the container.
func (c *Clerk) Join(ctx context.Context, req *network.JoinRequest) (*network.JoinResponse, error) {
	if err := checkIDs(req.NetworkID, req.EndpointID); err != nil {
		return nil, err
	}
	joined, err := c.nets.Join(ctx, req.NetworkID, req.EndpointID)
	if err != nil {
		return nil, err
	}
	routes := []*network.StaticRoute{{
		Destination: joined.Network.CIDR.String(), RouteType: routeVia, NextHop: joined.Network.Gateway.String(),
	}}
	if joined.IPv6 {
		routes = append(routes, &network.StaticRoute{
			Destination: joined.Network.IPv6CIDR.String(), RouteType: routeVia, NextHop: joined.Network.IPv6Subnet.Addr().Next().String(),
		})
	}
	answer := &network.JoinResponse{
		InterfaceName: network.InterfaceName{SrcName: joined.Interface, DstPrefix: "eth"},
		StaticRoutes:  routes,
	}
	if joined.Gateway.IsValid() {
		answer.Gateway = joined.Gateway.String()
	}
	if joined.GatewayIPv6.IsValid() {
		answer.GatewayIPv6 = joined.GatewayIPv6.String()
	}
	return answer, nil
}

// Leave withdraws the ports, for an engine may forget to. The interface stays:
// the engine hands it back after Leave, and Join may follow on the same endpoint.
func (c *Clerk) Leave(ctx context.Context, req *network.LeaveRequest) error {
	if err := checkIDs(req.NetworkID, req.EndpointID); err != nil {
		return err
	}
	return c.ports.Publish(ctx, req.NetworkID, req.EndpointID, nil)
}

// ids are Docker's: 64 hexadecimal digits, or 25 letters and digits from swarm.
var ids = regexp.MustCompile(`^[0-9a-z]{12,64}$`)

func checkIDs(all ...string) error {
	for _, id := range all {
		if !ids.MatchString(id) {
			return fmt.Errorf("%.80q is not a Docker id: give 12 to 64 lower-case letters and digits", id)
		}
	}
	return nil
}
