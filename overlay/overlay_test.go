package overlay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/logbuf"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/hostgw"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
	"github.com/docker-flannel/docker-flannel/overlay/vxlan"
)

const (
	dockerNet = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	endpoint  = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
)

// host is one host of a test: an Overlay that runs, on a board and a log.
type host struct {
	*overlay.Overlay
	board *board
	log   *logbuf.Buffer
	dir   string
	stop  func()
}

// start runs a host on the state files in dir.
func start(t *testing.T, store overlay.Store, b *board, dir string, more ...func(*overlay.Options)) *host {
	t.Helper()
	return startWith(t, store, b, dir, `{"Type":"vxlan"}`,
		map[string]overlay.Backend{vxlan.Type: vxlan.Backend{}, hostgw.Type: hostgw.Backend{}}, more...)
}

// startWith has a network of a backend to begin with.
func startWith(t *testing.T, store overlay.Store, b *board, dir, backend string, backends map[string]overlay.Backend, more ...func(*overlay.Options)) *host {
	t.Helper()
	initial, err := overlay.NewConfig(netip.MustParsePrefix("10.5.0.0/16"), 24, []byte(backend))
	if err != nil {
		t.Fatal(err)
	}
	log := &logbuf.Buffer{}
	opt := overlay.Options{
		Dir: dir, Store: store, Kernel: b, Backends: backends,
		Pool:    overlay.Pool{Base: netip.MustParsePrefix("10.128.0.0/9"), Bits: 16},
		Initial: initial, TTL: 24 * time.Hour, Ports: b, Log: slog.New(slog.NewTextHandler(log, nil)),
	}
	for _, set := range more {
		set(&opt)
	}
	o, err := overlay.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return &host{o, b, log, dir, run(t, o)}
}

// run runs an Overlay until stop, or the end of the test.
func run(t *testing.T, o *overlay.Overlay) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// network acquires a subnet and attaches a Docker network to it.
func (h *host) network(t *testing.T) overlay.Network {
	t.Helper()
	n, err := h.Acquire(t.Context(), overlay.Request{})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Attach(t.Context(), overlay.Bridge{ID: dockerNet, Subnet: n.Subnet}); err != nil {
		t.Fatal(err)
	}
	return n
}

// remove takes the network away in the engine's order.
func (h *host) remove(t *testing.T, n overlay.Network) {
	t.Helper()
	if err := h.Release(t.Context(), n.Subnet); err != nil {
		t.Fatal(err)
	}
	if err := h.Detach(t.Context(), dockerNet); err != nil {
		t.Fatal(err)
	}
}

func port(n overlay.Network) overlay.Port {
	return overlay.Port{
		Network: dockerNet, Endpoint: endpoint, Addr: n.Gateway.Next(), MAC: kernel.MAC{2, 0x42, 10, 5, 1, 2},
	}
}

func wantText(t *testing.T, where, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s lacks %q:\n%s", where, part, text)
		}
	}
}

func lacksText(t *testing.T, where, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			t.Errorf("%s has %q:\n%s", where, part, text)
		}
	}
}

func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		a := start(t, store, newBoard("192.0.2.1"), t.TempDir())
		b := start(t, store, newBoard("192.0.2.2"), t.TempDir())
		n, m := a.network(t), b.network(t)
		if n.Subnet == m.Subnet || n.MTU != 1450 {
			t.Fatalf("networks %+v and %+v", n, m)
		}
		synctest.Wait()
		wantText(t, "a's kernel", a.board.text(), "fl-0123456789ab", "flannel.1", n.Gateway.String(), m.Subnet.String(), "192.0.2.2", "ipv4/ip_forward")
		if err := a.AddPort(t.Context(), port(n)); err != nil {
			t.Fatal(err)
		}
		lacksText(t, "kernel before Join", a.board.text(), "flvfedcba987654")
		joined, err := a.Join(t.Context(), dockerNet, endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if joined.Interface != "flpfedcba987654" || joined.Network != n {
			t.Errorf("joined %+v", joined)
		}
		wantText(t, "kernel after Join", a.board.text(), "flvfedcba987654")
		if err := a.RemovePort(t.Context(), dockerNet, endpoint); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		lacksText(t, "kernel after RemovePort", a.board.text(), "flvfedcba987654")
		a.remove(t, n)
		synctest.Wait()
		if text := a.board.text(); text != "" {
			t.Errorf("left behind:\n%s", text)
		}
		if len(store.held()) != 1 {
			t.Errorf("leases left: %v\n%s", store.held(), a.log)
		}
		lacksText(t, "b's kernel", b.board.text(), n.Subnet.String())
		if again := a.network(t); again.Subnet != n.Subnet {
			t.Errorf("subnet %s after %s", again.Subnet, n.Subnet)
		}
	})
}

