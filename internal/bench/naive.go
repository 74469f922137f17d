package main

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// naiveRole DEVICE LOCAL REMOTE is the plainest encapsulator there can be, a
// stand-in for stock flanneld's: what is routed to a TUN device goes to one
// peer, one packet a system call, a thread a direction, no offload, no checks,
// and no runtime: flanneld's is in C.
func naiveRole(args []string) error {
	plain()
	local, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return err
	}
	remote, err := netip.ParseAddrPort(args[2])
	if err != nil {
		return err
	}
	tun, err := openTUN(args[0])
	if err != nil {
		return err
	}
	sock, err := socket(unix.SOCK_DGRAM)
	if err != nil {
		return err
	}
	if err := unix.Bind(sock, &unix.SockaddrInet4{Port: int(local.Port()), Addr: local.Addr().As4()}); err != nil {
		return fmt.Errorf("bind to %s: %w", local, err)
	}
	if err := unix.Connect(sock, &unix.SockaddrInet4{Port: int(remote.Port()), Addr: remote.Addr().As4()}); err != nil {
		return fmt.Errorf("connect to %s: %w", remote, err)
	}
	fmt.Println(ready)
	ended := make(chan error)
	thread(func() { ended <- shovel(tun, sock) })
	thread(func() { ended <- shovel(sock, tun) })
	return <-ended
}

// openTUN attaches to a device.
func openTUN(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("name %q: %w", name, err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return 0, fmt.Errorf("attach to device %s: %w", name, err)
	}
	return fd, nil
}

// shovel moves packets one by one. One that cannot be written is lost, as on
// any wire.
func shovel(from, to int) error {
	buf := make([]byte, 1<<16)
	for {
		n, err := read(from, buf)
		if errors.Is(err, unix.ECONNREFUSED) { // the peer has not begun
			continue
		}
		if err != nil {
			return fmt.Errorf("read a packet: %w", err)
		}
		_, _ = write(to, buf[:n])
	}
}
