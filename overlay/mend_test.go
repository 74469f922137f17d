package overlay_test

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/probe"
)

// wire is what a host's probes find, by whether the offload is off.
type wire struct {
	board *board
	mu    sync.Mutex
	on    probe.Verdict
	off   probe.Verdict
	asked []netip.Addr
}

func (w *wire) Checksums(ctx context.Context, _, to netip.Addr) (probe.Verdict, error) {
	if err := ctx.Err(); err != nil {
		return probe.Undetermined, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, to)
	if strings.Contains(w.board.text(), "txsum off") {
		return w.off, nil
	}
	return w.on, nil
}

func (w *wire) set(on, off probe.Verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.on, w.off = on, off
}

// count is how often it was asked since the last time.
func (w *wire) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.asked)
	w.asked = nil
	return n
}

// onWire runs a host whose probes go to w.
func onWire(t *testing.T, store overlay.Store, w *wire, dir, release string) *host {
	t.Helper()
	return start(t, store, w.board, dir, func(o *overlay.Options) { o.Probe, o.Release = w, release })
}

// withPeer is a host on a wire, and a peer that came after it.
func withPeer(t *testing.T, w *wire, dir string) (*host, *memory) {
	t.Helper()
	store := newMemory()
	w.board = newBoard("192.0.2.1")
	a := onWire(t, store, w, dir, "6.1")
	a.network(t)
	synctest.Wait()
	if n := w.count(); n != 0 {
		t.Fatalf("asked %d times without peers", n)
	}
	start(t, store, newBoard("192.0.2.2"), t.TempDir()).network(t)
	return a, store
}

func TestMend(t *testing.T) {
	const kept, off = "mtu 1450\naddr", "txsum off"
	for _, c := range []struct {
		name    string
		on, off probe.Verdict
		asked   int
		kernel  string
		log     string
	}{
		{"healthy", probe.Healthy, probe.Healthy, 1, kept, ""},
		{"mended", probe.Faulty, probe.Healthy, 2, off, `level=WARN msg="transmit checksum offload spoils the TCP and UDP packets to other hosts, so it is off: they arrive, and throughput is lower" network="the default network" device=flannel.1 interface=eth0 kernel=6.1 peer=10.5.2.0`},
		{"not the cause", probe.Faulty, probe.Faulty, 2, kept, "level=WARN msg=\"TCP and UDP packets reach a peer only without a checksum"},
		{"no answer", probe.Undetermined, probe.Undetermined, 8, kept, "ethtool -K flannel.1 tx off"},
		{"no answer once off", probe.Faulty, probe.Undetermined, 16, kept, "ethtool -K flannel.1 tx off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{on: c.on, off: c.off}
				a, _ := withPeer(t, w, t.TempDir())
				time.Sleep(time.Hour) // the fake clock's
				if n := w.count(); n != c.asked {
					t.Errorf("asked %d times, want %d", n, c.asked)
				}
				wantText(t, "kernel", a.board.text(), c.kernel)
				// On again, and left to the operator from then on.
				if want := c.on == probe.Faulty && c.off != probe.Healthy; a.board.wasRestored() != want {
					t.Errorf("offload restored: %t, want %t", !want, want)
				}
				wantText(t, "log", a.log.String(), c.log)
				if n := strings.Count(a.log.String(), "device="); n != min(1, len(c.log)) {
					t.Errorf("%d lines in the log:\n%s", n, a.log)
				}
			})
		})
	}
}

// TestMendRemembered: what was found stands over a restart until the kernel is
// another.
func TestMendRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, dir := &wire{on: probe.Faulty, off: probe.Healthy}, t.TempDir()
		a, store := withPeer(t, w, dir)
		synctest.Wait()
		wantText(t, "kernel", a.board.text(), "txsum off")

		a.stop()
		w.set(probe.Faulty, probe.Undetermined)
		a = onWire(t, store, w, dir, "6.1")
		time.Sleep(time.Hour) // the fake clock's
		wantText(t, "kernel after a restart", a.board.text(), "txsum off")
		wantText(t, "log", a.log.String(), "stays off")

		a.stop()
		w.set(probe.Faulty, probe.Faulty)
		a = onWire(t, store, w, dir, "6.1")
		synctest.Wait()
		if !a.board.wasRestored() {
			t.Errorf("kernel where it is of no use any more:\n%s", a.board.text())
		}

		a.stop()
		w.set(probe.Faulty, probe.Healthy)
		a = onWire(t, store, w, dir, "6.1")
		synctest.Wait()
		a.stop()
		w.set(probe.Healthy, probe.Healthy)
		a = onWire(t, store, w, dir, "6.2")
		synctest.Wait()
		lacksText(t, "another kernel", a.board.text(), "txsum")
	})
}

