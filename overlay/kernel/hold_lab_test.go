//go:build lab

package kernel

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHold: a port that is held is nobody else's, in its own family alone.
func TestHold(t *testing.T) {
	h := newHost(t)
	h.sh("ip link set lo up")
	listen := func(network, at string) error {
		return h.k.ns.run(func() error {
			l, err := net.Listen(network, at)
			if err == nil {
				err = l.Close()
			}
			return err
		})
	}
	for _, c := range []struct{ own, other, any, theirs, loopback string }{
		{"tcp4", "tcp6", "0.0.0.0:8080", "[::]:8080", "127.0.0.1:8080"},
		{"tcp6", "tcp4", "[::]:8080", "0.0.0.0:8080", "[::1]:8080"},
	} {
		if err := listen(c.own, c.any); err != nil {
			t.Fatalf("control: %v", err)
		}
		held, port, err := h.k.Hold(TCP, netip.MustParseAddrPort(c.any))
		if err != nil || port != 8080 {
			t.Fatalf("hold %s: port %d, %v", c.any, port, err)
		}
		for _, at := range []string{c.any, c.loopback} {
			if err := listen(c.own, at); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("%s is held; listen at %s: %v", c.any, at, err)
			}
		}
		if err := listen(c.other, c.theirs); err != nil {
			t.Errorf("%s is held; listen at %s: %v", c.any, c.theirs, err)
		}
		if _, _, err := h.k.Hold(TCP, netip.MustParseAddrPort(c.loopback)); !errors.Is(err, ErrTaken) {
			t.Errorf("%s held too: %v", c.loopback, err)
		}
		err = h.k.ns.run(func() error {
			conn, err := net.DialTimeout(c.own, c.loopback, 2*time.Second)
			if err == nil {
				conn.Close()
			}
			return err
		})
		if refused := errors.Is(err, unix.ECONNREFUSED); err == nil || refused != (c.own == "tcp6") {
			t.Errorf("dial %s: %v", c.loopback, err)
		}
		if err := held.Close(); err != nil {
			t.Error(err)
		}
		if err := listen(c.own, c.any); err != nil {
			t.Errorf("let go: %v", err)
		}
	}
	held, port, err := h.k.Hold(UDP, netip.MustParseAddrPort("[::]:0"))
	if err != nil || port == 0 {
		t.Fatalf("any port: %d, %v", port, err)
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := h.k.Hold(UDP, netip.MustParseAddrPort("[fd00:77::1]:53")); err == nil {
		t.Error("a port of an address that the host has not is held")
	}
}
