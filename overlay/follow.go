package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// tend looks after one network's lease for as long as the process runs: while
// the network is used it follows the store and keeps the lease; once it is not,
// it gives the lease back.
func (o *Overlay) tend(ctx context.Context, n *network) error {
	for ctx.Err() == nil {
		o.mu.Lock()
		used, leased := n.used(), n.Leased
		o.mu.Unlock()
		turn, stop := context.WithCancel(ctx)
		var g errgroup.Group
		switch {
		case used:
			g.Go(func() error { return o.opt.Store.Watch(turn, n.Name, func(s Snapshot) { o.learn(n, s) }) })
			g.Go(func() error { return o.keep(turn, n) })
			g.Go(func() error { return o.mend(turn, n) })
		case leased:
			g.Go(func() error { return o.release(turn, n) })
		}
		select {
		case <-n.turn:
		case <-ctx.Done():
		}
		stop()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("follow %s: %w", title(n.Name), err)
		}
	}
	return ctx.Err()
}

// learn takes in what the store says of a network.
func (o *Overlay) learn(n *network, s Snapshot) {
	if !o.adopt(n, s) {
		return
	}
	if err := o.seen.Commit(); err != nil {
		o.opt.Log.Error("save the leases last seen", "error", err)
	}
	o.poke()
}

// adopt takes over a snapshot's leases. It does not where they were judged by
// no config, or by one for other subnets than this host's network was made
// with: then nothing can be said of the leases, and those seen last stand.
func (o *Overlay) adopt(n *network, s Snapshot) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.take(n, s)
}

// take is adopt for a caller that holds mu.
func (o *Overlay) take(n *network, s Snapshot) bool {
	junk := slices.Clone(s.Junk)
	defer func() { o.skip(n, byStore, junk) }()
	odd := func(key, reason string, args ...any) {
		junk = append(junk, Junk{Key: key, Reason: fmt.Sprintf(reason, args...)})
	}
	if half := s.ofIPv4(); s.Config.EnableIPv6 && !n.Config.EnableIPv6 && half.Config.SameSubnets(n.Config) {
		odd("config", "the config in the store has IPv6 now; it takes effect here when the Docker network is removed and created anew")
		s = half
	}
	switch {
	case !s.Configured:
		n.mourning.lost(time.Now())
		nudge(n.kick)
		return false
	case !s.Config.SameSubnets(n.Config):
		odd("config", "the config in the store is for other subnets (%s, SubnetLen %d) than this host's network (%s, SubnetLen %d): nothing changes here until the Docker network is removed and created anew, on every host",
			s.Config.Network, s.Config.SubnetLen, n.Config.Network, n.Config.SubnetLen)
		return false
	case !s.Config.Equal(n.Config):
		odd("config", "the config in the store has changed; it takes effect here when the Docker network is removed and created anew")
	}
	i := slices.IndexFunc(s.Leases, func(l Lease) bool { return l.Subnet == n.Subnet && l.IPv6Subnet == n.IPv6Subnet })
	for _, l := range s.Leases {
		if l.PublicIP == n.Underlay.PublicIP && l.Subnet != n.Subnet {
			odd(l.Subnet.String(), "it names this host's PublicIP %s, and this host holds %s: it is a leftover, or another host has the PublicIP too; give that one another with the setting PUBLIC_IP",
				l.PublicIP, n.Subnet)
		}
	}
	before := n.peers
	n.peers = n.remember(s, i >= 0, time.Now())
	o.tidings(n, before, n.peers)
	n.tenure.gone = i < 0
	o.peers = nil
	nudge(n.mending.news)
	if i < 0 || s.Leases[i].PublicIP != n.Underlay.PublicIP || n.IPv6Subnet.IsValid() && s.Leases[i].PublicIPv6 != n.Underlay.IPv6.PublicIP {
		nudge(n.kick)
	} else if n.published != nil && !bytes.Equal(s.Leases[i].BackendData, n.published) {
		odd(n.Subnet.String(), "this host's lease says %s, not %s: another host has the PublicIP %s too; give one of them another with the setting PUBLIC_IP",
			s.Leases[i].BackendData, n.published, n.Underlay.PublicIP)
	}
	return true
}

// maxRenewal bounds the time between renewals of a lease.
const maxRenewal = time.Hour

// keep claims the lease at the start and whenever it is lost, and renews it in
// between. It never moves the subnet: a conflict is reported and tried again.
func (o *Overlay) keep(ctx context.Context, n *network) error {
	retry := backoff{min: time.Second, max: 30 * time.Second}
	var reported string
	o.mu.Lock()
	subnet := n.Subnet
	o.mu.Unlock()
	claimed := false
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.kick:
			claimed = false
		case <-wait.C:
		}
		addr := o.address(n)
		err := o.renew(ctx, n, claimed)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil || o.address(n) == addr {
			o.mark(n, err)
		}
		if err == nil {
			if reported != "" {
				o.opt.Log.Info("lease is held again", "network", title(n.Name), "subnet", subnet)
			}
			claimed, reported = true, ""
			retry.reset()
			wait.Reset(min(o.opt.TTL/3, maxRenewal))
			continue
		}
		if o.address(n) != addr {
			continue // it was cut off with the former address, and the kick is there
		}
		if err.Error() != reported {
			reported = err.Error()
			o.opt.Log.Error("lease not renewed, trying on", "network", title(n.Name), "subnet", subnet, "error", err)
		}
		wait.Reset(retry.next())
	}
}