// TestDetachAlone is a DeleteNetwork whose ReleasePool was lost.
func TestDetachAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		a := start(t, store, newBoard("192.0.2.1"), t.TempDir())
		a.network(t)
		if err := a.Detach(t.Context(), dockerNet); err != nil {
			t.Fatal(err)
		}
		if left := store.held(); len(left) != 0 {
			t.Errorf("leases left: %v", left)
		}
	})
}

// TestCrashAfterAcquire is a create that ended with the plugin.
func TestCrashAfterAcquire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, dir := newMemory(), t.TempDir()
		a := start(t, store, newBoard("192.0.2.1"), dir)
		if _, err := a.Acquire(t.Context(), overlay.Request{}); err != nil {
			t.Fatal(err)
		}
		a.stop()
		start(t, store, newBoard("192.0.2.1"), dir)
		synctest.Wait()
		if left := store.held(); len(left) != 0 {
			t.Errorf("leases left: %v", left)
		}
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		a := start(t, store, newBoard("192.0.2.1"), t.TempDir())
		ctx := t.Context()
		acquire := func(subnet string) error {
			req := overlay.Request{}
			if subnet != "" {
				req.Subnet = netip.MustParsePrefix(subnet)
			}
			_, err := a.Acquire(ctx, req)
			return err
		}
		refused := func(what string, err error, parts ...string) {
			t.Helper()
			if err == nil {
				t.Errorf("%s: not refused", what)
				return
			}
			wantText(t, what, err.Error(), parts...)
		}
		refused("subnet elsewhere", acquire("172.30.0.0/24"), "--subnet 172.30.0.0/24", "10.5.0.0/16")
		refused("subnet of another length", acquire("10.5.4.0/22"), "--subnet 10.5.4.0/22")
		store.edit(func() {
			p := netip.MustParsePrefix("10.5.9.0/24")
			store.leases[p] = overlay.Lease{Subnet: p, PublicIP: netip.MustParseAddr("192.0.2.9")}
		})
		refused("subnet of another host", acquire("10.5.9.0/24"), "10.5.9.0/24", "192.0.2.9")
		if err := acquire("10.5.0.0/16"); err != nil {
			t.Fatal(err)
		}
		refused("the same subnet at once", acquire(""), "handed out", "resolv.conf")
		if err := a.Attach(ctx, overlay.Bridge{ID: dockerNet, Subnet: netip.MustParsePrefix("10.5.1.0/24"), MTU: 1500}); err == nil {
			t.Error("MTU 1500 in VXLAN on 1500 not refused")
		}
		if err := a.Attach(ctx, overlay.Bridge{ID: dockerNet, Subnet: netip.MustParsePrefix("10.5.1.0/24"), MTU: 1400}); err != nil {
			t.Fatal(err)
		}
		refused("a second network", acquire(""), "docker network rm 0123456789ab")
		refused("a foreign pool", a.Attach(ctx, overlay.Bridge{ID: endpoint, Subnet: netip.MustParsePrefix("10.5.2.0/24")}), "10.5.2.0/24", "--ipam-driver flannel")
		refused("the same network with another MTU", a.Attach(ctx, overlay.Bridge{ID: dockerNet, Subnet: netip.MustParsePrefix("10.5.1.0/24")}), "0123456789ab", "1400", "docker network rm")
		refused("the same network on another subnet", a.Attach(ctx, overlay.Bridge{ID: dockerNet, Subnet: netip.MustParsePrefix("10.5.2.0/24"), MTU: 1400}), "10.5.1.0/24")
		refused("an unknown endpoint", func() error { _, err := a.Join(ctx, dockerNet, endpoint); return err }(), "fedcba987654")
		refused("an unknown network", a.AddPort(ctx, overlay.Port{Network: endpoint}), "fedcba987654", "docker network rm")
	})
}

// goroutines counts those of the test's bubble: the process has others that come
// and go, for finalizers and for its testing.
func goroutines() int {
	stacks := make([]byte, 1<<20)
	return bytes.Count(stacks[:runtime.Stack(stacks, true)], []byte("synctest bubble"))
}

