package overlay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// Attach makes the Docker network b on a subnet that Acquire returned. It is
// idempotent.
func (o *Overlay) Attach(ctx context.Context, b Bridge) error {
	n, fresh, err := o.bind(b)
	if err != nil {
		return err
	}
	if fresh {
		if err := o.save(); err != nil {
			o.unbind(n)
			return fmt.Errorf("save Docker network %s: %w", head(b.ID), err)
		}
	}
	nudge(n.turn)
	err = o.sync(ctx, o.needs(n, b)...)
	if err == nil {
		err = o.carried(ctx, n)
	}
	if err != nil {
		if fresh {
			o.unbind(n)
			err = errors.Join(err, o.save())
			o.poke()
		}
		return fmt.Errorf("make bridge %s for %s: %w", b.Name(), b.Subnet, err)
	}
	return nil
}

// needs names what must stand before a Docker network works.
func (o *Overlay) needs(n *network, b Bridge) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	parts := []kernel.State{planBridge(&n.record, b)}
	if backend, err := o.backend(n.Config.Backend.Type); err == nil {
		part, _ := backend.Plan(n.self(), nil)
		parts = append(parts, part)
	}
	needs := []string{"docker-user", "sysctl ipv4/ip_forward"}
	if b.IPv6Subnet.IsValid() {
		needs = append(needs, "docker-user ip6", "sysctl "+kernel.IPv6Forwarding)
	}
	for _, part := range parts {
		needs = append(needs, objects(part)...)
	}
	return needs
}

// objects names the devices and addresses of a plan.
func objects(plan kernel.State) []string {
	var names []string
	for _, l := range plan.Links {
		names = append(names, "link "+l.Name)
	}
	for _, a := range plan.Addrs {
		names = append(names, "addr "+a.Link+" "+a.Prefix.String())
	}
	return names
}

// bind records the Docker network; fresh is false when it stood already.
func (o *Overlay) bind(b Bridge) (n *network, fresh bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forward = true
	n = o.bySubnet(b.Subnet)
	switch known := o.byDocker(b.ID); {
	case known != nil && *known.Docker == b:
		return known, false, nil
	case known != nil:
		return nil, false, fmt.Errorf("network %s stands already, on subnet %s with MTU %d: remove it first with: docker network rm %s",
			head(b.ID), known.Subnet, known.portMTU(), head(b.ID))
	case n == nil:
		return nil, false, fmt.Errorf("subnet %s is not a lease of this host: create the network with --ipam-driver flannel", b.Subnet)
	case n.Docker != nil:
		return nil, false, o.available(n)
	case b.IPv6Subnet.IsValid() && b.IPv6Subnet != n.IPv6Subnet:
		return nil, false, fmt.Errorf("IPv6 subnet %s is not in the lease of %s: create the network with --ipam-driver flannel", b.IPv6Subnet, b.Subnet)
	case b.IPv6Subnet.IsValid() && b.MTU > 0 && b.MTU < minIPv6MTU:
		return nil, false, fmt.Errorf("-o com.docker.network.driver.mtu=%d: IPv6 needs at least %d bytes; give that or more, or leave --ipv6 out", b.MTU, minIPv6MTU)
	case b.MTU > n.MTU:
		return nil, false, fmt.Errorf("-o com.docker.network.driver.mtu=%d: %s carries at most %d bytes here; give that or less, or leave it out", b.MTU, title(n.Name), n.MTU)
	}
	n.Docker = &b
	o.peers = nil
	n.carrying.begin()
	n.mending.begin()
	return n, true, nil
}

func (o *Overlay) unbind(n *network) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n.Docker, n.Ports, n.Published = nil, nil, nil
	clear(n.joining)
	o.peers = nil
}

// Detach removes a Docker network and its ports, and gives the lease back. The
// engine has released the subnet before; where that call was lost, this one
// stands for it. An unknown id is no error.
func (o *Overlay) Detach(ctx context.Context, id string) error {
	n := o.detach(id)
	if n == nil {
		return nil
	}
	defer nudge(n.turn) // where this ends early, tend gives the lease back
	if err := o.save(); err != nil {
		return fmt.Errorf("save the removal of Docker network %s: %w", head(id), err)
	}
	if err := o.sync(ctx); err != nil {
		return err
	}
	return o.giveBack(ctx, n)
}

// detach forgets a Docker network. Once it has, the subnet may be acquired anew.
func (o *Overlay) detach(id string) *network {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.byDocker(id)
	if n != nil {
		n.Docker, n.Ports, n.Published, n.Held = nil, nil, nil, false
		clear(n.joining)
		o.peers = nil
	}
	return n
}

// Attachments are the Docker networks of this host.
func (o *Overlay) Attachments() []Attachment {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []Attachment
	for _, n := range o.sorted() {
		if n.Docker != nil {
			all = append(all, Attachment{*n.Docker, slices.Clone(n.Ports), slices.Clone(n.Published)})
		}
	}
	return all
}

// AddPort records a container's port. It is idempotent.
func (o *Overlay) AddPort(_ context.Context, p Port) error {
	fresh, err := o.addPort(p)
	if err != nil {
		return err
	}
	if err := o.save(); err != nil {
		if fresh {
			o.dropPort(p.Network, p.Endpoint)
		}
		return fmt.Errorf("save endpoint %s: %w", head(p.Endpoint), err)
	}
	return nil
}