// TestMendStopped ends the process between turning the offload off and knowing
// whether that helps.
func TestMendStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, dir := &wire{on: probe.Faulty}, t.TempDir()
		store := newMemory()
		w.board = newBoard("192.0.2.1")
		a := start(t, store, w.board, dir, func(o *overlay.Options) {
			o.Release = "6.1"
			o.Probe = prober(func(ctx context.Context) probe.Verdict {
				if strings.Contains(w.board.text(), "txsum off") {
					<-ctx.Done()
					return probe.Undetermined
				}
				return probe.Faulty
			})
		})
		a.network(t)
		start(t, store, newBoard("192.0.2.2"), t.TempDir()).network(t)
		synctest.Wait()
		a.stop()
		wantText(t, "kernel", w.board.text(), "txsum off")
		w.set(probe.Faulty, probe.Faulty)
		onWire(t, store, w, dir, "6.1")
		synctest.Wait()
		if !w.board.wasRestored() {
			t.Errorf("kernel after the restart:\n%s", w.board.text())
		}
	})
}

// prober is a Prober that does not care which peer.
type prober func(ctx context.Context) probe.Verdict

func (p prober) Checksums(ctx context.Context, _, _ netip.Addr) (probe.Verdict, error) {
	return p(ctx), ctx.Err()
}

// TestMendUnderlay: another interface is asked about anew.
func TestMendUnderlay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{on: probe.Faulty, off: probe.Healthy}
		a, _ := withPeer(t, w, t.TempDir())
		synctest.Wait()
		wantText(t, "kernel", a.board.text(), "dev eth0", "txsum off")
		w.count()
		w.set(probe.Healthy, probe.Healthy)
		a.board.move("192.0.2.3")
		synctest.Wait()
		wantText(t, "kernel at another address", a.board.text(), "192.0.2.3", "txsum off")
		a.board.mu.Lock()
		a.board.under.Name = "eth1"
		a.board.mu.Unlock()
		a.board.move("192.0.2.4")
		synctest.Wait()
		wantText(t, "kernel", a.board.text(), "dev eth1")
		lacksText(t, "kernel", a.board.text(), "txsum")
		if n := w.count(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestMendBackend: a backend without a device of its own is left alone.
func TestMendBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, w := newMemory(), &wire{on: probe.Faulty, board: newBoard("192.0.2.1")}
		w.board.under.Net = netip.MustParsePrefix("192.0.2.0/24")
		a := onWire(t, store, w, t.TempDir(), "6.1")
		n, err := a.Acquire(t.Context(), overlay.Request{Backend: "host-gw"})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Attach(t.Context(), overlay.Bridge{ID: dockerNet, Subnet: n.Subnet}); err != nil {
			t.Fatal(err)
		}
		b := newBoard("192.0.2.2")
		b.under.Net = w.board.under.Net
		start(t, store, b, t.TempDir()).network(t)
		time.Sleep(time.Hour) // the fake clock's
		wantText(t, "kernel", a.board.text(), "via 192.0.2.2")
		if n := w.count(); n != 0 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestMendLaterPeer asks a peer that came after all others were asked in vain.
func TestMendLaterPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{on: probe.Undetermined, off: probe.Undetermined}
		a, store := withPeer(t, w, t.TempDir())
		time.Sleep(time.Hour) // the fake clock's
		w.count()
		w.set(probe.Faulty, probe.Healthy)
		time.Sleep(time.Hour) // the fake clock's
		if n := w.count(); n != 0 {
			t.Errorf("asked %d times more without a new peer", n)
		}
		start(t, store, newBoard("192.0.2.3"), t.TempDir()).network(t)
		time.Sleep(time.Hour) // the fake clock's
		wantText(t, "kernel", a.board.text(), "txsum off")
	})
}
