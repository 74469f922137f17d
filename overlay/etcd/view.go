package etcd

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// view is what Watch knows of a network: every key decoded once, and kept in
// the order of a snapshot. It is pure; watch.go feeds it.
type view struct {
	keys       keys
	config     overlay.Config
	configured bool   // config holds the last good one
	missing    bool   // there is no config key now
	configJunk string // why the config key is not used
	leases     map[string]*entry
	order      []*entry          // leases by subnet, the older first
	junk       map[string]string // unreadable keys, with the reason
	revision   int64
	cluster    uint64 // the id of the etcd cluster that was read
}

// entry is a readable lease.
type entry struct {
	held
	unfit error // why it is none of the config's
}

func newView(k keys) *view { return &view{keys: k} }

// reset takes in everything as it was read at one revision. Without a good
// config in it the last good one stays.
func (v *view) reset(st state) {
	v.leases = make(map[string]*entry, len(st.subnets))
	v.order = make([]*entry, 0, len(st.subnets))
	v.junk = map[string]string{}
	v.setConfig(st.config)
	for _, kv := range st.subnets {
		if e := v.decode(kv); e != nil {
			v.order = append(v.order, e)
		}
	}
	slices.SortFunc(v.order, compareEntries)
	v.revision, v.cluster = st.revision, st.cluster
}

// apply takes in a batch of changes, and tells whether there were any.
func (v *view) apply(resp clientv3.WatchResponse) bool {
	for _, ev := range resp.Events {
		gone := ev.Type == mvccpb.Event_DELETE
		switch key := string(ev.Kv.Key); {
		case key == v.keys.config() && gone:
			v.setConfig(nil)
		case key == v.keys.config():
			v.setConfig(ev.Kv)
		case gone:
			v.remove(key)
		default:
			v.put(ev.Kv)
		}
		v.revision = max(v.revision, ev.Kv.ModRevision)
	}
	return len(resp.Events) > 0
}

// setConfig takes in the config key's value, nil where there is none.
func (v *view) setConfig(kv *mvccpb.KeyValue) {
	err := overlay.ErrNoConfig
	v.missing = kv == nil
	if kv != nil {
		var cfg overlay.Config
		if cfg, err = overlay.ParseConfig(kv.Value); err == nil {
			v.config, v.configured, v.configJunk = cfg, true, ""
			for _, e := range v.order {
				e.unfit = fits(cfg, e.lease)
			}
			return
		}
	}
	v.configJunk = err.Error()
	if v.configured {
		v.configJunk += "; the last good one stays in use"
	}
}

// decode reads a key into leases or junk; nil for junk.
func (v *view) decode(kv *mvccpb.KeyValue) *entry {
	h, err := decodeHeld(v.keys, kv)
	if err == nil {
		err = h.valueErr
	}
	if err != nil {
		v.junk[h.key] = err.Error()
		return nil
	}
	e := &entry{held: h}
	if v.configured {
		e.unfit = fits(v.config, h.lease)
	}
	v.leases[h.key] = e
	return e
}

func (v *view) put(kv *mvccpb.KeyValue) {
	v.remove(string(kv.Key))
	if e := v.decode(kv); e != nil {
		i, _ := slices.BinarySearchFunc(v.order, e, compareEntries)
		v.order = slices.Insert(v.order, i, e)
	}
}

func (v *view) remove(key string) {
	delete(v.junk, key)
	if e := v.leases[key]; e != nil {
		i, _ := slices.BinarySearchFunc(v.order, e, compareEntries)
		v.order = slices.Delete(v.order, i, i+1)
		delete(v.leases, key)
	}
}

func compareEntries(a, b *entry) int {
	return cmp.Or(
		a.lease.Subnet.Compare(b.lease.Subnet),
		cmp.Compare(a.created, b.created),
		cmp.Compare(a.key, b.key),
	)
}

// snapshot is the whole truth as it stands. Without any good config no lease
// can be judged, and it holds none.
func (v *view) snapshot() overlay.Snapshot {
	s := overlay.Snapshot{Config: v.config, Configured: v.configured && !v.missing, Revision: v.revision}
	for key, reason := range v.junk {
		s.Junk = append(s.Junk, overlay.Junk{Key: key, Reason: reason})
	}
	if v.configJunk != "" {
		s.Junk = append(s.Junk, overlay.Junk{Key: v.keys.config(), Reason: v.configJunk})
	}
	if v.configured {
		s.Leases = make([]overlay.Lease, 0, len(v.order))
		older := v.oldestIPv6()
		var last *entry
		for _, e := range v.order {
			if reason := rejected(e, last, older); reason != "" {
				s.Junk = append(s.Junk, overlay.Junk{Key: e.key, Reason: reason})
				continue
			}
			s.Leases = append(s.Leases, e.lease)
			last = e
		}
	}
	slices.SortFunc(s.Junk, func(a, b overlay.Junk) int { return cmp.Compare(a.Key, b.Key) })
	return s
}

// rejected says why a lease is not used, "" if it is. All leases that fit are
// of one length, so that those that overlap are equal; last is the accepted
// lease before e in order.
func rejected(e, last *entry, older map[netip.Prefix]*entry) string {
	if e.unfit != nil {
		return e.unfit.Error()
	}
	if last != nil && last.lease.Subnet == e.lease.Subnet {
		return fmt.Sprintf("overlaps the older lease %s of host %s", last.key, last.lease.PublicIP)
	}
	if o := older[e.lease.IPv6Subnet]; o != nil && o != e {
		return fmt.Sprintf("overlaps the older lease %s of host %s", o.key, o.lease.PublicIP)
	}
	return ""
}

// oldestIPv6 finds the oldest lease of each IPv6 subnet.
func (v *view) oldestIPv6() map[netip.Prefix]*entry {
	oldest := map[netip.Prefix]*entry{}
	for _, e := range v.order {
		p := e.lease.IPv6Subnet
		if !p.IsValid() || e.unfit != nil {
			continue
		}
		if o := oldest[p]; o == nil || e.created < o.created {
			oldest[p] = e
		}
	}
	return oldest
}
