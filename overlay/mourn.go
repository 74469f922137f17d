package overlay

import (
	"net/netip"
	"slices"
	"time"
)

// memory is how long peers that the store has lost together with this host's own
// lease stay reachable: the time that every host takes to claim its lease again.
const memory = time.Minute

// mourning is what a network keeps over a store that was wiped or replaced.
type mourning struct {
	own   bool      // the last snapshot held this host's lease
	until time.Time // peers that are gone are kept; zero for not
	last  Snapshot  // that was taken
}

// lost begins to keep peers, if this host's lease was in the store before.
func (m *mourning) lost(now time.Time) {
	if m.own {
		m.own, m.until = false, now.Add(memory)
	}
}

// mourn is lost for one who is told by the store's answers, and not by a snapshot:
// the first one after may hold this host's lease again, and not yet those of others.
func (o *Overlay) mourn(n *network) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n.mourning.lost(time.Now())
}

// remember is a snapshot's leases and, where the store was wiped or replaced,
// those known before that nobody has taken the place of. That it was is told by
// this host's own lease, which nobody else takes away.
func (n *network) remember(s Snapshot, own bool, now time.Time) []Lease {
	m := &n.mourning
	if !own {
		m.lost(now)
	}
	m.own, m.last = own, s
	if !now.Before(m.until) {
		m.until = time.Time{}
		return s.Leases
	}
	subnets, hosts := map[netip.Prefix]bool{}, map[netip.Addr]bool{}
	for _, l := range s.Leases {
		subnets[l.Subnet], hosts[l.PublicIP] = true, true
	}
	leases := slices.Clone(s.Leases)
	for _, l := range n.peers {
		if !subnets[l.Subnet] && !hosts[l.PublicIP] {
			leases = append(leases, l)
		}
	}
	return leases
}

// endMourning lets go of what remember kept long enough.
func (o *Overlay) endMourning() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range o.nets {
		if until := n.mourning.until; !until.IsZero() && !time.Now().Before(until) && n.used() {
			o.take(n, n.mourning.last)
		}
	}
}
