package etcd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// held is a subnet's key as it was read.
type held struct {
	key      string
	raw      []byte
	lease    overlay.Lease // only the subnets where valueErr is set
	valueErr error         // why the value is no lease
	created  int64         // revision
	modified int64         // revision
	etcdID   clientv3.LeaseID
}

// decodeHeld reads a key and its value; an error means that the key names no
// subnet.
func decodeHeld(k keys, kv *mvccpb.KeyValue) (held, error) {
	h := held{
		key:      string(kv.Key),
		raw:      kv.Value,
		created:  kv.CreateRevision,
		modified: kv.ModRevision,
		etcdID:   clientv3.LeaseID(kv.Lease),
	}
	subnet, ipv6, err := k.parseLease(h.key)
	if err != nil {
		return h, err
	}
	h.lease, h.valueErr = decodeLease(kv.Value)
	h.lease.Subnet, h.lease.IPv6Subnet = subnet, ipv6
	h.lease.Reserved = h.etcdID == clientv3.NoLease
	return h, nil
}

// fits returns nil if a lease of these subnets belongs to the network.
func fits(cfg overlay.Config, l overlay.Lease) error {
	if err := cfg.Fits(l.Subnet); err != nil {
		return err
	}
	if l.IPv6Subnet.IsValid() {
		return cfg.Fits(l.IPv6Subnet)
	}
	return nil
}

func overlap(a, b overlay.Lease) bool {
	return a.Subnet.Overlaps(b.Subnet) ||
		a.IPv6Subnet.IsValid() && b.IPv6Subnet.IsValid() && a.IPv6Subnet.Overlaps(b.IPv6Subnet)
}

// pair is a host's subnets; ipv6 is zero without one.
type pair struct{ subnet, ipv6 netip.Prefix }

// decision is the next step towards a host's lease; one field is set.
type decision struct {
	drop   []held // delete these first
	keep   *held  // keep this one
	create pair   // create this one
}

// decide says how a host comes to its lease, seeing the network's config and
// all its subnets at one revision. A host with a lease that fits keeps it. One
// whose only lease does not fit any more drops it, unless it is a reservation or
// the claim is for one subnet and no other, which containers use. Then it goes
// only where its IPv6 subnet alone does not fit.
// Other leases of the same host are left to expire: they may be those of a
// second host that has, by mistake, the same PublicIP.
func decide(ctx context.Context, cfg overlay.Config, all []held, claim overlay.Claim) (decision, error) {
	if !cfg.EnableIPv4 {
		return decision{}, fmt.Errorf("the network's config has EnableIPv4 false: only networks with IPv4 have subnets to claim")
	}
	if claim.IPv6 && !cfg.EnableIPv6 {
		return decision{}, fmt.Errorf("the network's config has no IPv6 any more (EnableIPv6): %w", overlay.ErrNoIPv6)
	}
	own, stale := mine(cfg, all, claim)
	for i, h := range own {
		if h.lease.Subnet == claim.Prefer {
			return decision{keep: &own[i]}, nil
		}
	}
	if !claim.Must && len(own) > 0 {
		return decision{keep: &own[0]}, nil
	}
	if claim.Must {
		stale = slices.DeleteFunc(stale, func(h held) bool { return h.lease.Subnet != claim.Prefer || cfg.Fits(claim.Prefer) != nil })
	}
	if len(stale) > 0 {
		return decision{drop: stale}, nil
	}
	subnet, err := chooseSubnet(ctx, cfg, all, claim)
	if err != nil || !claim.IPv6 {
		return decision{create: pair{subnet: subnet}}, err
	}
	ipv6, err := chooseIPv6(ctx, cfg, all, claim, subnet)
	return decision{create: pair{subnet, ipv6}}, err
}

// chooseSubnet is the preferred subnet, or any where that is not to be had.
func chooseSubnet(ctx context.Context, cfg overlay.Config, all []held, claim overlay.Claim) (netip.Prefix, error) {
	if claim.Must {
		return claim.Prefer, must(cfg, all, claim.Prefer)
	}
	if useful(cfg, all, claim, claim.Prefer) {
		return claim.Prefer, nil
	}
	return chooseFree(ctx, cfg, ipv4Space(cfg), all, claim, func(l overlay.Lease) netip.Prefix { return l.Subnet })
}

