package kernel

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ErrTaken says that another program of the host has the port.
var ErrTaken = errors.New("a program of this host uses it")

// MarshalText writes the protocol's name.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the protocol's name.
func (p *Protocol) UnmarshalText(text []byte) error {
	for _, known := range []Protocol{TCP, UDP, SCTP} {
		if string(text) == known.String() {
			*p = known
			return nil
		}
	}
	return fmt.Errorf("protocol %q is none of tcp, udp and sctp", text)
}

// Hold takes a port of this host, so that no other program can, until what it
// returns is closed; port 0 takes any free one. Nothing is ever answered there.
// A kernel without SCTP has no program that could take one of its ports.
func (k *Kernel) Hold(p Protocol, host netip.AddrPort) (held io.Closer, port uint16, err error) {
	fd := -1
	err = k.ns.run(func() (err error) {
		fd, port, err = hold(p, host)
		return err
	})
	if p == SCTP && errors.Is(err, unix.EPROTONOSUPPORT) && host.Port() != 0 {
		return holder(-1), host.Port(), nil
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		err = ErrTaken
	case errors.Is(err, unix.EADDRNOTAVAIL):
		err = fmt.Errorf("%s is not an address of this host", host.Addr())
	}
	return holder(fd), port, err
}

// hold opens a socket that takes the port and drops all that comes to it.
// Listening keeps others from sharing a TCP port; without SO_REUSEADDR what a
// program left behind would stand in the way for a minute.
func hold(p Protocol, host netip.AddrPort) (fd int, port uint16, err error) {
	kind, family := unix.SOCK_STREAM, unix.AF_INET
	if p == UDP {
		kind = unix.SOCK_DGRAM
	}
	var name unix.Sockaddr
	if host.Addr().Is6() {
		family, name = unix.AF_INET6, &unix.SockaddrInet6{Port: int(host.Port()), Addr: host.Addr().As16()}
	} else {
		name = &unix.SockaddrInet4{Port: int(host.Port()), Addr: host.Addr().As4()}
	}
	if fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, int(p)); err != nil {
		return -1, 0, fmt.Errorf("open a %s socket: %w", p, err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
			fd = -1
		}
	}()
	if p != UDP {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return fd, 0, fmt.Errorf("set SO_REUSEADDR: %w", err)
		}
	}
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fd, 0, fmt.Errorf("set IPV6_V6ONLY: %w", err)
		}
	}
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing}); err != nil {
		return fd, 0, fmt.Errorf("attach a filter: %w", err)
	}
	if err := unix.Bind(fd, name); err != nil {
		return fd, 0, fmt.Errorf("bind %s: %w", host, err)
	}
	if err := keep(fd, p, family); err != nil {
		return fd, 0, fmt.Errorf("keep %s: %w", host, err)
	}
	port, err = boundPort(fd)
	return fd, port, err
}

// keep has a bound socket share its port with nobody. One of TCP over IPv6 does
// not listen, so that the host's ::1, from which no packet can be led to a
// container, refuses at once and programs go on to 127.0.0.1; taking back
// SO_REUSEADDR keeps others from listening all the same.
func keep(fd int, p Protocol, family int) error {
	switch {
	case p == UDP:
		return nil
	case p == TCP && family == unix.AF_INET6:
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
	}
	return unix.Listen(fd, 1)
}

func boundPort(fd int) (uint16, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("read the name of a socket: %w", err)
	}
	switch bound := name.(type) {
	case *unix.SockaddrInet4:
		return uint16(bound.Port), nil
	case *unix.SockaddrInet6:
		return uint16(bound.Port), nil
	}
	return 0, fmt.Errorf("read the name of a socket: %T is not IP's", name)
}

// holder is the socket that holds a port; -1 where none is needed.
type holder int

func (h holder) Close() error {
	if h < 0 {
		return nil
	}
	return unix.Close(int(h))
}
