package udp

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// tun is a TUN device whose packets come and go behind virtio headers. Its
// descriptor never blocks.
type tun struct {
	fd       int
	tso, uso bool // super-packets of TCP, and of UDP
}

// errNoDevice is also what is left of a device that was deleted.
var errNoDevice = errors.New("there is no such TUN device")

// openTUN attaches to the device.
func openTUN(name string) (*tun, error) {
	fd, err := unix.Open(kernel.TUNPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", kernel.TUNPath, err)
	}
	t := &tun{fd: fd}
	if err := t.attach(name); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *tun) attach(name string) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("name %q: %w", name, err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(t.fd, unix.TUNSETIFF, req); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("device %s is in use by another process, perhaps a stock flanneld: %w", name, err)
		}
		return fmt.Errorf("attach to device %s: %w", name, err)
	}
	// Where there was no device the kernel has made one, which goes with the
	// descriptor.
	if err := unix.IoctlIfreq(t.fd, unix.TUNGETIFF, req); err != nil {
		return fmt.Errorf("read device %s: %w", name, err)
	}
	if req.Uint16()&unix.IFF_PERSIST == 0 {
		return fmt.Errorf("attach to device %s: %w", name, errNoDevice)
	}
	// An earlier process may have chosen another size.
	if err := unix.IoctlSetPointerInt(t.fd, unix.TUNSETVNETHDRSZ, vnetSize); err != nil {
		return fmt.Errorf("set the virtio header of device %s: %w", name, err)
	}
	t.offload()
	return nil
}

// offload asks for the largest packets that the kernel knows to hand over:
// those of UDP came with Linux 6.2.
func (t *tun) offload() {
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	if unix.IoctlSetInt(t.fd, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil {
		t.tso, t.uso = true, true
		return
	}
	t.tso = unix.IoctlSetInt(t.fd, unix.TUNSETOFFLOAD, tcp) == nil
}

// read fills the buffers with one packet and its virtio header; zero when none
// waits.
func (t *tun) read(iovs []unix.Iovec) (int, error) {
	for {
		n, errno := scatter(unix.SYS_READV, t.fd, iovs)
		switch errno { //nolint:exhaustive // of all errnos
		case 0:
			return n, nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
		default:
			return 0, os.NewSyscallError("readv", errno)
		}
	}
}

// write takes one packet and its virtio header.
func (t *tun) write(iovs []unix.Iovec) error {
	for {
		if _, errno := scatter(unix.SYS_WRITEV, t.fd, iovs); errno != unix.EINTR {
			if errno == 0 {
				return nil
			}
			return errno
		}
	}
}

// scatter is readv or writev. Neither blocks, but a write may carry a
// super-packet all the way to its receiver; telling Go's scheduler of a system
// call that long would cost the thread its turn.
func scatter(call uintptr, fd int, iovs []unix.Iovec) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iovs))), uintptr(len(iovs)))
	return int(n), errno
}

func (t *tun) close() error { return os.NewSyscallError("close "+kernel.TUNPath, unix.Close(t.fd)) }

// iovec describes b, which must not be empty.
func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(b)}
	v.SetLen(len(b))
	return v
}
