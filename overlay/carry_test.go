package overlay_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/udp"
)

// carrier is the udp backend with tunnels that lead nowhere.
type carrier struct {
	udp.Backend
	mu     sync.Mutex
	refuse error // of Open
	opened []*tunnel
}

func (c *carrier) Open(self overlay.Self, _ *slog.Logger) (overlay.Tunnel, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse != nil {
		return nil, c.refuse
	}
	t := &tunnel{self: self, broken: make(chan error, 1)}
	c.opened = append(c.opened, t)
	return t, nil
}

func (c *carrier) set(refuse error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = refuse
}

// tunnels are those opened so far.
func (c *carrier) tunnels() []*tunnel {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.opened)
}

// Segments is what no other part would say.
func (*carrier) Segments(mtu int) int { return mtu % 100 }

type tunnel struct {
	self   overlay.Self
	broken chan error
	mu     sync.Mutex
	peers  []netip.Prefix
	closed bool
}

func (t *tunnel) Follow(leases []overlay.Lease) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peers = t.peers[:0]
	for _, l := range leases {
		t.peers = append(t.peers, l.Subnet)
	}
}

func (t *tunnel) Run(ctx context.Context) error {
	select {
	case err := <-t.broken:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (*tunnel) Traffic() report.Traffic {
	return report.Traffic{SentPackets: 3, Drops: map[string]uint64{"no-route": 2}}
}

func (t *tunnel) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return nil
}

func (t *tunnel) state() (peers []netip.Prefix, closed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.peers), t.closed
}

// startCarrier is start with the udp backend.
func startCarrier(t *testing.T, store overlay.Store, b *board) (*host, *carrier) {
	t.Helper()
	c := &carrier{}
	return startWith(t, store, b, t.TempDir(), `{"Type":"udp"}`, map[string]overlay.Backend{udp.Type: c}), c
}

// only is the one tunnel that is open, the last of count.
func (c *carrier) only(t *testing.T, count int) *tunnel {
	t.Helper()
	synctest.Wait()
	all := c.tunnels()
	if len(all) != count {
		t.Fatalf("%d tunnels were opened, want %d", len(all), count)
	}
	for i, one := range all {
		if _, closed := one.state(); closed != (i < count-1) {
			t.Fatalf("tunnel %d of %d: closed %t", i+1, count, closed)
		}
	}
	return all[count-1]
}

func TestCarry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		board := newBoard("192.0.2.1")
		a, tunnels := startCarrier(t, store, board)
		b, _ := startCarrier(t, store, newBoard("192.0.2.2"))
		n := a.network(t)
		first := tunnels.only(t, 1)
		if first.self.Subnet != n.Subnet || n.MTU != 1472 {
			t.Errorf("opened for %s, network %+v", first.self.Subnet, n)
		}
		m := b.network(t)
		synctest.Wait()
		if peers, _ := first.state(); !slices.Equal(peers, []netip.Prefix{m.Subnet}) {
			t.Errorf("peers %v, want %s", peers, m.Subnet)
		}
		if err := a.AddPort(t.Context(), port(n)); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Join(t.Context(), dockerNet, endpoint); err != nil {
			t.Fatal(err)
		}
		tunnels.only(t, 1)
		board.mu.Lock()
		if veths := board.state.Veths; len(veths) != 1 || veths[0].Segments != 72 {
			t.Errorf("cables %+v, want one for 72 segments of 1472 bytes", veths)
		}
		board.mu.Unlock()

		first.broken <- errors.New("the device has gone")
		time.Sleep(time.Second) // the fake clock's
		second := tunnels.only(t, 2)
		if peers, _ := second.state(); !slices.Equal(peers, []netip.Prefix{m.Subnet}) {
			t.Errorf("peers %v, want %s", peers, m.Subnet)
		}
		wantText(t, "log", a.log.String(), "the device has gone")

		board.move("192.0.2.9")
		if third := tunnels.only(t, 3); third.self.Underlay.Addr != netip.MustParseAddr("192.0.2.9") {
			t.Errorf("opened for %s", third.self.Underlay.Addr)
		}
		a.remove(t, n)
		synctest.Wait()
		if _, closed := tunnels.tunnels()[2].state(); !closed {
			t.Error("the tunnel of a network that was removed is open")
		}
	})
}

// TestCarryRefused fails the creation of a network whose tunnel cannot be
// opened, and succeeds as soon as it can.
func TestCarryRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, tunnels := startCarrier(t, newMemory(), newBoard("192.0.2.1"))
		tunnels.set(errors.New("bind UDP 192.0.2.1:8285: address already in use"))
		n, err := h.Acquire(t.Context(), overlay.Request{})
		if err != nil {
			t.Fatal(err)
		}
		docker := overlay.Bridge{ID: dockerNet, Subnet: n.Subnet}
		for range 3 {
			err := h.Attach(t.Context(), docker)
			if err == nil {
				t.Fatal("attached")
			}
			wantText(t, "error", err.Error(), "192.0.2.1:8285")
			synctest.Wait()
			lacksText(t, "kernel", h.board.text(), "flannel0")
		}
		tunnels.set(nil)
		before := time.Now()
		if err := h.Attach(t.Context(), docker); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(before); took > time.Second {
			t.Errorf("took %s", took)
		}
		tunnels.only(t, 1)
	})
}