// TestRefusedNames: of a network that was asked for in vain nothing stays, and the
// call that is not in vain is not disturbed by those that are.
func TestRefusedNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a := start(t, newMemory(), newBoard("192.0.2.1"), dir)
		synctest.Wait()
		before := goroutines()
		var calls sync.WaitGroup
		ask := func(name string) {
			calls.Go(func() {
				if _, err := a.Acquire(t.Context(), overlay.Request{Name: name, Backend: "warp"}); err == nil {
					t.Errorf("%s: not refused", name)
				}
			})
		}
		for i := range 50 {
			ask(fmt.Sprintf("vain%d", i/2))
		}
		calls.Wait()
		synctest.Wait()
		if now := goroutines(); now != before || now == 0 {
			t.Errorf("%d goroutines, %d before", now, before)
		}
		var red overlay.Network
		for i := range 20 {
			if ask("red"); i == 10 {
				calls.Go(func() {
					var err error
					if red, err = a.Acquire(t.Context(), overlay.Request{Name: "red"}); err != nil {
						t.Error(err)
					}
				})
			}
		}
		calls.Wait()
		if err := a.Attach(t.Context(), overlay.Bridge{ID: dockerNet, Subnet: red.Subnet}); err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, overlay.StateFile))
		if err != nil {
			t.Fatal(err)
		}
		lacksText(t, "the state", string(text), "vain")
		wantText(t, "the state", string(text), `"red"`)
	})
}

func TestAvoidsHostRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard("10.5.1.7")
		b.routes = []netip.Prefix{netip.MustParsePrefix("10.5.0.0/22")}
		a := start(t, newMemory(), b, t.TempDir())
		if n := a.network(t); n.Subnet.String() != "10.5.4.0/24" {
			t.Errorf("subnet %s", n.Subnet)
		}
	})
}

func TestRestartWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		dir := t.TempDir()
		a := start(t, store, newBoard("192.0.2.1"), dir)
		b := start(t, store, newBoard("192.0.2.2"), t.TempDir())
		n, m := a.network(t), b.network(t)
		synctest.Wait()
		if err := a.AddPort(t.Context(), port(n)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(overlay.AuditInterval) // the fake clock's: a port alone is no reason for a pass
		synctest.Wait()
		before := a.board.text()
		a.stop()
		store.edit(func() { store.down = errDown })
		fresh := newBoard("192.0.2.1")
		again := start(t, store, fresh, dir)
		time.Sleep(overlay.AuditInterval + time.Second) // the fake clock's: forwarding waits for the engine
		synctest.Wait()
		if got := fresh.text(); got != before {
			t.Errorf("after the restart:\n%s\nbefore:\n%s", got, before)
		}
		wantText(t, "kernel", fresh.text(), m.Subnet.String())
		if _, err := again.Join(t.Context(), dockerNet, endpoint); err != nil {
			t.Errorf("Join without the store: %v", err)
		}
		wantText(t, "log", again.log.String(), "does not answer")
	})
}

func TestLostLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		a := start(t, store, newBoard("192.0.2.1"), t.TempDir())
		n := a.network(t)
		synctest.Wait()
		store.edit(func() { delete(store.leases, n.Subnet) })
		synctest.Wait()
		if store.held()[n.Subnet].PublicIP.String() != "192.0.2.1" {
			t.Errorf("the lease was not claimed back: %v", store.held())
		}
		thief := overlay.Lease{Subnet: n.Subnet, PublicIP: netip.MustParseAddr("192.0.2.66")}
		store.edit(func() { store.leases[n.Subnet] = thief })
		synctest.Wait()
		wantText(t, "log", a.log.String(), "ERROR", "192.0.2.66", n.Subnet.String())
		wantText(t, "kernel", a.board.text(), n.Gateway.String())
		store.edit(func() { delete(store.leases, n.Subnet) })
		synctest.Wait()
		if store.held()[n.Subnet].PublicIP.String() != "192.0.2.1" {
			t.Error("the lease was not claimed back once it was free")
		}
		wantText(t, "log", a.log.String(), "lease is held again")
	})
}

