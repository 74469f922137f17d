package main

import (
	"fmt"
	"io"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"
)

// threads is more than run at once in a role: none that comes back from a
// system call is to wait for another's place in the Go runtime.
const threads = 16

// thread runs f on a thread of its own, for system calls that block.
func thread(f func()) {
	go func() {
		runtime.LockOSThread()
		f()
	}()
}

// socket opens a blocking socket.
func socket(kind int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open a socket: %w", err)
	}
	return fd, nil
}

// connect opens a socket to the server at an address.
func connect(kind int, addr netip.Addr) (int, error) {
	fd, err := socket(kind)
	if err != nil {
		return 0, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: addr.As4()}); err != nil {
		return 0, fmt.Errorf("connect to %s port %d: %w", addr, port, err)
	}
	return fd, nil
}

// connectAs opens a TCP connection of a kind to the server.
func connectAs(kind byte, addr netip.Addr) (int, error) {
	fd, err := connect(unix.SOCK_STREAM, addr)
	if err != nil {
		return 0, err
	}
	if _, err := unix.Write(fd, []byte{kind}); err != nil {
		return 0, fmt.Errorf("greet %s: %w", addr, err)
	}
	return fd, nil
}

func noDelay(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }

// fdConn is a blocking descriptor as a reader and writer.
type fdConn int

func (c fdConn) Read(b []byte) (int, error) {
	n, err := unix.Read(int(c), b)
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return max(n, 0), err
}

func (c fdConn) Write(b []byte) (int, error) {
	n, err := unix.Write(int(c), b)
	return max(n, 0), err
}
