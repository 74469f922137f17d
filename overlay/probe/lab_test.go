//go:build lab

package probe_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/docker-flannel/docker-flannel/overlay/kernel"
	"github.com/docker-flannel/docker-flannel/overlay/probe"
)

// host is a network namespace with a NIC, tap0, that this process plays, and a
// vxlan device over it. The namespace goes with its thread.
type host struct {
	testing.TB
	n    byte // 1 or 2
	work chan func()
	nic  *os.File
	k    *kernel.Kernel
}

func newHost(t testing.TB, n byte) *host {
	t.Helper()
	h := &host{TB: t, n: n, work: make(chan func())}
	up := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		up <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range h.work {
			f()
		}
	}()
	t.Cleanup(func() { close(h.work) })
	if err := <-up; err != nil {
		t.Fatalf("lab tests need root: unshare: %v", err)
	}
	h.do(func() error {
		fd, err := openNIC("tap0")
		if err == nil {
			h.nic = os.NewFile(uintptr(fd), "tap0")
		}
		return err
	})
	t.Cleanup(func() { h.nic.Close() })
	h.sh("sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0; ip link set lo up; ip link set tap0 up; ip addr add 10.0.0." + string('0'+n) + "/24 dev tap0")
	h.do(func() (err error) {
		h.k, err = kernel.Open(kernel.Options{})
		return err
	})
	t.Cleanup(func() { _ = h.k.Close() })
	return h
}

// do calls f on the namespace's thread.
func (h *host) do(f func() error) {
	h.Helper()
	done := make(chan error)
	h.work <- func() { done <- f() }
	if err := <-done; err != nil {
		h.Fatal(err)
	}
}

func (h *host) sh(command string) {
	h.Helper()
	h.do(func() error {
		out, err := exec.Command("sh", "-ec", command).CombinedOutput()
		if err != nil {
			h.Logf("%s: %s", command, out)
		}
		return err
	})
}

// vtep is a host's address on its vxlan device.
func vtep(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 5, n, 0}) }

// offload makes the vxlan device, and what it needs to know of the other host,
// with that wish.
func (h *host) offload(sum kernel.Offload) {
	h.Helper()
	mac := func(n byte) kernel.MAC { return kernel.MAC{2, 0, 0, 0, 0, n} }
	other := 3 - h.n
	result := h.k.Apply(h.Context(), kernel.State{
		Links: []kernel.Link{{Name: "flannel.1", MAC: mac(h.n), MTU: 1450, TxSum: sum, VXLAN: kernel.VXLAN{
			VNI: 1, Port: 8472, Local: netip.AddrFrom4([4]byte{10, 0, 0, h.n}), Dev: "tap0",
		}}},
		Addrs:  []kernel.Addr{{Link: "flannel.1", Prefix: netip.PrefixFrom(vtep(h.n), 32)}},
		Neighs: []kernel.Neigh{{Link: "flannel.1", IP: vtep(other), MAC: mac(other)}},
		FDB:    []kernel.FDB{{Link: "flannel.1", MAC: mac(other), Dst: netip.AddrFrom4([4]byte{10, 0, 0, other})}},
		Routes: []kernel.Route{{Dst: netip.PrefixFrom(vtep(other), 24), Via: vtep(other), Link: "flannel.1", OnLink: true}},
	})
	for _, f := range result.Failed {
		h.Fatal(f)
	}
}

// pair is two hosts on one wire. While blind is set, host a's NIC has the
// fault.
type pair struct {
	a, b  *host
	blind atomic.Bool
}

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{a: newHost(t, 1), b: newHost(t, 2)}
	carry := func(from, to *os.File, blind *atomic.Bool) {
		ended := make(chan error, 1)
		go func() { ended <- nic(from, to, blind) }()
		t.Cleanup(func() {
			from.Close()
			to.Close()
			if err := <-ended; !errors.Is(err, fs.ErrClosed) {
				t.Error(err)
			}
		})
	}
	carry(p.a.nic, p.b.nic, &p.blind)
	carry(p.b.nic, p.a.nic, new(atomic.Bool))
	return p
}

