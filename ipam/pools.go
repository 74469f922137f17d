package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	api "github.com/docker/go-plugins-helpers/ipam"
)

// gatewayData is the key under which a pool's answer names its gateway; the
// engine then does not ask for it in a call of its own.
const gatewayData = "com.docker.network.gateway"

// patience is how long an acquired subnet's return may take after the call that
// acquired it has come to nothing.
const patience = 2 * time.Second

// RequestPool acquires this host's subnet of a flannel network and answers with
// it and its gateway. The addresses of a subnet that is left over rest. The
// errors say what is not accepted and what to do, or why no subnet could be had.
func (c *Clerk) RequestPool(ctx context.Context, req *api.RequestPoolRequest) (*api.RequestPoolResponse, error) {
	want, err := parsePoolRequest(req)
	if err != nil {
		return nil, err
	}
	if err := c.enter(ctx); err != nil {
		return nil, fmt.Errorf("request a pool: %w", err)
	}
	defer c.leave()
	network, err := c.overlay.Acquire(ctx, want)
	if err != nil {
		return nil, fmt.Errorf("request a pool: %w", err)
	}
	subnet := network.Subnet
	if want.IPv6 {
		subnet = network.IPv6Subnet
	}
	gateway, err := c.open(network.Name, subnet)
	if err != nil {
		return nil, c.giveBack(ctx, subnet, err)
	}
	return &api.RequestPoolResponse{
		PoolID: subnet.String(),
		Pool:   subnet.String(),
		Data:   map[string]string{gatewayData: gateway.String()},
	}, nil
}

// open enters the pool, puts it on disk and returns its gateway.
func (c *Clerk) open(network string, subnet netip.Prefix) (netip.Prefix, error) {
	a, err := NewAllocator(subnet)
	if err != nil {
		return netip.Prefix{}, err
	}
	c.mu.Lock()
	before := c.pools[subnet]
	if before == nil {
		c.pools[subnet] = newPool(network, a)
	} else {
		before.vacate()
	}
	c.mu.Unlock()
	if err := c.commit(); err != nil {
		if before == nil {
			c.forget(subnet)
		}
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a.Gateway(), subnet.Bits()), nil
}

// vacate releases every address; the caller holds mu.
func (p *pool) vacate() {
	for _, h := range p.Held() {
		if p.unsaved[h.Addr] == nil {
			p.Release(h.Addr)
		}
	}
}

// giveBack releases a subnet that could not be used and returns why it could
// not, with the release's own error where there is one.
func (c *Clerk) giveBack(ctx context.Context, subnet netip.Prefix, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := c.overlay.Release(ctx, subnet); err != nil {
		return fmt.Errorf("%w; and give subnet %s back: %w", why, subnet, err)
	}
	return why
}

// ReleasePool forgets a pool with its addresses and gives its subnet back. An
// unknown pool's subnet is given back too: the overlay may know it. The pool is
// gone even where the error says that the file or the overlay still has it;
// calling again tries those again.
func (c *Clerk) ReleasePool(ctx context.Context, req *api.ReleasePoolRequest) error {
	subnet, err := poolID(req.PoolID)
	if err != nil {
		return fmt.Errorf("release a pool: %w", err)
	}
	if err := c.enter(ctx); err != nil {
		return fmt.Errorf("release pool %s: %w", subnet, err)
	}
	defer c.leave()
	c.forget(subnet)
	if err := errors.Join(c.commit(), c.overlay.Release(ctx, subnet)); err != nil {
		return fmt.Errorf("release pool %s: %w", subnet, err)
	}
	return nil
}

// enter begins a pool call. They go one at a time, lest the release of a subnet
// overtake its acquisition; addresses are handed out meanwhile.
func (c *Clerk) enter(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for another call about pools: %w; try again", ctx.Err())
	}
}

func (c *Clerk) leave() { <-c.turn }

// forget drops a pool.
func (c *Clerk) forget(subnet netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pools, subnet)
}

// subnets lists the pools in order; the caller holds mu.
func (c *Clerk) subnets() []netip.Prefix {
	return slices.SortedFunc(maps.Keys(c.pools), netip.Prefix.Compare)
}