// chooseIPv6 is the preferred IPv6 subnet; where that is not to be had, the one
// with the IPv4 subnet's number, or any.
func chooseIPv6(ctx context.Context, cfg overlay.Config, all []held, claim overlay.Claim, subnet netip.Prefix) (netip.Prefix, error) {
	if claim.MustIPv6 {
		return claim.PreferIPv6, must(cfg, all, claim.PreferIPv6)
	}
	for _, p := range []netip.Prefix{claim.PreferIPv6, twin(cfg, subnet)} {
		if useful(cfg, all, claim, p) {
			return p, nil
		}
	}
	return chooseFree(ctx, cfg, ipv6Space(cfg), all, claim, func(l overlay.Lease) netip.Prefix { return l.IPv6Subnet })
}

// chooseFree picks a subnet of one family. ErrFull names a key that takes subnets and is
// none of the config's: flanneld too gives none away that overlaps one.
func chooseFree(ctx context.Context, cfg overlay.Config, s space, all []held, claim overlay.Claim, of func(overlay.Lease) netip.Prefix) (netip.Prefix, error) {
	taken := make([]netip.Prefix, len(all))
	for i, h := range all {
		taken[i] = of(h.lease)
	}
	p, err := s.pick(ctx, taken, claim.Avoid)
	if !errors.Is(err, overlay.ErrFull) {
		return p, err
	}
	for i, h := range all {
		if _, takes := s.covered(taken[i]); takes {
			if why := cfg.Fits(taken[i]); why != nil {
				return p, fmt.Errorf("%w; a key that takes some of them is no lease of this network (%w), and where no host uses it: etcdctl del '%s'", err, why, h.key)
			}
		}
	}
	return p, err
}

// mine returns the host's leases that can be kept, oldest first, and those that
// can go: they do not fit the config and are no reservations.
func mine(cfg overlay.Config, all []held, claim overlay.Claim) (own, stale []held) {
	for _, h := range all {
		switch {
		case h.valueErr != nil || !belongs(h.lease, claim):
		case fits(cfg, h.lease) != nil || !suits(h.lease, claim):
			if !h.lease.Reserved {
				stale = append(stale, h)
			}
		case !contested(cfg, all, h):
			own = append(own, h)
		}
	}
	slices.SortFunc(own, func(a, b held) int { return cmp.Compare(a.created, b.created) })
	return own, stale
}

// suits reports whether a lease has an IPv6 subnet where the claim asks for one,
// and that one where it must. A reservation is as it is.
func suits(lease overlay.Lease, claim overlay.Claim) bool {
	if lease.Reserved {
		return true
	}
	if claim.MustIPv6 && lease.IPv6Subnet != claim.PreferIPv6 {
		return false
	}
	return lease.IPv6Subnet.IsValid() == claim.IPv6
}

// belongs reports whether a lease is the claiming host's: it says its PublicIP,
// or its former one and what only this host publishes. Where the backend
// publishes nothing, it is the subnet that the host's containers use.
func belongs(lease overlay.Lease, claim overlay.Claim) bool {
	if lease.PublicIP == claim.PublicIP {
		return true
	}
	if !claim.Former.IsValid() || lease.PublicIP != claim.Former || !bytes.Equal(lease.BackendData, claim.BackendData) {
		return false
	}
	return len(claim.BackendData) > 0 || claim.Must && lease.Subnet == claim.Prefer
}

// contested reports whether an older lease overlaps h, so that every host would
// skip h.
func contested(cfg overlay.Config, all []held, h held) bool {
	return slices.ContainsFunc(all, func(o held) bool {
		return o.key != h.key && o.valueErr == nil && o.created < h.created &&
			overlap(o.lease, h.lease) && fits(cfg, o.lease) == nil
	})
}

// must returns why a subnet of either family cannot be had.
func must(cfg overlay.Config, all []held, subnet netip.Prefix) error {
	if err := cfg.Fits(subnet); err != nil {
		return err
	}
	h := holder(all, subnet)
	if h == nil {
		return nil
	}
	err := &overlay.TakenError{Subnet: subnet, Owner: h.lease.PublicIP}
	if h.valueErr != nil {
		return fmt.Errorf("key %s cannot be read (%w): %w", h.key, h.valueErr, err)
	}
	return err
}

// useful reports whether a subnet of either family can be created.
func useful(cfg overlay.Config, all []held, claim overlay.Claim, subnet netip.Prefix) bool {
	return subnet.IsValid() && cfg.Fits(subnet) == nil && holder(all, subnet) == nil &&
		(claim.Avoid == nil || claim.Avoid(subnet) == nil)
}

// holder returns what overlaps a subnet, whatever its value; nil for nothing.
func holder(all []held, subnet netip.Prefix) *held {
	for i, h := range all {
		if h.lease.Subnet.Overlaps(subnet) || h.lease.IPv6Subnet.Overlaps(subnet) {
			return &all[i]
		}
	}
	return nil
}
