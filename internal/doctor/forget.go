package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/docker-flannel/docker-flannel/overlay/probe"
)

// Forget deletes the lease of a host that is gone for good. It is refused for
// this host's own, and while the host that the lease names answers.
func Forget(ctx context.Context, o Options, network string, subnet netip.Prefix) error {
	v := &visit{Options: o.defaults(), world: &World{}}
	v.askEngine(ctx)
	v.askPlugin(ctx)
	v.readKernel(ctx)
	if v.outside == nil {
		return errors.New(v.why)
	}
	var err error
	if v.world.Clusters, err = v.outside.Clusters(ctx); err != nil {
		return err
	}
	l, held := v.world.lease(network, subnet)
	if !held {
		return fmt.Errorf("etcd holds no lease %s; flannel leases lists those there are", subnet)
	}
	for _, n := range v.world.Host.Networks {
		if n.Name == network && n.Subnet == subnet {
			return fmt.Errorf("lease %s is this host's own; flannel leave gives it back", subnet)
		}
	}
	_, here := v.world.owner(l.PublicIP)
	switch {
	case here && !l.Stale():
		return fmt.Errorf("lease %s was renewed %s ago, so some host lives that says this host's PublicIP %s; give that one another", subnet, l.Idle(), l.PublicIP)
	case !l.Stale():
		return fmt.Errorf("lease %s was renewed %s ago, so host %s may live, whether it answers or not; try again when it has not been renewed for longer", subnet, l.Idle(), l.PublicIP)
	case !here:
		if err := gone(ctx, l.PublicIP); err != nil {
			return err
		}
	}
	return v.outside.Forget(ctx, network, l)
}

// gone refuses a host that answers.
func gone(ctx context.Context, host netip.Addr) error {
	return probe.Serve(ctx, false, func(p *probe.Pinger) error {
		if e := echo(ctx, p, host); e.Came {
			return fmt.Errorf("host %s answers in %s: it is not gone; take its Docker network away there", host, e.Took)
		} else if e.Error != "" {
			return fmt.Errorf("ask host %s whether it is gone: %s; mend that first", host, e.Error)
		}
		return nil
	})
}
