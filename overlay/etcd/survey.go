package etcd

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
)

// Survey lists the networks that have a config, with their leases, by name,
// the default one first.
func (s *Store) Survey(ctx context.Context) ([]report.Cluster, error) {
	all, err := s.survey(ctx)
	if err != nil {
		return nil, s.wrap(err, "list the networks below %s", s.prefix)
	}
	return all, nil
}

func (s *Store) survey(ctx context.Context) ([]report.Cluster, error) {
	ctx, cancel := s.call(ctx)
	defer cancel()
	base := path.Join(s.prefix) + "/"
	got, err := s.client.Get(ctx, base, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	states := map[string]*state{}
	for _, kv := range got.Kvs {
		name, what, named := strings.Cut(strings.TrimPrefix(string(kv.Key), base), "/")
		if !named || name == "subnets" {
			name, what = "", strings.TrimPrefix(string(kv.Key), base)
		}
		if states[name] == nil {
			states[name] = &state{revision: got.Header.Revision}
		}
		if what == "config" {
			states[name].config = kv
		} else if strings.HasPrefix(what, "subnets") {
			states[name].subnets = append(states[name].subnets, kv)
		}
	}
	var all []report.Cluster
	for _, name := range slices.Sorted(maps.Keys(states)) {
		k, err := newKeys(s.prefix, name)
		if err == nil && states[name].config != nil {
			c, _ := count(name, k, *states[name])
			all = append(all, c)
		}
	}
	return all, nil
}

// Leases lists one network's leases, with the time that each has left; ErrNoConfig
// where there is no such network.
func (s *Store) Leases(ctx context.Context, network string) (report.Cluster, error) {
	k, err := newKeys(s.prefix, network)
	if err != nil {
		return report.Cluster{}, err
	}
	st, err := s.read(ctx, k)
	if err == nil && st.config == nil {
		err = overlay.ErrNoConfig
	}
	if err != nil {
		return report.Cluster{}, s.wrap(err, "list the leases of %s", k)
	}
	c, ids := count(network, k, st)
	s.ages(ctx, c.Leases, ids)
	return c, nil
}

// asking is how many leases are asked about at a time.
const asking = 16

// ages fills in what etcd tells of the leases' time to live. Where it tells
// nothing, nothing is known of them.
func (s *Store) ages(ctx context.Context, leases []report.ClusterLease, ids []clientv3.LeaseID) {
	ctx, cancel := s.call(ctx)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(asking)
	for i := range leases {
		if leases[i].Reserved {
			continue
		}
		g.Go(func() error {
			if got, err := s.client.TimeToLive(ctx, ids[i]); err == nil && got.TTL > 0 {
				leases[i].TTL, leases[i].Left = time.Duration(got.GrantedTTL)*time.Second, time.Duration(got.TTL)*time.Second
			}
			return nil
		})
	}
	_ = g.Wait() // none of them returns an error
}

// count makes a network's list of what was read, and names each lease's etcd
// lease.
func count(name string, k keys, st state) (report.Cluster, []clientv3.LeaseID) {
	v := newView(k)
	v.reset(st)
	snap := v.snapshot()
	c := report.Cluster{Network: name, CIDR: snap.Config.Network, IPv6CIDR: snap.Config.IPv6Network, Backend: snap.Config.Backend.Type}
	hosts := map[netip.Addr][]netip.Prefix{}
	for _, l := range snap.Leases {
		hosts[l.PublicIP] = append(hosts[l.PublicIP], l.Subnet)
	}
	var ids []clientv3.LeaseID
	for _, l := range snap.Leases {
		one := report.ClusterLease{
			Subnet: l.Subnet, PublicIP: l.PublicIP, IPv6Subnet: l.IPv6Subnet, PublicIPv6: l.PublicIPv6,
			Backend: cmp.Or(l.BackendType, "udp"), Reserved: l.Reserved,
		}
		for _, other := range hosts[l.PublicIP] {
			if other != l.Subnet {
				one.Odd = append(one.Odd, fmt.Sprintf("PublicIP also of %s", other))
			}
		}
		if one.Backend != c.Backend {
			one.Odd = append(one.Odd, fmt.Sprintf("backend %s, the network's is %s", one.Backend, c.Backend))
		}
		c.Leases = append(c.Leases, one)
		ids = append(ids, v.leases[k.lease(l.Subnet, l.IPv6Subnet)].etcdID)
	}
	for _, j := range snap.Junk {
		c.Odd = append(c.Odd, report.Odd{Key: j.Key, Reason: j.Reason, Readable: v.leases[j.Key] != nil})
	}
	return c, ids
}

// Remove deletes a network's config. It is refused while a host has a lease in
// it, or a key lies where leases do.
func (s *Store) Remove(ctx context.Context, network string) error {
	k, err := newKeys(s.prefix, network)
	if err != nil {
		return err
	}
	if err := s.remove(ctx, k); err != nil {
		return s.wrap(err, "remove %s", k)
	}
	return nil
}

func (s *Store) remove(ctx context.Context, k keys) error {
	for {
		st, err := s.read(ctx, k)
		switch {
		case err != nil:
			return err
		case len(st.subnets) > 0:
			return holders(k, st.subnets)
		case st.config == nil:
			return overlay.ErrNoConfig
		}
		done, err := s.commit(ctx, []clientv3.Cmp{
			clientv3.Compare(clientv3.ModRevision(k.config()), "=", st.config.ModRevision),
			clientv3.Compare(clientv3.CreateRevision(k.subnets()), "=", 0).WithPrefix(),
		}, clientv3.OpDelete(k.config()))
		if err != nil || done {
			return err
		}
	}
}

// holders is the refusal that names who has leases.
func holders(k keys, subnets []*mvccpb.KeyValue) error {
	var who []string
	for _, kv := range subnets {
		h, err := decodeHeld(k, kv)
		switch {
		case err != nil || h.valueErr != nil:
			who = append(who, "key "+h.key)
		default:
			who = append(who, fmt.Sprintf("host %s (%s)", h.lease.PublicIP, h.lease.Subnet))
		}
	}
	return fmt.Errorf("leases stand in it: %s; remove the Docker network on those hosts first, and delete keys and reservations that nobody uses with etcdctl", strings.Join(who, ", "))
}
