package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// Claim makes one subnet this host's, by compare-and-swap on everything it
// decided upon, and decides anew as long as another host was faster. An IPv6
// subnet is claimed together with the IPv4 one: both are in one key. A lease
// that is kept gets the claim's time to live.
func (s *Store) Claim(ctx context.Context, network string, claim overlay.Claim) (overlay.Lease, error) {
	k, err := newKeys(s.prefix, network)
	if err != nil {
		return overlay.Lease{}, err
	}
	if !claim.PublicIP.Is4() {
		return overlay.Lease{}, fmt.Errorf("claim a subnet of %s: PublicIP %s is not an IPv4 address", k, claim.PublicIP)
	}
	if v6 := claim.PublicIPv6; v6.IsValid() && (!v6.Is6() || v6.Is4In6()) {
		return overlay.Lease{}, fmt.Errorf("claim a subnet of %s: PublicIPv6 %s is not an IPv6 address", k, v6)
	}
	if claim.TTL <= 0 {
		return overlay.Lease{}, fmt.Errorf("claim a subnet of %s: TTL %s is not positive", k, claim.TTL)
	}
	c := claimer{store: s, keys: k, claim: claim}
	lease, err := c.run(ctx)
	if err != nil {
		c.giveBack(ctx)
		return overlay.Lease{}, s.wrap(err, "claim a subnet of %s for %s", k, claim.PublicIP)
	}
	return lease, nil
}

// claimer is one Claim under way.
type claimer struct {
	store  *Store
	keys   keys
	claim  overlay.Claim
	etcdID clientv3.LeaseID // granted for a key that is not created yet
	ttl    int64            // of etcdID, in seconds
}

// state is a network as it was read at one revision.
type state struct {
	config   *mvccpb.KeyValue // nil without a config
	subnets  []*mvccpb.KeyValue
	revision int64
	cluster  uint64 // the etcd cluster's own id
}

// read reads a network's config and subnets at one revision.
func (s *Store) read(ctx context.Context, k keys) (state, error) {
	ctx, cancel := s.call(ctx)
	defer cancel()
	got, err := s.client.Txn(ctx).Then(
		clientv3.OpGet(k.config()),
		clientv3.OpGet(k.subnets(), clientv3.WithPrefix()),
	).Commit()
	if err != nil {
		return state{}, err
	}
	st := state{
		subnets:  got.Responses[1].GetResponseRange().Kvs,
		revision: got.Header.Revision,
		cluster:  got.Header.ClusterId,
	}
	if kvs := got.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		st.config = kvs[0]
	}
	return st, nil
}

func (c *claimer) run(ctx context.Context) (overlay.Lease, error) {
	for attempt := 0; ; attempt++ {
		lease, done, err := c.try(ctx)
		if err != nil || done {
			return lease, err
		}
		// Somebody else won, so that there was progress. Spread the hosts that
		// lost a little before they try again.
		if err := pause(ctx, rand.N(5*time.Millisecond<<min(attempt, 5))); err != nil {
			return overlay.Lease{}, err
		}
	}
}

// try takes one step; done is false where it must be decided anew.
func (c *claimer) try(ctx context.Context) (lease overlay.Lease, done bool, err error) {
	st, err := c.store.read(ctx, c.keys)
	if err != nil {
		return lease, false, err
	}
	if st.config == nil {
		return lease, false, overlay.ErrNoConfig
	}
	cfg, err := overlay.ParseConfig(st.config.Value)
	if err != nil {
		return lease, false, fmt.Errorf("key %s: %w", c.keys.config(), err)
	}
	var all []held
	for _, kv := range st.subnets {
		if h, err := decodeHeld(c.keys, kv); err == nil {
			all = append(all, h)
		}
	}
	d, err := decide(ctx, cfg, all, c.claim)
	if err != nil {
		return lease, false, err
	}
	sameConfig := clientv3.Compare(clientv3.ModRevision(c.keys.config()), "=", st.config.ModRevision)
	switch {
	case d.drop != nil:
		return lease, false, c.drop(ctx, d.drop, sameConfig)
	case d.keep != nil:
		return c.keep(ctx, *d.keep, sameConfig)
	default:
		return c.create(ctx, d.create, sameConfig, st.revision)
	}
}

