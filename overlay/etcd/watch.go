package etcd

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// A watch that broke is begun anew after a pause that doubles between these.
const (
	minPause = 100 * time.Millisecond
	maxPause = 5 * time.Second
)

// Watch emits the whole truth at once and after every change. Whatever breaks
// it (compaction, a lost leader, a lost connection), it reads everything anew.
func (s *Store) Watch(ctx context.Context, network string, emit func(overlay.Snapshot)) error {
	v := &view{base: dir(s.opt.Prefix, network)}
	pause := minPause
	for {
		begin := time.Now()
		s.watchOnce(ctx, network, v, emit)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(begin) > maxPause {
			pause = minPause
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, maxPause)
	}
}

// watchOnce reads everything and follows the changes until something breaks.
func (s *Store) watchOnce(ctx context.Context, network string, v *view, emit func(overlay.Snapshot)) {
	now, err := s.read(ctx, network)
	if err != nil && now.revision == 0 {
		return // nothing was read: what was emitted last still stands
	}
	v.reset(now, err)
	emit(v.snapshot())
	client, err := s.connection()
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	from := clientv3.WithRev(now.revision + 1)
	config := client.Watch(ctx, v.base+configKey, from)
	subnets := client.Watch(ctx, v.base+subnetsDir, clientv3.WithPrefix(), from)
	for {
		var res clientv3.WatchResponse
		var open bool
		select {
		case res, open = <-config:
		case res, open = <-subnets:
		}
		if !open || res.Err() != nil {
			return
		}
		if v.apply(res) {
			emit(v.snapshot())
		}
	}
}

// view is what a watch knows: every key below subnets, decoded once.
type view struct {
	base      string
	config    overlay.Config
	configErr error
	entries   map[string]entry
	revision  int64
}

// reset takes over what was read. A config that cannot be read leaves the last
// good one in place.
func (v *view) reset(now truth, err error) {
	v.revision, v.configErr = now.revision, err
	if err == nil {
		v.config = now.config
	}
	v.entries = make(map[string]entry, len(now.entries))
	for _, e := range now.entries {
		v.entries[e.key] = e
	}
}

// apply takes over one batch of changes; false when there was none.
func (v *view) apply(res clientv3.WatchResponse) bool {
	v.revision = max(v.revision, res.Header.Revision)
	for _, event := range res.Events {
		key := string(event.Kv.Key)
		switch {
		case key == v.base+configKey && event.Type == clientv3.EventTypeDelete:
			v.configErr = overlay.ErrNoConfig
		case key == v.base+configKey:
			if config, err := overlay.ParseConfig(event.Kv.Value); err != nil {
				v.configErr = err
			} else {
				v.config, v.configErr = config, nil
			}
		case event.Type == clientv3.EventTypeDelete:
			delete(v.entries, key)
		default:
			v.entries[key] = newEntry(v.base+subnetsDir, event.Kv)
		}
	}
	return len(res.Events) > 0
}

// snapshot sorts the good from the junk. Of leases that overlap, the oldest
// stands.
func (v *view) snapshot() overlay.Snapshot {
	s := overlay.Snapshot{Config: v.config, Revision: v.revision}
	if v.configErr != nil {
		s.Junk = append(s.Junk, overlay.Junk{Key: v.base + configKey, Reason: v.configErr.Error()})
	}
	if !v.config.EnableIPv4 && !v.config.EnableIPv6 {
		return s // no good config was ever seen, so nothing can be held against it
	}
	good := make([]entry, 0, len(v.entries))
	for _, e := range v.entries {
		if err := errors.Join(e.err, fits(v.config, e)); err != nil {
			s.Junk = append(s.Junk, overlay.Junk{Key: e.key, Reason: err.Error()})
			continue
		}
		good = append(good, e)
	}
	seen := map[netip.Prefix]entry{}
	for _, e := range good {
		if old, dup := seen[e.lease.Subnet]; !dup || e.created < old.created {
			seen[e.lease.Subnet] = e
		}
	}
	for _, e := range good {
		if kept := seen[e.lease.Subnet]; kept.key != e.key {
			s.Junk = append(s.Junk, overlay.Junk{Key: e.key, Reason: "subnet is leased to host " + kept.lease.PublicIP.String() + " by the older key " + kept.key})
		}
	}
	for _, subnet := range slices.SortedFunc(maps.Keys(seen), netip.Prefix.Compare) {
		s.Leases = append(s.Leases, seen[subnet].lease)
	}
	slices.SortFunc(s.Junk, func(a, b overlay.Junk) int { return strings.Compare(a.Key, b.Key) })
	return s
}

// fits holds an entry that could be read against the config. Subnets of one
// length on their boundary overlap only when they are equal.
func fits(c overlay.Config, e entry) error {
	if e.err != nil {
		return nil
	}
	if c.EnableIPv4 {
		return c.Fits(e.lease.Subnet)
	}
	return c.Fits(e.lease.IPv6Subnet)
}
