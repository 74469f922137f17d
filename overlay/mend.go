package overlay

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/docker-flannel/docker-flannel/overlay/kernel"
	"github.com/docker-flannel/docker-flannel/overlay/probe"
)

// Prober finds out what becomes of packets between hosts.
type Prober interface {
	// Checksums tells whether packets from one VTEP arrive at another when
	// their checksum is left to the devices.
	Checksums(ctx context.Context, from, to netip.Addr) (probe.Verdict, error)
}

const (
	// probeTries is how often the peers are asked in vain.
	probeTries = 8
	// probePeers is how many of them are asked at a time.
	probePeers = 3
)

// platform is what a device's offloads depend on.
type platform struct{ Release, Interface string } // of the kernel; of the underlay

// mending is what is known beside the record while the process runs.
type mending struct {
	news     chan struct{} // the peers or the underlay are others
	settled  platform      // where nothing is left to find out
	tries    int           // in vain
	silent   []netip.Addr  // peers asked in vain where that is settled
	restored bool          // turning the offload off did not help
}

func newMending() mending { return mending{news: make(chan struct{}, 1)} }

// begin asks anew for another Docker network; the caller holds Overlay.mu.
func (m *mending) begin() { m.settled, m.tries, m.silent = platform{}, 0, nil }

// txSum is what the network's device is to do about checksums.
func (n *network) txSum() kernel.Offload {
	switch {
	case n.Faulty != platform{} && n.Faulty.Interface == n.Underlay.Name:
		return kernel.Off
	case n.mending.restored:
		return kernel.On
	}
	return kernel.Kept
}

// mend finds out, once the network has peers and again on another underlay,
// whether packets whose checksum is left to the network's device arrive. Where
// they do not, as with some NICs and hypervisors, and do once the device leaves
// no checksums to the one below it, it is kept so.
func (o *Overlay) mend(ctx context.Context, n *network) error {
	if o.opt.Probe == nil {
		return nil
	}
	retry := backoff{min: 2 * time.Second, max: 2 * time.Minute}
	for ctx.Err() == nil {
		t, open := o.trial(n)
		switch {
		case !open:
			await(ctx, n.mending.news)
		case !o.decide(ctx, n, t):
			await(ctx, time.After(retry.next()))
		}
	}
	return ctx.Err()
}

// trial is what to ask the peers of a network.
type trial struct {
	device string
	from   netip.Addr
	all    []netip.Addr // peers behind the device
	peers  []netip.Addr // to ask, in random order
	here   platform
	off    bool // the offload is off already
}

// trial is not open when there is nobody to ask, when the answer is known, and
// where the backend has no device that leaves checksums to another.
func (o *Overlay) trial(n *network) (t trial, open bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t.here = platform{o.opt.Release, n.Underlay.Name}
	backend, err := o.backend(n.Config.Backend.Type)
	settled := n.mending.settled == t.here
	if err != nil || n.Docker == nil || settled && n.mending.silent == nil {
		return t, false
	}
	self := n.self()
	t.off = self.TxSum == kernel.Off
	self.TxSum = kernel.Off
	plan, _ := backend.Plan(self, others(self, n.peers))
	link := slices.IndexFunc(plan.Links, func(l kernel.Link) bool { return l.TxSum == kernel.Off })
	if link < 0 {
		n.mending.settled = t.here
		return t, false
	}
	t.device = plan.Links[link].Name
	for _, a := range plan.Addrs {
		if a.Link == t.device {
			t.from = a.Prefix.Addr()
		}
	}
	for _, r := range plan.Routes {
		if r.Link == t.device {
			t.all = append(t.all, r.Via)
		}
	}
	t.peers = slices.Clone(t.all)
	if settled {
		// Those who came since may tell what the others did not.
		t.peers = slices.DeleteFunc(t.peers, func(p netip.Addr) bool { return slices.Contains(n.mending.silent, p) })
	}
	rand.Shuffle(len(t.peers), func(i, j int) { t.peers[i], t.peers[j] = t.peers[j], t.peers[i] })
	t.peers = t.peers[:min(len(t.peers), probePeers)]
	return t, len(t.peers) > 0
}

// decide asks the peers and acts on what they answer; false when it is to be
// tried again.
func (o *Overlay) decide(ctx context.Context, n *network, t trial) bool {
	if err := o.sync(ctx); err != nil {
		return false // and in the log
	}
	verdict, peer := o.ask(ctx, t)
	fresh := verdict == probe.Faulty && !t.off
	if fresh {
		o.turn(ctx, n, t, kernel.Off)
		t.off, t.peers = true, []netip.Addr{peer}
		verdict, _ = o.ask(ctx, t)
	}
	if ctx.Err() != nil {
		return false // what was begun goes on at the next start
	}
	if t.off && (verdict == probe.Faulty || fresh && verdict == probe.Undetermined) {
		o.turn(ctx, n, t, kernel.On)
		t.off = false
	}
	var silent []netip.Addr
	log := o.opt.Log.With("network", title(n.Name), "device", t.device, "interface", t.here.Interface, "kernel", t.here.Release)
	switch {
	case verdict == probe.Undetermined:
		if !o.exhausted(n) {
			return false
		}
		silent = t.all
		if t.off {
			log.Info("transmit checksum offload was found to spoil packets and stays off; no peer tells whether it still does")
			break
		}
		log.Info("no peer tells whether transmit checksum offload works; if containers on two hosts reach each other by ping and not by TCP, turn it off with: ethtool -K " + t.device + " tx off")
	case verdict == probe.Faulty:
		log.Warn("TCP and UDP packets reach a peer only without a checksum, and transmit checksum offload is not the cause: it is on again; look for what changes or drops packets between the hosts", "peer", peer)
	case t.off:
		log.Warn("transmit checksum offload spoils the TCP and UDP packets to other hosts, so it is off: they arrive, and throughput is lower", "peer", peer)
	default:
		log.Debug("transmit checksum offload works", "peer", peer)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n.mending.settled, n.mending.tries, n.mending.silent = t.here, 0, silent
	return true
}

// ask probes one peer after the other until one answers.
func (o *Overlay) ask(ctx context.Context, t trial) (probe.Verdict, netip.Addr) {
	for _, peer := range t.peers {
		verdict, err := o.opt.Probe.Checksums(ctx, t.from, peer)
		if verdict != probe.Undetermined {
			return verdict, peer
		}
		o.opt.Log.Debug("transmit checksums undetermined", "device", t.device, "peer", peer, "error", err)
	}
	return probe.Undetermined, netip.Addr{}
}

// turn sets the device's offload. That it is off is on disk before: a process
// that ends before it knows whether that helps asks at the next start.
func (o *Overlay) turn(ctx context.Context, n *network, t trial, sum kernel.Offload) {
	o.mu.Lock()
	n.Faulty, n.mending.restored = platform{}, sum == kernel.On
	if sum == kernel.Off {
		n.Faulty = t.here
	}
	o.peers = nil
	o.mu.Unlock()
	if err := errors.Join(o.file.Commit(), o.sync(ctx, "link "+t.device)); err != nil && ctx.Err() == nil {
		o.opt.Log.Error("set transmit checksum offload", "device", t.device, "to", sum, "error", err)
	}
	// On again it is the operator's to change.
	o.mu.Lock()
	defer o.mu.Unlock()
	n.mending.restored = false
	o.peers = nil
}

// exhausted counts what was tried in vain.
func (o *Overlay) exhausted(n *network) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	n.mending.tries++
	return n.mending.tries >= probeTries
}
