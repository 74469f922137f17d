package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
	o.mu.Lock()
	o.reportJunk(n, s.Junk)
	if !s.Config.Network.IsValid() {
		o.mu.Unlock()
		return // without a good config no lease could be judged: the last ones stand
	}
	n.peers = s.Leases
	o.peers = nil
	changed := !s.Config.Equal(n.Config)
	if !owns(s.Leases, n.Subnet, n.Underlay.PublicIP) {
		nudge(n.kick)
	}
	o.mu.Unlock()
	if changed {
		o.opt.Log.Warn("config changed in the store; it takes effect when the Docker network is made anew", "network", title(n.Name))
	}
	if err := o.seen.Commit(); err != nil {
		o.opt.Log.Error("save the leases last seen", "error", err)
	}
	o.poke()
}

// owns tells whether subnet is leased to host.
func owns(leases []Lease, subnet netip.Prefix, host netip.Addr) bool {
	for _, l := range leases {
		if l.Subnet == subnet {
			return l.PublicIP == host
		}
	}
	return false
}

// reportJunk logs each skipped key once per reason; the caller holds mu.
func (o *Overlay) reportJunk(n *network, junk []Junk) {
	for _, j := range junk {
		if n.junk[j.Key] != j.Reason {
			n.junk[j.Key] = j.Reason
			o.opt.Log.Warn("skipped", "network", title(n.Name), "key", j.Key, "reason", j.Reason)
		}
	}
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
		err := o.renew(ctx, n, claimed)
		if ctx.Err() != nil {
			return ctx.Err()
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
		lease := Lease{Subnet: r.Subnet, PublicIP: claim.PublicIP, BackendType: claim.BackendType, BackendData: claim.BackendData}
		if err := o.opt.Store.Keep(ctx, r.Name, lease); !errors.Is(err, ErrLeaseLost) {
			return err
		}
		o.opt.Log.Warn("lease lost, claiming it back", "network", title(r.Name), "subnet", r.Subnet)
	}
	claim.Prefer, claim.Must = r.Subnet, true
	_, err = o.opt.Store.Claim(ctx, r.Name, claim)
	if taken := (*TakenError)(nil); errors.As(err, &taken) {
		return fmt.Errorf("%w while containers of this host use it: remove the Docker network on one of the two hosts and create it anew", err)
	}
	return err
}

// release gives the lease back, trying on until it is done.
func (o *Overlay) release(ctx context.Context, n *network) error {
	retry := backoff{min: time.Second, max: 30 * time.Second}
	o.mu.Lock()
	lease := Lease{Subnet: n.Subnet, PublicIP: n.Underlay.PublicIP}
	o.mu.Unlock()
	for {
		err := o.opt.Store.Release(ctx, n.Name, lease)
		if err == nil {
			o.released(n)
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

// released notes that the store holds no lease of ours any more. The subnet
// stays known, to be asked for first the next time.
func (o *Overlay) released(n *network) {
	o.mu.Lock()
	if !n.used() {
		n.Leased, n.peers = false, nil
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
	for _, n := range o.nets {
		if !n.used() || n.Underlay == now {
			continue
		}
		o.opt.Log.Info("underlay changed", "from", n.Underlay.PublicIP, "to", now.PublicIP, "interface", now.Name)
		n.Underlay = now
		o.peers = nil
		nudge(n.kick)
	}
}
