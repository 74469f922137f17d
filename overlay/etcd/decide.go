package etcd

import (
	"bytes"
	"cmp"
	"context"
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

// decision is the next step towards a host's lease; one field is set.
type decision struct {
	drop   []held       // delete these first
	keep   *held        // keep this one
	create netip.Prefix // create this one
}

// decide says how a host comes to its lease, seeing the network's config and
// all its subnets at one revision. A host with a lease that fits keeps it. One
// whose only lease does not fit any more drops it, unless it is a reservation or
// the claim is for one subnet and no other, which containers use.
// Other leases of the same host are left to expire: they may be those of a
// second host that has, by mistake, the same PublicIP.
func decide(ctx context.Context, cfg overlay.Config, all []held, claim overlay.Claim) (decision, error) {
	if !cfg.EnableIPv4 {
		return decision{}, fmt.Errorf("the network's config has EnableIPv4 false: only networks with IPv4 have subnets to claim")
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
	if len(stale) > 0 && !claim.Must {
		return decision{drop: stale}, nil
	}
	if claim.Must {
		return must(cfg, all, claim)
	}
	if useful(cfg, all, claim) {
		return decision{create: claim.Prefer}, nil
	}
	taken := make([]netip.Prefix, len(all))
	for i, h := range all {
		taken[i] = h.lease.Subnet
	}
	subnet, err := pick(ctx, cfg, taken, claim.Avoid)
	return decision{create: subnet}, err
}

// mine returns the host's leases that can be kept, oldest first, and those that
// can go: they do not fit the config and are no reservations.
func mine(cfg overlay.Config, all []held, claim overlay.Claim) (own, stale []held) {
	for _, h := range all {
		switch {
		case h.valueErr != nil || !belongs(h.lease, claim):
		case fits(cfg, h.lease) != nil:
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

// must grants the preferred subnet or nothing.
func must(cfg overlay.Config, all []held, claim overlay.Claim) (decision, error) {
	if err := cfg.Fits(claim.Prefer); err != nil {
		return decision{}, err
	}
	if h := holder(all, claim.Prefer); h != nil {
		err := &overlay.TakenError{Subnet: claim.Prefer, Owner: h.lease.PublicIP}
		if h.valueErr != nil {
			return decision{}, fmt.Errorf("key %s cannot be read (%w): %w", h.key, h.valueErr, err)
		}
		return decision{}, err
	}
	return decision{create: claim.Prefer}, nil
}

// useful reports whether the preferred subnet can be created.
func useful(cfg overlay.Config, all []held, claim overlay.Claim) bool {
	return claim.Prefer.IsValid() && cfg.Fits(claim.Prefer) == nil && holder(all, claim.Prefer) == nil &&
		(claim.Avoid == nil || claim.Avoid(claim.Prefer) == nil)
}

// holder returns what overlaps a subnet, whatever its value; nil for nothing.
func holder(all []held, subnet netip.Prefix) *held {
	for i, h := range all {
		if h.lease.Subnet.Overlaps(subnet) {
			return &all[i]
		}
	}
	return nil
}
