package probe

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// firstPort and up are out of Linux's range of ephemeral ports, so a client's
// socket is not met by chance.
const firstPort = 61000

// ask sends one pair of datagrams and waits for the answers.
func ask(ctx context.Context, from, to netip.Addr, wait time.Duration) (answers, error) {
	port := uint16(firstPort + rand.IntN(1<<16-firstPort))
	target := netip.AddrPortFrom(to, port)
	summed, err := dial(ctx, from, target, true)
	if err != nil {
		return answers{}, err
	}
	defer summed.Close()
	bare, err := dial(ctx, from, target, false)
	if err != nil {
		return answers{}, err
	}
	defer bare.Close()
	defer context.AfterFunc(ctx, func() {
		_ = summed.SetDeadline(time.Now())
		_ = bare.SetDeadline(time.Now())
	})()
	for _, c := range []net.Conn{summed, bare} {
		if _, err := c.Write([]byte("docker-flannel")); err != nil {
			return answers{}, err
		}
	}
	var got answers
	if got.summed, err = answered(summed, wait); got.summed || err != nil {
		return got, err
	}
	// What was sent at the same time has been answered by now.
	got.bare, err = answered(bare, wait/10)
	return got, errors.Join(err, ctx.Err())
}

// dial makes a socket of its own for one datagram: an answer is told by the
// socket at which it arrives.
func dial(ctx context.Context, from netip.Addr, to netip.AddrPort, checksum bool) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	if !checksum {
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			var err error
			if failed := raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
			}); failed != nil {
				return failed
			}
			return os.NewSyscallError("setsockopt SO_NO_CHECK", err)
		}
	}
	return d.DialContext(ctx, "udp", to.String())
}

// answered waits for ICMP port unreachable. Data would be as good: somebody
// listens at the port after all.
func answered(c net.Conn, wait time.Duration) (bool, error) {
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return false, err
	}
	_, err := c.Read(make([]byte, 1))
	switch {
	case err == nil, errors.Is(err, unix.ECONNREFUSED):
		return true, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	}
	return false, err
}
