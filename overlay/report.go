package overlay

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

// loop counts what the one loop has done.
type loop struct {
	started, passed time.Time
	passes          uint64
	took            time.Duration
	repairs         map[string]report.Repair // by kind
}

func (l *loop) note(began, ended time.Time, repaired map[string]int) {
	l.passes++
	l.passed, l.took = ended, ended.Sub(began)
	for kind, count := range repaired {
		r := l.repairs[kind]
		l.repairs[kind] = report.Repair{Kind: kind, Count: r.Count + uint64(count), Last: ended}
	}
}

// begin notes that the loop runs from now on.
func (o *Overlay) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.loop = loop{started: time.Now(), repairs: map[string]report.Repair{}}
}

// tenure is how a lease stands while the process runs.
type tenure struct {
	renewed            time.Time
	renewals, failures uint64
	gone               bool       // the store holds no lease for the subnet, or another host's
	taken              bool       // another host has it
	by                 netip.Addr // which; zero where its lease cannot be read
	err                error      // of the last try
}

// mark notes what became of a try to renew or claim the lease. That another host
// has the subnet stays noted until it is held again.
func (o *Overlay) mark(n *network, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := &n.tenure
	t.err = err
	if err == nil {
		t.renewed, t.gone, t.taken = time.Now(), false, false
		t.renewals++
		return
	}
	t.failures++
	if taken := (*TakenError)(nil); errors.As(err, &taken) {
		t.taken, t.by = true, taken.Owner
	}
}

// count notes the tunnel whose traffic is the network's, nil for none.
func (o *Overlay) count(n *network, t Tunnel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n.carrying.past = n.carrying.traffic()
	n.carrying.tunnel = t
}

// traffic is what all tunnels of the network have carried.
func (c *carrying) traffic() report.Traffic {
	sum := c.past
	sum.Drops = maps.Clone(sum.Drops)
	if c.tunnel == nil {
		return sum
	}
	now := c.tunnel.Traffic()
	sum.SentPackets += now.SentPackets
	sum.SentBytes += now.SentBytes
	sum.ReceivedPackets += now.ReceivedPackets
	sum.ReceivedBytes += now.ReceivedBytes
	for reason, count := range now.Drops {
		if sum.Drops == nil {
			sum.Drops = map[string]uint64{}
		}
		sum.Drops[reason] += count
	}
	return sum
}

// Report is this host's state as it stands.
func (o *Overlay) Report() report.Host {
	o.mu.Lock()
	defer o.mu.Unlock()
	h := report.Host{
		Interface: o.under.Name, PublicIP: o.under.PublicIP,
		Loop: report.Loop{Started: o.loop.started, Passed: o.loop.passed, Passes: o.loop.passes, Took: o.loop.took},
	}
	for _, f := range o.failed {
		h.Loop.Failures = append(h.Loop.Failures, report.Failure{Object: f.Object, Error: f.Err.Error()})
	}
	for _, kind := range slices.Sorted(maps.Keys(o.loop.repairs)) {
		h.Loop.Repairs = append(h.Loop.Repairs, o.loop.repairs[kind])
	}
	for _, n := range o.sorted() {
		if n.used() || n.Leased {
			h.Networks = append(h.Networks, o.reportNetwork(n))
		}
	}
	return h
}

// reportNetwork is one network's part; the caller holds mu.
func (o *Overlay) reportNetwork(n *network) report.Network {
	r := report.Network{
		Name: n.Name, CIDR: n.Config.Network, IPv6CIDR: n.Config.IPv6Network, Backend: n.Config.Backend.Type, Subnet: n.Subnet, MTU: n.portMTU(),
		Interface: n.Underlay.Name, PublicIP: n.Underlay.PublicIP, Lease: o.reportLease(n),
		IPv6Subnet: n.IPv6Subnet,
		Leases:     len(n.peers), Skipped: n.skipped.list(), Skips: n.skipped.total,
	}
	if n.IPv6Subnet.IsValid() {
		r.PublicIPv6 = n.Underlay.IPv6.PublicIP
	}
	self, why := n.self(), n.skipped.why()
	for _, l := range others(self, n.peers) {
		r.Peers = append(r.Peers, report.Peer{
			Subnet: l.Subnet, PublicIP: l.PublicIP, IPv6Subnet: l.IPv6Subnet, PublicIPv6: l.PublicIPv6, Backend: cmp.Or(l.BackendType, "udp"), Skipped: why[l.Subnet.String()],
			SkippedIPv6: why[l.IPv6Subnet.String()],
		})
	}
	if n.Docker == nil {
		return r
	}
	r.DockerID, r.Bridge = n.Docker.ID, n.Docker.Name()
	r.Device = r.Bridge
	if self.IPv6 {
		r.IPv6Device = r.Bridge
	}
	if backend, err := o.backend(n.Config.Backend.Type); err == nil {
		plan, _ := backend.Plan(self, nil)
		if len(plan.Links) > 0 {
			r.Device = plan.Links[0].Name
			if self.IPv6 {
				r.IPv6Device = plan.Links[len(plan.Links)-1].Name // the family has its own, or shares
			}
		}
		if len(plan.Seals) > 0 {
			r.Port = plan.Seals[0].Port
		}
		if _, carrier := backend.(Carrier); carrier {
			traffic := n.carrying.traffic()
			r.Tunnel = &traffic
			r.Blocked = n.carrying.blocked()
		}
	}
	for _, p := range n.Ports {
		r.Ports = append(r.Ports, report.Port{Endpoint: p.Endpoint, Addr: p.Addr, IPv6: p.IPv6, MAC: p.MAC.String()})
	}
	for _, p := range n.Published {
		r.Published = append(r.Published, report.Published{Proto: p.Asked.Proto.String(), Host: p.Host, To: p.To, Endpoint: p.Endpoint})
	}
	slices.SortFunc(r.Published, func(a, b report.Published) int {
		return cmp.Or(a.Host.Compare(b.Host), cmp.Compare(a.Proto, b.Proto))
	})
	slices.SortFunc(r.Ports, func(a, b report.Port) int { return a.Addr.Compare(b.Addr) })
	return r
}

// blocked says why no packets are carried.
func (c *carrying) blocked() string {
	switch {
	case c.open:
		return ""
	case c.err != nil:
		return c.err.Error()
	}
	return "the tunnel is being opened"
}

// reportLease tells how the lease stands; the caller holds mu.
func (o *Overlay) reportLease(n *network) report.Lease {
	t := n.tenure
	l := report.Lease{Since: n.Since, Renewed: t.renewed, Renewals: t.renewals, Failures: t.failures, TTL: o.opt.TTL}
	if t.err != nil {
		l.Error = t.err.Error()
	}
	switch {
	case !n.used():
		l.State = report.Returning
	case t.taken:
		l.State, l.TakenBy = report.Taken, t.by
	case t.gone:
		l.State = report.Lost
	case t.err != nil || t.renewed.IsZero():
		l.State = report.Unconfirmed
	default:
		l.State = report.Held
	}
	return l
}
