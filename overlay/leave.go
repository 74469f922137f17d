package overlay

import (
	"context"
	"fmt"
)

// Leave gives back at once what this host holds of a network: the lease it
// knows, and those that the store says are this host's. It is
// refused while a Docker network uses the network, or another program on this
// host does. Reservations stay.
func (o *Overlay) Leave(ctx context.Context, name string, cfg Config, stored []Lease) error {
	n, err := o.enter(ctx, name)
	if err != nil {
		return err
	}
	defer o.exit(n)
	o.mu.Lock()
	r := n.record
	err = o.inUse(n)
	o.mu.Unlock()
	if err == nil && !r.Leased {
		r.Config = cfg
		err = o.stranger(r)
	}
	if err != nil {
		return err
	}
	under, err := o.opt.Kernel.Underlay(o.opt.Underlay)
	if err != nil {
		return err
	}
	leases := []Lease{}
	for _, l := range stored {
		l.PublicIP = under.PublicIP
		leases = append(leases, l)
	}
	if r.Leased {
		leases = append(leases, Lease{Subnet: r.Subnet, IPv6Subnet: r.IPv6Subnet, PublicIP: r.Underlay.PublicIP})
	}
	for _, l := range leases {
		if err := o.opt.Store.Release(ctx, name, l); err != nil {
			return fmt.Errorf("give back %s of %s: %w", l.Subnet, title(name), err)
		}
	}
	if r.Leased {
		o.released(n)
	}
	return nil
}

// inUse refuses what would take the subnet from under containers; the caller
// holds mu.
func (o *Overlay) inUse(n *network) error {
	switch {
	case n.Docker != nil:
		return fmt.Errorf("%s (subnet %s) is used on this host by Docker network %s with %d endpoints: remove it first, with: docker network rm %s",
			title(n.Name), n.Subnet, head(n.Docker.ID), len(n.Ports), head(n.Docker.ID))
	case n.Held:
		return fmt.Errorf("%s (subnet %s) is being made a Docker network on this host: try again when docker network create has ended", title(n.Name), n.Subnet)
	}
	return nil
}

// stranger refuses leases that another program on this host, such as flanneld,
// may hold under the same PublicIP.
func (o *Overlay) stranger(r record) error {
	if err := o.roomFor(r); err != nil {
		return fmt.Errorf("the leases of %s may be another program's on this host: %w; end that first", title(r.Name), err)
	}
	return nil
}
