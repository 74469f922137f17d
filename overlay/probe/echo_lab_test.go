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
	path := func() (int, error) {
		var mtu int
		var err error
		inside(true, func(g *probe.Pinger) error {
			mtu, err = probe.PathMTU(1500, func(size int) (bool, error) {
				return g.Fits(t.Context(), there, size, 2, 100*time.Millisecond)
			})
			return nil
		})
		return mtu, err
	}
	if mtu, err := path(); mtu != 1500 || err != nil {
		t.Errorf("path MTU %d, %v", mtu, err)
	}
	p.b.sh("nft 'table ip t { chain in { type filter hook input priority 0; ip length > 1399 drop; }; }'")
	if mtu, err := path(); mtu != 1399 || err != nil {
		t.Errorf("path MTU %d, %v; want 1399", mtu, err)
	}
	p.a.sh("ip link set tap0 mtu 1200")
	if mtu, err := path(); mtu != 1200 || err != nil {
		t.Errorf("path MTU %d, %v; want the interface's, 1200", mtu, err)
	}
}
