//go:build lab

package udp

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// naiveRole NAME LOCAL MTU SELF PEER... is the plainest encapsulator there
// can be, to compare with: one goroutine a direction, one packet a system
// call, no offload, no checks. It knows one peer.
func naiveRole(args []string) error {
	peers, err := peersOf(args[4:])
	if err != nil {
		return err
	}
	fd, err := unix.Open(kernel.TUNPath, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	req, err := unix.NewIfreq(args[0])
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return err
	}
	local, to := netip.MustParseAddrPort(args[1]), peers[0].Addr
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(sock, &unix.SockaddrInet4{Port: int(local.Port()), Addr: local.Addr().As4()}); err != nil {
		return err
	}
	fmt.Println("ready")
	go func() {
		b := make([]byte, 2048)
		for {
			if n, _, err := unix.Recvfrom(sock, b, 0); err == nil {
				_, _ = unix.Write(fd, b[:n])
			}
		}
	}()
	b := make([]byte, 2048)
	name := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	for {
		n, err := unix.Read(fd, b)
		if err != nil {
			return err
		}
		_ = unix.Sendto(sock, b[:n], 0, name)
	}
}
