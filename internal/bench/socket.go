package main

import (
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"
)

// threads is more than run at once in an end of the traffic: each keeps its place
// in the Go runtime while it waits in a system call.
const threads = 16

// quiet is the environment of processes that are plain: without it the runtime
// signals threads that have been in a system call for 10 ms.
const quiet = "GODEBUG=asyncpreemptoff=1"

// plain makes this process behave as one without a runtime: hardly anything runs
// beside the threads that it starts, while in an ordinary Go program one that waits in
// a system call has others woken ten thousands of times a second. Nothing is collected,
// since that would wait for all of them, and none is interrupted (see quiet).
func plain() {
	runtime.GOMAXPROCS(threads)
	debug.SetGCPercent(-1)
}

// read waits for bytes, without telling the runtime.
func read(fd int, b []byte) (int, error) { return transfer(unix.SYS_READ, fd, b) }

// write is the like of read.
func write(fd int, b []byte) (int, error) { return transfer(unix.SYS_WRITE, fd, b) }

func transfer(call uintptr, fd int, b []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno { //nolint:exhaustive // of all errnos
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

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
	n, err := read(int(c), b)
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return n, err
}

func (c fdConn) Write(b []byte) (int, error) { return write(int(c), b) }