func TestKernelRefuses(t *testing.T) {
	for _, object := range []string{
		"kernel", "apply", "nft", "docker-user", "sysctl ipv4/ip_forward", "link flannel.1", "addr flannel.1 10.5.1.0/32",
		"link fl-0123456789ab", "addr fl-0123456789ab 10.5.1.1/24",
	} {
		t.Run(object, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBoard("192.0.2.1")
				b.refuse[object] = errors.New("operation not permitted")
				b.refuse["route 10.5.77.0/24"] = errors.New("no such device")
				a := start(t, newMemory(), b, t.TempDir())
				n, err := a.Acquire(t.Context(), overlay.Request{})
				if err != nil {
					t.Fatal(err)
				}
				err = a.Attach(t.Context(), overlay.Bridge{ID: dockerNet, Subnet: n.Subnet})
				if err == nil || !strings.Contains(err.Error(), object+": operation not permitted") || strings.Contains(err.Error(), "no such device") {
					t.Errorf("error %v", err)
				}
				synctest.Wait()
				if text := b.text(); text != "" {
					t.Errorf("left behind:\n%s", text)
				}
			})
		})
	}
}

func TestBackendAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		a := start(t, store, newBoard("192.0.2.1"), t.TempDir())
		if _, err := a.Acquire(t.Context(), overlay.Request{Backend: "carrier-pigeon"}); err == nil || !strings.Contains(err.Error(), "carrier-pigeon") || store.config != nil {
			t.Errorf("an unknown backend: %v, config %s", err, store.config)
		}
		if _, err := a.Acquire(t.Context(), overlay.Request{Backend: "host-gw"}); err != nil {
			t.Fatal(err)
		}
		if got, want := string(store.config), `{"Network":"10.5.0.0/16","SubnetLen":24,"Backend":{"Type":"host-gw"}}`; got != want {
			t.Errorf("config %s, want %s", got, want)
		}
		b := start(t, store, newBoard("192.0.2.2"), t.TempDir())
		if _, err := b.Acquire(t.Context(), overlay.Request{Backend: "vxlan"}); err == nil || !strings.Contains(err.Error(), "made with host-gw") {
			t.Errorf("another backend than the network's: %v", err)
		}
	})
}

func TestForeignDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, b := newMemory(), newBoard("192.0.2.1")
		b.foreign = "flannel.1"
		a := start(t, store, b, t.TempDir())
		if _, err := a.Acquire(t.Context(), overlay.Request{}); err == nil || !strings.Contains(err.Error(), "flannel.1") {
			t.Errorf("error %v", err)
		}
		if left := store.held(); len(left) != 0 {
			t.Errorf("leases claimed: %v", left)
		}
	})
}

// TestNarrowUnderlay keeps running containers' bridge and cables as wide as
// they were made: what is too large then is answered where it is routed.
func TestNarrowUnderlay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard("192.0.2.1")
		h := start(t, newMemory(), b, t.TempDir())
		n := h.network(t)
		p := port(n)
		if err := h.AddPort(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		b.narrow(1400)
		synctest.Wait()
		bridge, cable := "link fl-0123456789ab bridge mac 02:42:0a:05:01:01 mtu %d", "veth flvfedcba987654 peer flpfedcba987654 master fl-0123456789ab mac 02:42:0a:05:01:02 mtu %d"
		wantText(t, "kernel", b.text(), fmt.Sprintf(bridge, 1450), fmt.Sprintf(cable, 1450), "link flannel.1 vxlan id 1 port 8472 local 192.0.2.1 dev eth0 mac")
		wantText(t, "kernel", b.text(), "mtu 1350\n")
		if err := h.AddPort(t.Context(), p); err != nil {
			t.Errorf("the same port again: %v", err)
		}
		if err := h.RemovePort(t.Context(), dockerNet, endpoint); err != nil {
			t.Fatal(err)
		}
		if err := h.AddPort(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		b.narrow(1400)
		synctest.Wait()
		wantText(t, "kernel", b.text(), fmt.Sprintf(bridge, 1350), fmt.Sprintf(cable, 1350))
	})
}

// TestLostPeer: a peer that the store has lost together with this host's own
// lease is kept for a while, one that has gone alone is not.
func TestLostPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		a := start(t, store, newBoard("192.0.2.1"), t.TempDir())
		b := start(t, store, newBoard("192.0.2.2"), t.TempDir())
		n, m := a.network(t), b.network(t)
		synctest.Wait()
		route := "route " + m.Subnet.String()
		wantText(t, "kernel", a.board.text(), route)
		b.stop()
		store.edit(func() { clear(store.leases) })
		synctest.Wait()
		wantText(t, "kernel", a.board.text(), route)
		if _, back := store.held()[n.Subnet]; !back {
			t.Error("the host's own lease is not claimed back")
		}
		time.Sleep(2 * time.Minute) // the fake clock's
		synctest.Wait()
		lacksText(t, "kernel", a.board.text(), route)
	})
}
