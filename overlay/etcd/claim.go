package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// entry is one key below subnets as it was read.
type entry struct {
	key       string
	lease     overlay.Lease
	err       error // why the key or its value cannot be read
	created   int64 // revision
	modified  int64 // revision
	etcdLease clientv3.LeaseID
	value     string
}

func newEntry(base string, kv *mvccpb.KeyValue) entry {
	key := string(kv.Key)
	e := entry{
		key: key, created: kv.CreateRevision, modified: kv.ModRevision,
		etcdLease: clientv3.LeaseID(kv.Lease), value: string(kv.Value),
	}
	e.lease, e.err = decode(strings.TrimPrefix(key, base), kv.Value)
	e.lease.Reserved = e.etcdLease == clientv3.NoLease
	return e
}

// truth is a network as it was at one revision.
type truth struct {
	config   overlay.Config
	entries  []entry // by creation, the oldest first
	revision int64
}

// read gets a network's config and leases in one call.
func (s *Store) read(ctx context.Context, network string) (truth, error) {
	base := dir(s.opt.Prefix, network)
	var now truth
	var config []byte
	err := s.call(ctx, "read "+base, func(ctx context.Context, c *clientv3.Client) error {
		res, err := c.Txn(ctx).Then(clientv3.OpGet(base+configKey), clientv3.OpGet(base+subnetsDir, clientv3.WithPrefix())).Commit()
		if err != nil {
			return err
		}
		now.revision = res.Header.Revision
		if kvs := res.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			config = kvs[0].Value
		}
		for _, kv := range res.Responses[1].GetResponseRange().Kvs {
			now.entries = append(now.entries, newEntry(base+subnetsDir, kv))
		}
		return nil
	})
	if err != nil {
		return now, err
	}
	slices.SortFunc(now.entries, func(a, b entry) int { return int(a.created - b.created) })
	if config == nil {
		return now, s.explain("read "+base+configKey, overlay.ErrNoConfig)
	}
	if now.config, err = overlay.ParseConfig(config); err != nil {
		return now, s.explain("config "+base+configKey, err)
	}
	return now, nil
}

// claimRest is the longest pause after a claim that lost its race.
const claimRest = 20 * time.Millisecond

// Claim makes a subnet this host's. Hosts that join at once draw their subnets
// at random and try again when one was drawn by two.
func (s *Store) Claim(ctx context.Context, network string, claim overlay.Claim) (overlay.Lease, error) {
	try := attempt{store: s, network: network, claim: claim}
	defer try.revokeUnused()
	for {
		now, err := s.read(ctx, network)
		if err != nil {
			return overlay.Lease{}, err
		}
		old, subnet, err := choose(now, claim)
		if err != nil {
			return overlay.Lease{}, s.explain("claim a subnet", err)
		}
		var lease overlay.Lease
		var done bool
		if old != nil {
			lease, done, err = try.refresh(ctx, *old)
		} else {
			lease, done, err = try.create(ctx, subnet)
		}
		if err != nil || done {
			return lease, err
		}
		select {
		case <-time.After(rand.N(claimRest)):
		case <-ctx.Done():
			return overlay.Lease{}, ctx.Err()
		}
	}
}

// choose finds this host's own entry, or else a subnet to claim.
func choose(now truth, claim overlay.Claim) (*entry, netip.Prefix, error) {
	if claim.Must {
		return exact(now, claim)
	}
	var own *entry
	for i, e := range now.entries {
		if e.err == nil && e.lease.PublicIP == claim.PublicIP && now.config.Fits(e.lease.Subnet) == nil {
			if own == nil || e.lease.Subnet == claim.Prefer {
				own = &now.entries[i]
			}
		}
	}
	if own != nil {
		return own, own.lease.Subnet, nil
	}
	subnet, err := free(now, claim)
	return nil, subnet, err
}

// exact is the one subnet asked for.
func exact(now truth, claim overlay.Claim) (*entry, netip.Prefix, error) {
	if err := now.config.Fits(claim.Prefer); err != nil {
		return nil, netip.Prefix{}, err
	}
	for i, e := range now.entries {
		if !e.lease.Subnet.Overlaps(claim.Prefer) {
			continue
		}
		if e.err == nil && e.lease.Subnet == claim.Prefer && e.lease.PublicIP == claim.PublicIP {
			return &now.entries[i], claim.Prefer, nil
		}
		return nil, netip.Prefix{}, &overlay.TakenError{Subnet: claim.Prefer, Owner: e.lease.PublicIP}
	}
	if claim.Avoid != nil {
		if err := claim.Avoid(claim.Prefer); err != nil {
			return nil, netip.Prefix{}, err
		}
	}
	return nil, claim.Prefer, nil
}