// drop deletes leases of this host that are of no use to anyone.
func (c *claimer) drop(ctx context.Context, stale []held, sameConfig clientv3.Cmp) error {
	for _, h := range stale {
		if _, err := c.store.discard(ctx, h, sameConfig); err != nil {
			return err
		}
	}
	return nil
}

// keep renews a lease that this host holds, and writes the claim over its data
// where that differs. The key stays on its etcd lease, unless that has another
// time to live; a reservation has none.
func (c *claimer) keep(ctx context.Context, h held, sameConfig clientv3.Cmp) (overlay.Lease, bool, error) {
	l := h.lease
	l.PublicIP = c.claim.PublicIP
	l.BackendType, l.BackendData = c.claim.BackendType, c.claim.BackendData
	if c.claim.IPv6 {
		l.PublicIPv6, l.BackendV6Data = c.claim.PublicIPv6, c.claim.BackendV6Data
	}
	value, err := encodeLease(l)
	if err != nil {
		return l, false, err
	}
	etcdID := h.etcdID
	if !l.Reserved {
		ttl, err := c.store.renew(ctx, h.etcdID)
		if err == nil && ttl != seconds(c.claim.TTL) {
			err = c.grant(ctx)
			if ttl != c.ttl { // not what etcd makes of it anyway
				etcdID = c.etcdID
			}
		}
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return l, false, nil
		}
		if err != nil {
			return l, false, err
		}
	}
	var put []clientv3.Op
	if etcdID != h.etcdID || !bytes.Equal(value, h.raw) {
		put = append(put, clientv3.OpPut(h.key, string(value), clientv3.WithLease(etcdID)))
	}
	done, err := c.store.commit(ctx, []clientv3.Cmp{sameConfig, unchanged(h)}, put...)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		c.etcdID = clientv3.NoLease
		return l, false, nil
	}
	if err != nil && etcdID != h.etcdID {
		// The key may be on it: revoking it would take the subnet away.
		c.etcdID = clientv3.NoLease
	}
	if done {
		if etcdID != h.etcdID {
			c.etcdID = h.etcdID // not used any more
		}
		c.giveBack(ctx)
	}
	return l, done, err
}

// grant makes an etcd lease, unless one is left of an earlier attempt.
func (c *claimer) grant(ctx context.Context) (err error) {
	if c.etcdID == clientv3.NoLease {
		c.etcdID, c.ttl, err = c.store.grant(ctx, c.claim.TTL)
	}
	return err
}

// create makes the subnets' key on an etcd lease of its own. Of an IPv6 subnet,
// which stands at the end of keys, a comparison cannot find out whether another
// key has it: no key may have been made since the revision that was decided on.
func (c *claimer) create(ctx context.Context, p pair, sameConfig clientv3.Cmp, revision int64) (overlay.Lease, bool, error) {
	l := overlay.Lease{
		Subnet:      p.subnet,
		IPv6Subnet:  p.ipv6,
		PublicIP:    c.claim.PublicIP,
		BackendType: c.claim.BackendType,
		BackendData: c.claim.BackendData,
	}
	free := c.keys.free(p.subnet)
	if p.ipv6.IsValid() {
		l.PublicIPv6, l.BackendV6Data = c.claim.PublicIPv6, c.claim.BackendV6Data
		free = c.keys.noneSince(revision)
	}
	value, err := encodeLease(l)
	if err != nil {
		return l, false, err
	}
	if err := c.grant(ctx); err != nil {
		return l, false, err
	}
	key := c.keys.lease(p.subnet, p.ipv6)
	done, err := c.store.commit(ctx, []clientv3.Cmp{sameConfig, free},
		clientv3.OpPut(key, string(value), clientv3.WithLease(c.etcdID)))
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		c.etcdID = clientv3.NoLease
		return l, false, nil
	}
	return l, done, err
}

// giveBack revokes the etcd lease that was granted and not used, also after the
// claim's context has ended. What it cannot give back expires by itself.
func (c *claimer) giveBack(ctx context.Context) {
	if c.etcdID == clientv3.NoLease {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), parting)
	defer cancel()
	_ = c.store.revoke(ctx, c.etcdID)
	c.etcdID = clientv3.NoLease
}

// parting is how long a claim that came to nothing may take to clean up.
const parting = 500 * time.Millisecond
