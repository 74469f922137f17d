package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// Keep renews a lease. It writes no key, so that no other host notices.
func (s *Store) Keep(ctx context.Context, network string, lease overlay.Lease) error {
	k, err := newKeys(s.prefix, network)
	if err != nil {
		return err
	}
	if err := s.keep(ctx, k, lease); err != nil {
		return s.wrap(err, "renew lease %s of %s", lease.Subnet, k)
	}
	return nil
}

func (s *Store) keep(ctx context.Context, k keys, lease overlay.Lease) error {
	h, err := s.current(ctx, k, lease)
	if err != nil || h.lease.Reserved {
		return err
	}
	_, err = s.renew(ctx, h.etcdID)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("%w: it has just expired", overlay.ErrLeaseLost)
	}
	return err
}

// Release deletes a lease that is still this host's and no reservation. There
// is nothing to do, and no error, where it is gone or another host's.
func (s *Store) Release(ctx context.Context, network string, lease overlay.Lease) error {
	k, err := newKeys(s.prefix, network)
	if err != nil {
		return err
	}
	err = s.release(ctx, k, lease)
	if err != nil && !errors.Is(err, overlay.ErrLeaseLost) {
		return s.wrap(err, "release lease %s of %s", lease.Subnet, k)
	}
	return nil
}

func (s *Store) release(ctx context.Context, k keys, lease overlay.Lease) error {
	for {
		h, err := s.current(ctx, k, lease)
		if err != nil || h.lease.Reserved {
			return err
		}
		if done, err := s.discard(ctx, h); err != nil || done {
			return err
		}
	}
}

// discard deletes a key if it is as it was read, and ends its etcd lease.
func (s *Store) discard(ctx context.Context, h held, also ...clientv3.Cmp) (bool, error) {
	done, err := s.commit(ctx, append(also, unchanged(h)), clientv3.OpDelete(h.key))
	if err != nil || !done {
		return false, err
	}
	return true, s.revoke(ctx, h.etcdID)
}

// current reads the key of a lease; ErrLeaseLost if it is not this host's.
func (s *Store) current(ctx context.Context, k keys, lease overlay.Lease) (held, error) {
	ctx, cancel := s.call(ctx)
	defer cancel()
	key := k.lease(lease.Subnet, lease.IPv6Subnet)
	got, err := s.client.Get(ctx, key)
	if err != nil {
		return held{}, err
	}
	if len(got.Kvs) == 0 {
		return held{}, fmt.Errorf("%w: key %s is gone", overlay.ErrLeaseLost, key)
	}
	h, err := decodeHeld(k, got.Kvs[0])
	if err == nil {
		err = h.valueErr
	}
	if err != nil {
		return held{}, fmt.Errorf("%w: key %s cannot be read: %w", overlay.ErrLeaseLost, key, err)
	}
	if h.lease.PublicIP != lease.PublicIP {
		return held{}, fmt.Errorf("%w: key %s belongs to host %s", overlay.ErrLeaseLost, key, h.lease.PublicIP)
	}
	return h, nil
}

// unchanged is true in a transaction while the key is as it was read.
func unchanged(h held) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(h.key), "=", h.modified)
}

// commit applies the operations if all comparisons hold, and tells whether they
// did.
func (s *Store) commit(ctx context.Context, cmps []clientv3.Cmp, ops ...clientv3.Op) (bool, error) {
	ctx, cancel := s.call(ctx)
	defer cancel()
	resp, err := s.client.Txn(ctx).If(cmps...).Then(ops...).Commit()
	if err != nil {
		return false, err
	}
	return resp.Succeeded, nil
}

// grant makes an etcd lease. etcd may give it a longer time to live than asked.
func (s *Store) grant(ctx context.Context, ttl time.Duration) (id clientv3.LeaseID, granted int64, err error) {
	ctx, cancel := s.call(ctx)
	defer cancel()
	resp, err := s.client.Grant(ctx, seconds(ttl))
	if err != nil {
		return clientv3.NoLease, 0, err
	}
	return resp.ID, resp.TTL, nil
}

// seconds is a time to live as etcd counts it.
func seconds(ttl time.Duration) int64 { return int64((ttl + time.Second - 1) / time.Second) }

// renew renews an etcd lease and returns its time to live in seconds.
func (s *Store) renew(ctx context.Context, id clientv3.LeaseID) (int64, error) {
	ctx, cancel := s.call(ctx)
	defer cancel()
	resp, err := s.client.KeepAliveOnce(ctx, id)
	if err != nil {
		return 0, err
	}
	return resp.TTL, nil
}

// revoke ends an etcd lease; one that has ended already is no error.
func (s *Store) revoke(ctx context.Context, id clientv3.LeaseID) error {
	ctx, cancel := s.call(ctx)
	defer cancel()
	_, err := s.client.Revoke(ctx, id)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return err
}

// pause waits for d, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