// free is the preferred subnet or one drawn at random among those that nobody
// holds and this host can use.
func free(now truth, claim overlay.Claim) (netip.Prefix, error) {
	taken := map[netip.Prefix]bool{}
	var odd []netip.Prefix // of another length than the network's
	for _, e := range now.entries {
		switch subnet := e.lease.Subnet; {
		case !subnet.IsValid():
		case subnet.Bits() == now.config.SubnetLen:
			taken[subnet] = true
		default:
			odd = append(odd, subnet)
		}
	}
	var unusable error
	usable := func(p netip.Prefix) bool {
		if taken[p] || slices.ContainsFunc(odd, p.Overlaps) {
			return false
		}
		if claim.Avoid == nil {
			return true
		}
		err := claim.Avoid(p)
		if err != nil {
			unusable = err
		}
		return err == nil
	}
	if now.config.Fits(claim.Prefer) == nil && usable(claim.Prefer) {
		return claim.Prefer, nil
	}
	count := now.config.Count()
	for i, begin := 0, rand.N(count); i < count; i++ {
		if p := now.config.Subnet((begin + i) % count); usable(p) {
			return p, nil
		}
	}
	if unusable != nil {
		return netip.Prefix{}, fmt.Errorf("%w: of the %d subnets of %s, %d are leased, and of the rest one says: %w",
			overlay.ErrFull, count, now.config.Network, len(taken), unusable)
	}
	return netip.Prefix{}, fmt.Errorf("%w: all %d subnets of %s are leased; remove leases of hosts that are gone, or make the network larger",
		overlay.ErrFull, count, now.config.Network)
}

// attempt is one Claim under way. Its etcd lease is granted once, whatever
// the number of tries.
type attempt struct {
	store   *Store
	network string
	claim   overlay.Claim
	granted clientv3.LeaseID
	used    bool
}

// lease is what the claim makes of a subnet.
func (a *attempt) lease(subnet, subnet6 netip.Prefix) (overlay.Lease, string, error) {
	l := overlay.Lease{
		Subnet: subnet, IPv6Subnet: subnet6, PublicIP: a.claim.PublicIP,
		BackendType: a.claim.BackendType, BackendData: a.claim.BackendData,
	}
	text, err := encode(l)
	return l, string(text), err
}

// create claims a subnet that nobody holds; not done when somebody was faster.
func (a *attempt) create(ctx context.Context, subnet netip.Prefix) (lease overlay.Lease, done bool, err error) {
	lease, value, err := a.lease(subnet, netip.Prefix{})
	if err != nil {
		return lease, false, err
	}
	key := dir(a.store.opt.Prefix, a.network) + subnetsDir + formatKey(subnet, netip.Prefix{})
	err = a.store.call(ctx, "claim "+subnet.String(), func(ctx context.Context, c *clientv3.Client) error {
		if a.granted == clientv3.NoLease {
			res, err := c.Grant(ctx, int64(a.claim.TTL/time.Second))
			if err != nil {
				return err
			}
			a.granted = res.ID
		}
		res, err := c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, value, clientv3.WithLease(a.granted))).Commit()
		if err != nil {
			return err
		}
		done = res.Succeeded
		return nil
	})
	a.used = done
	return lease, done, err
}

// refresh writes the claim over this host's own entry, which keeps its time to
// live or its lack of one; not done when the entry changed meanwhile.
func (a *attempt) refresh(ctx context.Context, e entry) (lease overlay.Lease, done bool, err error) {
	lease, value, err := a.lease(e.lease.Subnet, e.lease.IPv6Subnet)
	if err != nil {
		return lease, false, err
	}
	lease.Reserved = e.lease.Reserved
	err = a.store.call(ctx, "renew the lease of "+e.lease.Subnet.String(), func(ctx context.Context, c *clientv3.Client) error {
		if value != e.value {
			put := clientv3.OpPut(e.key, value, clientv3.WithLease(e.etcdLease))
			res, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(e.key), "=", e.modified)).Then(put).Commit()
			if err != nil || !res.Succeeded {
				return gone(err)
			}
		}
		err := renew(ctx, c, e.etcdLease)
		done = err == nil
		if errors.Is(err, overlay.ErrLeaseLost) {
			return nil
		}
		return err
	})
	return lease, done, err
}

// gone takes an etcd lease that ended between two calls for a lost race.
func gone(err error) error {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return err
}

// renew begins an etcd lease's time to live anew; a reservation has none.
func renew(ctx context.Context, c *clientv3.Client, id clientv3.LeaseID) error {
	if id == clientv3.NoLease {
		return nil
	}
	_, err := c.KeepAliveOnce(ctx, id)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return overlay.ErrLeaseLost
	}
	return err
}

// revokeUnused gives an etcd lease back that came to hold nothing.
func (a *attempt) revokeUnused() {
	if a.granted == clientv3.NoLease || a.used {
		return
	}
	// It holds no key, so an error leaves nothing but a number until its TTL.
	_ = a.store.call(context.Background(), "revoke an unused lease", func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Revoke(ctx, a.granted)
		return err
	})
}
