// Package udp is flannel's udp backend as a user-space encapsulator: packets
// routed to a TUN device go, as they are, as the payload of UDP datagrams to
// the host that owns the destination's subnet, port 8285 by default.
//
// Two threads carry the packets, under load one each way, and never allocate.
// Both sides move packets in bulk: the TUN device hands over and takes TCP and
// UDP super-packets of up to 64 KB (virtio headers), the socket sends and
// receives runs of datagrams in one message (UDP_SEGMENT, UDP_GRO). Where the
// kernel lacks one of these the same packets go one by one.
//
// The device is a router between the two: it decrements the TTL on both
// crossings, fragments, and answers with ICMP errors from the device's own
// address. For those to be forwarded, the sysctl
// net.ipv4.conf.<device>.accept_local must be 1. Addresses and routes of the
// device are the caller's.
package udp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// DefaultPort is flannel's UDP port of this backend.
	DefaultPort = 8285
	// Overhead is what the encapsulation adds to a packet, in bytes: outer
	// IPv4 20, UDP 8.
	Overhead = 28

	minMTU = 68 // RFC 791: the largest header and eight bytes
)

// Options are what a Device is made of.
type Options struct {
	Name  string         // of the TUN device
	Local netip.AddrPort // of this host on the underlay, IPv4
	MTU   int            // bytes, of the TUN device
	Log   *slog.Logger
}

// Device is a TUN device, a UDP socket and what carries packets between them.
type Device struct {
	opt   Options
	tun   *tun
	sock  *socket
	stop  *bell
	table atomic.Pointer[Table]
	out   tally // TUN to UDP
	in    tally // UDP to TUN
	errs  tally // ICMP errors to other hosts
}

// Open attaches to the TUN device, which must be there and stay without it, in
// the current network namespace, and binds the socket. While no process reads
// the device its packets are lost, and everything that names it stays. Nothing
// is carried before Run.
func Open(opt Options) (*Device, error) {
	if !opt.Local.Addr().Is4() {
		return nil, fmt.Errorf("open %s: underlay address %s is not IPv4", opt.Name, opt.Local)
	}
	if opt.MTU < minMTU || opt.MTU > maxPacket {
		return nil, fmt.Errorf("open %s: MTU %d is outside %d-%d", opt.Name, opt.MTU, minMTU, maxPacket)
	}
	stop, err := newBell()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", opt.Name, err)
	}
	d := &Device{opt: opt, stop: stop}
	if d.sock, err = openSocket(opt.Local); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", opt.Name, err), d.Close())
	}
	if d.tun, err = openTUN(opt.Name); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", opt.Name, err), d.Close())
	}
	opt.Log.Info("tunnel open", "device", opt.Name, "address", opt.Local, "mtu", opt.MTU,
		"tcp_offload", d.tun.tso, "udp_offload", d.tun.uso, "segment", d.sock.segment.Load(), "gro", d.sock.gro)
	return d, nil
}

// Set replaces the peers, at once for every packet that follows.
func (d *Device) Set(t *Table) { d.table.Store(t) }

// Run carries packets until ctx ends, and then waits for its threads. It may
// run once.
func (d *Device) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, d.stop.ring)()
	c, err := newCrew(d)
	if err != nil {
		return fmt.Errorf("carry packets of %s: %w", d.opt.Name, err)
	}
	var wg sync.WaitGroup
	var failed [2]error
	for i, carry := range []func() error{c.first, c.second} {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if failed[i] = carry(); failed[i] != nil {
				d.stop.ring() // one direction alone is of no use
			}
		})
	}
	wg.Wait()
	if err := errors.Join(failed[0], failed[1], c.close()); err != nil {
		return fmt.Errorf("carry packets of %s: %w", d.opt.Name, err)
	}
	return ctx.Err()
}

// Close lets go of the TUN device, which stays, and of the socket. It must not
// be called while Run runs.
func (d *Device) Close() error {
	err := d.stop.close()
	if d.tun != nil {
		err = errors.Join(err, d.tun.close())
	}
	if d.sock != nil {
		err = errors.Join(err, d.sock.close())
	}
	return err
}
