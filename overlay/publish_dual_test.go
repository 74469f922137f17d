package overlay_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// dualGateway is a host with a dual-stack network that is its containers' way
// out, and a port with both addresses.
func dualGateway(t *testing.T, b *board, more ...func(*overlay.Bridge)) (*host, overlay.Port) {
	t.Helper()
	h := start(t, newMemory(), b, t.TempDir(), dualStack(t))
	if _, err := h.Acquire(t.Context(), overlay.Request{}); err != nil {
		t.Fatal(err)
	}
	n, err := h.Acquire(t.Context(), overlay.Request{IPv6: true})
	if err != nil {
		t.Fatal(err)
	}
	bridge := overlay.Bridge{ID: dockerNet, Subnet: n.Subnet, IPv6Subnet: n.IPv6Subnet, Gateway: true}
	for _, set := range more {
		set(&bridge)
	}
	if err := h.Attach(t.Context(), bridge); err != nil {
		t.Fatal(err)
	}
	p := port(n)
	p.IPv6 = n.IPv6Subnet.Addr().Next().Next()
	if err := h.AddPort(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return h, p
}

func TestDualGatewayPlan(t *testing.T) {
	for _, c := range []struct {
		name       string
		set        func(*overlay.Bridge)
		has, lacks []string
	}{
		{"masquerades", func(*overlay.Bridge) {}, []string{"inside dst 10.5.0.0/16", "inside dst fd00:5::/48", "masquerade fd00:5:0:", "beyond fl-", "publish fl-", "tcp [::]:8080"}, nil},
		{"keeps addresses", func(b *overlay.Bridge) { b.NoMasq = true }, []string{"egress fl-", "masquerade fd00:5:0:", "back to fl-", "tcp [::]:8080"}, []string{"beyond fl-"}},
		{"internal", func(b *overlay.Bridge) { b.Internal = true }, nil, []string{"egress", "publish", "masquerade"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, p := dualGateway(t, newDualBoard("192.0.2.1", "fd00:c0::1"), c.set)
				joined, err := h.Join(t.Context(), dockerNet, endpoint)
				if err != nil {
					t.Fatal(err)
				}
				if want := len(c.has) > 0; (joined.GatewayIPv6 == p.IPv6.Prev()) != want || joined.GatewayIPv6.IsValid() != want {
					t.Errorf("IPv6 gateway %s", joined.GatewayIPv6)
				}
				if err := h.Publish(t.Context(), dockerNet, endpoint, []overlay.Publish{{Proto: kernel.TCP, Port: 80, First: 8080, Last: 8080}}); err != nil {
					t.Fatal(err)
				}
				wantText(t, "state", h.board.text(), c.has...)
				for _, part := range c.lacks {
					if strings.Contains(h.board.text(), part) {
						t.Errorf("state has %q:\n%s", part, h.board.text())
					}
				}
			})
		})
	}
}

// TestPublishDual: a port is published in both families at once or not at all.
func TestPublishDual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDualBoard("192.0.2.1", "fd00:c0::1")
		b.taken["9000/tcp over IPv6"] = false // a program of the host
		h, p := dualGateway(t, b)
		own, any4, any6 := netip.MustParseAddr("fd00:c0::1"), netip.IPv4Unspecified(), netip.IPv6Unspecified()
		asked := []overlay.Publish{
			{Proto: kernel.TCP, Port: 80, First: 8080, Last: 8080},
			{Proto: kernel.TCP, Port: 80, First: 9000, Last: 9001},
			{Proto: kernel.UDP, Port: 53},
			{Proto: kernel.UDP, Port: 53, Host: own, First: 53, Last: 53},
			{Proto: kernel.TCP, Port: 81, Host: any6, First: 81, Last: 81},
			{Proto: kernel.TCP, Port: 81, Host: any4, First: 81, Last: 81},
		}
		four, six := p.Addr, p.IPv6
		want := fmt.Sprintf("0.0.0.0:8080/tcp>%s:80 [::]:8080/tcp>[%s]:80 0.0.0.0:9001/tcp>%s:80 [::]:9001/tcp>[%s]:80 "+
			"0.0.0.0:49152/udp>%s:53 [::]:49152/udp>[%s]:53 [fd00:c0::1]:53/udp>[%s]:53 [::]:81/tcp>[%s]:81 0.0.0.0:81/tcp>%s:81",
			four, six, four, six, four, six, six, six, four)
		const count = 9
		for range 2 {
			if err := h.Publish(t.Context(), dockerNet, endpoint, asked); err != nil {
				t.Fatal(err)
			}
			if got := h.published(); got != want || b.held() != count {
				t.Errorf("%d held, published\n%s, want\n%s", b.held(), got, want)
			}
		}
		other := p
		other.Endpoint, other.Addr, other.IPv6, other.MAC[5] = "0a"+endpoint[2:], p.Addr.Next(), p.IPv6.Next(), 9
		bare := other
		bare.Endpoint, bare.Addr, bare.IPv6, bare.MAC[5] = "0b"+endpoint[2:], other.Addr.Next(), netip.Addr{}, 10
		for _, p := range []overlay.Port{other, bare} {
			if err := h.AddPort(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			endpoint string
			asked    overlay.Publish
			says     []string
		}{
			{other.Endpoint, overlay.Publish{Proto: kernel.TCP, Port: 80, Host: own, First: 8080, Last: 8080}, []string{"[::]:8080/tcp", six.String()}},
			{other.Endpoint, overlay.Publish{Proto: kernel.TCP, Port: 80, First: 9000, Last: 9000}, []string{"[::]:9000/tcp", "a program of this host", "ss -lnp"}},
			{bare.Endpoint, overlay.Publish{Proto: kernel.TCP, Port: 80, Host: own, First: 82, Last: 82}, []string{"host address fd00:c0::1", "no IPv6 address"}},
		} {
			err := h.Publish(t.Context(), dockerNet, c.endpoint, []overlay.Publish{{Proto: kernel.TCP, Port: 70, First: 7000, Last: 7000}, c.asked})
			if err == nil {
				t.Errorf("%+v is published", c.asked)
				continue
			}
			wantText(t, "error", err.Error(), c.says...)
		}
		if got := h.published(); got != want || b.held() != count {
			t.Errorf("after refusals: %d held, published %s", b.held(), got)
		}
		// A container without an IPv6 address publishes in IPv4 alone.
		if err := h.Publish(t.Context(), dockerNet, bare.Endpoint, []overlay.Publish{{Proto: kernel.TCP, Port: 70, First: 7000, Last: 7000}}); err != nil {
			t.Fatal(err)
		}
		want += fmt.Sprintf(" 0.0.0.0:7000/tcp>%s:70", bare.Addr)
		h.stop()
		b.mu.Lock()
		clear(b.taken)
		b.mu.Unlock()
		h = start(t, newMemory(), b, h.dir, dualStack(t))
		synctest.Wait()
		if got := h.published(); got != want || b.held() != count+1 {
			t.Errorf("after a restart: %d held, published %s", b.held(), got)
		}
		if err := h.RemovePort(t.Context(), dockerNet, endpoint); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := h.published(); b.held() != 1 || strings.Contains(got, "[") {
			t.Errorf("after the container: %d held, published %s", b.held(), got)
		}
	})
}
