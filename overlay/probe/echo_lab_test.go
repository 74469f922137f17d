//go:build lab

package probe_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/overlay/probe"
)

// TestEcho asks the other host, one that is not there, and for the path's MTU.
func TestEcho(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	there, nowhere := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.9")
	inside := func(whole bool, use func(*probe.Pinger) error) {
		t.Helper()
		p.a.do(func() error { return probe.Serve(t.Context(), whole, use) })
	}
	inside(true, func(g *probe.Pinger) error {
		if rtt, err := g.Echo(t.Context(), there, 100, time.Second); err != nil || rtt <= 0 {
			t.Errorf("%s, %v", rtt, err)
		}
		if _, err := g.Echo(t.Context(), nowhere, 100, 100*time.Millisecond); !errors.Is(err, probe.ErrSilent) {
			t.Errorf("nobody: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := g.Echo(ctx, nowhere, 100, time.Minute); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		return nil
	})
	path := func(to netip.Addr) (int, error) {
		var mtu int
		var err error
		inside(true, func(g *probe.Pinger) error {
			mtu, err = probe.PathMTU(probe.LeastMTU(to), 1500, func(size int) (bool, error) {
				return g.Fits(t.Context(), to, size, 4, 200*time.Millisecond) // the wire is this process
			})
			return nil
		})
		return mtu, err
	}
	least := func(to netip.Addr, want int) {
		t.Helper()
		if mtu, err := path(to); mtu != want || err != nil {
			t.Errorf("path MTU to %s: %d, %v; want %d", to, mtu, err, want)
		}
	}
	six := netip.MustParseAddr("fd00::2")
	p.a.sh("ip addr add fd00::1/64 dev tap0 nodad")
	p.b.sh("ip addr add fd00::2/64 dev tap0 nodad")
	least(there, 1500)
	least(six, 1500)
	p.b.sh("nft 'table ip t { chain in { type filter hook input priority 0; ip length > 1399 drop; }; }'")
	p.b.sh("nft 'table ip6 t { chain in { type filter hook input priority 0; ip6 length > 1360 drop; }; }'") // without the header of 40
	least(there, 1399)
	least(six, 1400)
	p.a.sh("ip link set tap0 mtu 1300")
	least(there, 1300)
	least(six, 1300)
	p.b.sh("ip addr del fd00::2/64 dev tap0")
	least(six, 0)
}
