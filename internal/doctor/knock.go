package doctor

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay/probe"
)

const (
	// patience is how long an echo may take, tries how many are sent.
	patience = 500 * time.Millisecond
	tries    = 3
	// atOnce is how many hosts are asked at a time, mostPeers how many of a
	// network in all, by lot.
	atOnce    = 32
	mostPeers = 256
)

// probe asks the other hosts.
func (v *visit) probe(ctx context.Context) {
	w := v.world
	if w.HostErr != "" {
		w.Probe = w.HostErr
		return
	}
	for _, n := range w.networks() {
		peers := n.Peers
		if len(peers) > mostPeers {
			w.Left += len(peers) - mostPeers
			peers = append([]report.Peer{}, peers...)
			rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
			peers = peers[:mostPeers]
		}
		for _, p := range peers {
			w.Peers = append(w.Peers, newPeer(n, p))
		}
	}
	err := probe.Serve(ctx, false, func(plain *probe.Pinger) error {
		return probe.Serve(ctx, true, func(whole *probe.Pinger) error {
			var g errgroup.Group
			g.SetLimit(atOnce)
			for i := range w.Peers {
				g.Go(func() error {
					v.probePeer(ctx, plain, whole, &w.Peers[i])
					return nil
				})
			}
			return g.Wait()
		})
	})
	if err != nil {
		w.Probe = err.Error()
	}
}

// newPeer is a host that was not asked yet.
func newPeer(n report.Network, p report.Peer) Peer {
	out := Peer{
		Network: n.Name, Backend: n.Backend, Skipped: p.Skipped, Device: n.Device, Port: n.Port,
		Way: Way{PublicIP: p.PublicIP, Subnet: p.Subnet, Inside: n.Inside(p), Need: n.MTU + overhead(n.Backend, false)},
	}
	if inside := n.InsideIPv6(p); inside.IsValid() && p.Skipped == "" {
		out.IPv6 = &Way{PublicIP: p.PublicIPv6, Subnet: p.IPv6Subnet, Inside: inside, Skipped: p.SkippedIPv6, Need: n.MTU + overhead(n.Backend, true)}
		if n.Backend == "udp" {
			out.IPv6.PublicIP = p.PublicIP
		}
		if !out.IPv6.PublicIP.IsValid() && out.IPv6.Skipped == "" {
			out.IPv6.Skipped = "its lease has no PublicIPv6"
		}
	}
	return out
}

// probePeer asks one host for everything.
func (v *visit) probePeer(ctx context.Context, plain, whole *probe.Pinger, p *Peer) {
	if p.Skipped != "" {
		return
	}
	var g errgroup.Group
	g.Go(func() error { v.probeWay(ctx, plain, whole, p, &p.Way); return nil })
	if p.IPv6 != nil {
		g.Go(func() error { v.probeWay(ctx, plain, whole, p, p.IPv6); return nil })
	}
	_ = g.Wait() // none of them returns an error
	if p.Overlay.Came && p.Backend == "vxlan" {
		if n := v.network(p.Network); n != nil {
			// An error leaves it undetermined.
			p.Sums, _ = probe.UDP{}.Checksums(ctx, n.Subnet.Addr(), p.Inside)
		}
	}
}

// probeWay asks one host over one family.
func (v *visit) probeWay(ctx context.Context, plain, whole *probe.Pinger, p *Peer, y *Way) {
	if y.Skipped != "" {
		return
	}
	// Asked before the goroutines write: a method reads the whole.
	atDevice, carried := y.second() && p.Backend == "vxlan", y.carried()
	var g errgroup.Group
	g.Go(func() error {
		if y.Overlay = echo(ctx, plain, y.Inside); !y.Overlay.Came && atDevice {
			// Stock flannel's host may have IPv6 at its tunnel's device alone.
			if device := echo(ctx, plain, y.Subnet.Addr()); device.Came {
				y.Inside, y.Overlay = y.Subnet.Addr(), device
			}
		}
		return nil
	})
	if !carried {
		g.Go(func() error { y.Underlay = echo(ctx, plain, y.PublicIP); return nil })
	}
	_ = g.Wait() // none of them returns an error
	if y.Underlay.Came && !y.Overlay.Came && p.Port != 0 {
		y.Refused = refused(ctx, netip.AddrPortFrom(y.PublicIP, uint16(p.Port)))
	}
	if y.Underlay.Came {
		y.Path, y.Narrow = v.path(ctx, whole, p.Network, *y)
	}
}

func (v *visit) network(name string) *report.Network {
	for i, n := range v.world.Host.Networks {
		if n.Name == name {
			return &v.world.Host.Networks[i]
		}
	}
	return nil
}

// echo asks until an answer comes.
func echo(ctx context.Context, p *probe.Pinger, to netip.Addr) (e Echo) {
	const small = 84 // bytes, as ping's
	for range tries {
		took, err := p.Echo(ctx, to, small, patience)
		switch {
		case err == nil:
			return Echo{Came: true, Took: took}
		case !errors.Is(err, probe.ErrSilent):
			e.Error = err.Error()
			return e
		}
	}
	return e
}

// path is the MTU to a host, as far as this host's interface allows.
func (v *visit) path(ctx context.Context, whole *probe.Pinger, network string, y Way) (mtu int, narrow bool) {
	i, known := v.world.iface(v.world.leadsTo(network))
	if !known {
		return 0, false
	}
	// An answer may take as long as the first did, and then some.
	var err error
	wait := min(patience, max(100*time.Millisecond, 8*y.Underlay.Took))
	mtu, err = probe.PathMTU(probe.LeastMTU(y.PublicIP), i.MTU, func(size int) (bool, error) {
		return whole.Fits(ctx, y.PublicIP, size, tries, wait)
	})
	if err != nil {
		return 0, false
	}
	return mtu, mtu == 0
}

// refused tells whether a datagram is answered with ICMP port unreachable.
func refused(ctx context.Context, to netip.AddrPort) bool {
	c, err := new(net.Dialer).DialContext(ctx, "udp", to.String())
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }() // nothing was kept in it
	for range tries {
		if _, err := c.Write([]byte{0}); errors.Is(err, unix.ECONNREFUSED) {
			return true
		}
		if c.SetReadDeadline(time.Now().Add(patience/2)) != nil {
			return false
		}
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, unix.ECONNREFUSED) {
			return true
		}
	}
	return false
}