// addPort enters the port; fresh is false when it was there already.
func (o *Overlay) addPort(p Port) (fresh bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forward = true
	n := o.byDocker(p.Network)
	if n == nil {
		return false, unknownNetwork(p.Network)
	}
	if !n.Subnet.Contains(p.Addr) {
		return false, fmt.Errorf("address %s is outside this host's subnet %s: start the container again, without --ip", p.Addr, n.Subnet)
	}
	if p.IPv6.IsValid() && !n.Docker.IPv6Subnet.Contains(p.IPv6) {
		return false, fmt.Errorf("address %s is outside this host's IPv6 subnet (%s): start the container again, without --ip6", p.IPv6, n.IPv6Subnet)
	}
	p.MTU = n.portMTU()
	for _, q := range n.Ports {
		same := q
		same.MTU = p.MTU
		switch {
		case same == p:
			return false, nil
		case head(q.Endpoint) == head(p.Endpoint): // interfaces are named after it
			return false, fmt.Errorf("endpoint %s exists already, with address %s and MAC address %s: stop its container and start it again", head(p.Endpoint), q.Addr, q.MAC)
		case q.Addr == p.Addr:
			return false, fmt.Errorf("address %s belongs to endpoint %s already: give every container a --mac-address and --ip of its own, or none", p.Addr, head(q.Endpoint))
		case q.has(p.IPv6):
			return false, fmt.Errorf("address %s belongs to endpoint %s already: give every container a --mac-address and --ip6 of its own, or none", p.IPv6, head(q.Endpoint))
		}
	}
	n.Ports = append(slices.Clone(n.Ports), p)
	return true, nil
}

func unknownNetwork(id string) error {
	return fmt.Errorf("network %s is not known on this host: remove it with docker network rm %s and create it anew", head(id), head(id))
}

// Join makes the port's veth pair and returns what the engine moves into the
// container. It is idempotent, and may follow a Leave.
func (o *Overlay) Join(ctx context.Context, dockerNet, endpoint string) (Joined, error) {
	n, err := o.joining(dockerNet, endpoint, true)
	if err != nil {
		return Joined{}, err
	}
	name := vethName(endpoint)
	err = o.sync(ctx, "veth "+name, "link "+Bridge{ID: dockerNet}.Name())
	if _, undo := o.joining(dockerNet, endpoint, false); undo != nil {
		return Joined{}, undo
	}
	if err != nil {
		return Joined{}, fmt.Errorf("make veth pair %s: %w", name, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	joined := Joined{Interface: peerName(endpoint), Network: n.view()}
	joined.IPv6 = slices.ContainsFunc(n.Ports, func(p Port) bool { return p.Endpoint == endpoint && p.IPv6.IsValid() })
	if n.Docker != nil && n.Docker.leadsOut() {
		joined.Gateway = joined.Network.Gateway
		if joined.IPv6 {
			joined.GatewayIPv6 = joined.Network.IPv6Subnet.Addr().Next()
		}
	}
	return joined, nil
}

// joining says whether the port's veth pair is to be made where it is missing.
func (o *Overlay) joining(dockerNet, endpoint string, on bool) (*network, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forward = true
	n := o.byDocker(dockerNet)
	if n == nil {
		return nil, unknownNetwork(dockerNet)
	}
	if !slices.ContainsFunc(n.Ports, func(p Port) bool { return p.Endpoint == endpoint }) {
		return nil, fmt.Errorf("endpoint %s is not known on this host: restart the container", head(endpoint))
	}
	if on {
		n.joining[endpoint] = true
	} else {
		delete(n.joining, endpoint)
	}
	return n, nil
}

// handOver ends the making of the veth pairs that a pass found or made whole, before
// another pass is planned: from now on the engine may take their other ends, which
// is no reason to make them anew. The caller holds the lock.
func (o *Overlay) handOver(want kernel.State, failed []kernel.Failure) {
	made := map[string]bool{}
	for _, v := range want.Veths {
		if v.Create && pick(failed, []string{"veth " + v.Name}) == nil {
			made[v.Name] = true
		}
	}
	for _, n := range o.nets {
		maps.DeleteFunc(n.joining, func(endpoint string, _ bool) bool { return made[vethName(endpoint)] })
	}
}

// RemovePort forgets a port. Its veth pair goes with the next pass, which is
// not waited for: the kernel takes some 20 ms for it, and nobody asks for the
// name again. An unknown port is no error.
func (o *Overlay) RemovePort(_ context.Context, dockerNet, endpoint string) error {
	if !o.dropPort(dockerNet, endpoint) {
		return nil
	}
	if err := o.save(); err != nil {
		return fmt.Errorf("save the removal of endpoint %s: %w", head(endpoint), err)
	}
	o.poke()
	return nil
}

func (o *Overlay) dropPort(dockerNet, endpoint string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.byDocker(dockerNet)
	if n == nil {
		return false
	}
	before := len(n.Ports)
	n.Ports = slices.DeleteFunc(slices.Clone(n.Ports), func(p Port) bool { return p.Endpoint == endpoint })
	n.withdraw(endpoint)
	delete(n.joining, endpoint)
	return len(n.Ports) < before
}

func vethName(endpoint string) string { return kernel.VethPrefix + head(endpoint) }

func peerName(endpoint string) string { return kernel.VethPeerPrefix + head(endpoint) }