// joinByHand gives both hosts their vxlan devices.
func joinByHand(t testing.TB) *pair {
	t.Helper()
	p := newPair(t)
	p.a.offload(kernel.Kept)
	p.b.offload(kernel.Kept)
	return p
}

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// connect opens a TCP connection from a to b within a time.
func (p *pair) connect(t testing.TB, wait time.Duration) error {
	t.Helper()
	var l net.Listener
	p.b.do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(vtep(2), 0).String())
		return err
	})
	defer l.Close()
	var err error
	p.a.do(func() error {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		var c net.Conn
		if c, err = new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String()); err == nil {
			c.Close()
		}
		return nil
	})
	return err
}

// expect probes from a to b.
func (p *pair) expect(t testing.TB, when string, want probe.Verdict) {
	t.Helper()
	p.a.do(func() error {
		began := time.Now()
		got, err := probe.UDP{}.Checksums(t.Context(), vtep(1), vtep(2))
		t.Logf("%s: %s after %s", when, got, time.Since(began).Round(time.Millisecond))
		if got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
		return err
	})
}

// TestFault has the fault, finds it and mends it.
func TestFault(t *testing.T) {
	t.Parallel()
	p := joinByHand(t)
	p.expect(t, "sound NIC", probe.Healthy)
	if err := p.connect(t, patience); err != nil {
		t.Fatalf("sound NIC: %v", err)
	}
	p.blind.Store(true)
	p.a.sh("ping -c 1 -W 2 10.5.2.0")
	if err := p.connect(t, 500*time.Millisecond); err == nil {
		t.Fatal("blind NIC: TCP connects")
	}
	p.expect(t, "blind NIC", probe.Faulty)
	p.a.offload(kernel.Off)
	if err := p.connect(t, patience); err != nil {
		t.Errorf("offload off: %v", err)
	}
	p.expect(t, "offload off", probe.Healthy)
	p.a.offload(kernel.On)
	p.expect(t, "offload on again", probe.Faulty)
}

// TestSilence: what keeps answers back is no fault.
func TestSilence(t *testing.T) {
	const (
		drop   = `nft 'table ip t { chain out { type filter hook output priority 0; icmp type destination-unreachable drop; }; }'`
		reject = `nft 'table ip t { chain in { type filter hook input priority 0; iif flannel.1 udp dport > 1024 reject; }; }'`
	)
	for _, c := range []struct {
		name, onB string
		blind     bool
		want      probe.Verdict
	}{
		{"firewall", drop, false, probe.Undetermined},
		{"firewall, blind NIC", drop, true, probe.Undetermined},
		{"firewall that rejects", reject, false, probe.Healthy},
		{"firewall that rejects, blind NIC", reject, true, probe.Faulty},
		{"no answer left", "sysctl -q net.ipv4.icmp_ratelimit=100000", false, probe.Undetermined},
		{"two answers left, blind NIC", "sysctl -q net.ipv4.icmp_ratelimit=25000", true, probe.Undetermined},
		{"peer down", "ip link set tap0 down", false, probe.Undetermined},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := joinByHand(t)
			p.blind.Store(c.blind)
			p.b.sh(c.onB)
			p.expect(t, c.name, c.want)
		})
	}
}

// TestLimit uses the peer's answers up, and is patient.
func TestLimit(t *testing.T) {
	t.Parallel()
	p := joinByHand(t)
	p.a.do(func() error {
		c, err := net.ListenPacket("udp", netip.AddrPortFrom(vtep(1), 0).String())
		if err != nil {
			return err
		}
		defer c.Close()
		closed := net.UDPAddrFromAddrPort(netip.AddrPortFrom(vtep(2), 9))
		for range 20 {
			if _, err := c.WriteTo([]byte{0}, closed); err != nil {
				return err
			}
		}
		return nil
	})
	p.expect(t, "limited", probe.Healthy)
}
