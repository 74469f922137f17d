package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// socketBuffer holds what a peer sends while the receiving thread is not
	// scheduled, in bytes as the kernel accounts them.
	socketBuffer = 8 << 20
	maxDatagram  = maxPacket - Overhead
	// maxRun is how many datagrams one message may hold: UDP_MAX_SEGMENTS of
	// every kernel that has UDP_SEGMENT.
	maxRun = 64
)

// socket is the UDP socket on the underlay. Its descriptor never blocks.
type socket struct {
	fd      int
	segment atomic.Bool // UDP_SEGMENT: one message carries a run of datagrams
	gro     bool        // UDP_GRO, the same on receiving
}

func openSocket(local netip.AddrPort) (*socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{fd: fd}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(local.Port()), Addr: local.Addr().As4()}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind UDP %s: %w", local, err), s.close())
	}
	for _, opt := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt[0], socketBuffer) != nil {
			// Without CAP_NET_ADMIN the system's limit applies.
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt[1], socketBuffer); err != nil {
				return nil, errors.Join(fmt.Errorf("size the buffers of UDP %s: %w", local, err), s.close())
			}
		}
	}
	_, err = unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	s.segment.Store(err == nil)
	s.gro = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
	return s, nil
}

func (s *socket) close() error { return os.NewSyscallError("close socket", unix.Close(s.fd)) }

// mmsghdr is struct mmsghdr of sys/socket.h.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// control is the room for one ancillary item with UDP_SEGMENT's or UDP_GRO's
// value.
type control struct {
	hdr  unix.Cmsghdr
	data [8]byte
}

// send hands over messages and returns how many were taken.
func (s *socket) send(msgs []mmsghdr) (int, unix.Errno) {
	return s.messages(unix.SYS_SENDMMSG, msgs)
}

// receive fills messages and returns how many; zero when none waits.
func (s *socket) receive(msgs []mmsghdr) (int, error) {
	for {
		n, errno := s.messages(unix.SYS_RECVMMSG, msgs)
		switch errno { //nolint:exhaustive // of all errnos
		case 0:
			return n, nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
		default:
			return 0, os.NewSyscallError("recvmmsg", errno)
		}
	}
}

// messages is sendmmsg or recvmmsg, which do not block; see scatter.
func (s *socket) messages(call uintptr, msgs []mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(call, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(msgs))), uintptr(len(msgs)), 0, 0, 0)
	return int(n), errno
}

func portBytes(name *unix.RawSockaddrInet4) []byte {
	return (*[2]byte)(unsafe.Pointer(&name.Port))[:]
}