// renew keeps a lease that was claimed before and claims one that was not.
func (o *Overlay) renew(ctx context.Context, n *network, claimed bool) error {
	o.mu.Lock()
	r := n.record
	o.mu.Unlock()
	claim, _, err := o.offer(r)
	if err != nil {
		return err
	}
	if claimed {
		lease := Lease{Subnet: r.Subnet, IPv6Subnet: r.IPv6Subnet, PublicIP: claim.PublicIP, BackendType: claim.BackendType, BackendData: claim.BackendData}
		if err := o.opt.Store.Keep(ctx, r.Name, lease); !errors.Is(err, ErrLeaseLost) {
			return err
		}
		o.mourn(n)
		o.opt.Log.Warn("lease lost, claiming it back", "network", title(r.Name), "subnet", r.Subnet)
	}
	claim.Prefer, claim.Must = r.Subnet, true
	claim.PreferIPv6, claim.MustIPv6 = r.IPv6Subnet, r.IPv6Subnet.IsValid()
	switch {
	case !claim.MustIPv6:
		claim = claim.ipv4()
	case !claim.IPv6:
		return fmt.Errorf("the lease has IPv6 subnet %s: %w", r.IPv6Subnet, o.whyNoIPv6(r))
	}
	_, err = o.opt.Store.Claim(ctx, r.Name, claim)
	if errors.Is(err, ErrNoConfig) {
		o.mourn(n)
		err = o.restore(ctx, r, claim)
	}
	if err == nil {
		o.mu.Lock()
		n.published = claim.BackendData
		if n.Underlay.PublicIP == claim.PublicIP {
			n.Former = netip.Addr{}
		}
		o.mu.Unlock()
		return o.file.Commit()
	}
	if taken := (*TakenError)(nil); errors.As(err, &taken) {
		return fmt.Errorf("%w while containers of this host use it: remove the Docker network on one of the two hosts and create it anew", err)
	}
	return err
}

// restore writes the config that this host's network was made with where the
// store has lost it, and claims the lease again.
func (o *Overlay) restore(ctx context.Context, r record, claim Claim) error {
	text, err := r.Config.Text()
	if err != nil {
		return fmt.Errorf("write the config of %s again: %w", title(r.Name), err)
	}
	now, err := o.opt.Store.Config(ctx, r.Name, func(map[string]Config) ([]byte, error) { return text, nil })
	if err != nil {
		return fmt.Errorf("write the config of %s again: %w", title(r.Name), err)
	}
	o.opt.Log.Warn("the store had lost the network's config, which is there again", "network", title(r.Name), "config", string(text), "same", now.Equal(r.Config))
	_, err = o.opt.Store.Claim(ctx, r.Name, claim)
	return err
}

// release gives the lease back, trying on until it is done.
func (o *Overlay) release(ctx context.Context, n *network) error {
	retry := backoff{min: time.Second, max: 30 * time.Second}
	o.mu.Lock()
	lease := Lease{Subnet: n.Subnet, IPv6Subnet: n.IPv6Subnet, PublicIP: n.Underlay.PublicIP}
	o.mu.Unlock()
	for {
		err := o.tryRelease(ctx, n, lease)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		o.opt.Log.Warn("lease not given back, trying on", "network", title(n.Name), "subnet", lease.Subnet, "error", err)
		select {
		case <-time.After(retry.next()):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tryRelease gives the lease back unless the network came into use again.
func (o *Overlay) tryRelease(ctx context.Context, n *network, lease Lease) error {
	if err := n.enter(ctx); err != nil {
		return err
	}
	defer n.leave()
	o.mu.Lock()
	used := n.used()
	o.mu.Unlock()
	if used {
		return nil
	}
	if err := o.opt.Store.Release(ctx, n.Name, lease); err != nil {
		return err
	}
	o.released(n)
	return nil
}

// released notes that the store holds no lease of ours any more. The subnet
// stays known, to be asked for first the next time.
func (o *Overlay) released(n *network) {
	o.mu.Lock()
	if !n.used() && n.Leased {
		n.Leased, n.Since, n.peers, n.mourning, n.tenure = false, time.Time{}, nil, mourning{}, tenure{}
		o.skip(n, byStore, nil)
		o.skip(n, byPlan, nil)
		close(n.idle)
	}
	o.mu.Unlock()
	if err := o.file.Commit(); err != nil {
		o.opt.Log.Error("save the release of a lease", "error", err)
	}
}

// refreshUnderlay follows a host address that changed: the lease says the new
// one and the devices are made for it.
func (o *Overlay) refreshUnderlay() {
	now, err := o.opt.Kernel.Underlay(o.opt.Underlay)
	if err != nil {
		o.opt.Log.Warn("underlay not found, keeping the last one", "error", err)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.under = now
	for _, n := range o.nets {
		if !n.used() || n.Underlay == n.sees(now) {
			continue
		}
		if n.Underlay.Addr != now.Addr {
			o.opt.Store.Moved()
		}
		o.opt.Log.Info("underlay changed", "from", n.Underlay.PublicIP, "to", now.PublicIP, "interface", now.Name, "mtu", now.MTU)
		n.move(now)
		if _, mtu, err := o.offer(n.record); err == nil {
			n.MTU = mtu
		} else {
			o.opt.Log.Error("the network does not fit the changed underlay", "network", title(n.Name), "error", err)
		}
		o.peers = nil
		nudge(n.kick)
		nudge(n.mending.news)
	}
}
