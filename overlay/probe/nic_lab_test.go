//go:build lab

package probe_test

import (
	"encoding/binary"
	"errors"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// openNIC makes a TAP device that leaves checksums to its reader.
func openNIC(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return 0, err
	}
	return fd, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM)
}

const (
	vnetHeader   = 10      // bytes of struct virtio_net_hdr
	vnetNeedsSum = 1       // VIRTIO_NET_HDR_F_NEEDS_CSUM
	outer        = 14 + 20 // where the transport header of a packet as such begins
)

// nic carries frames from one host to the other. A blind one computes the
// checksum of a packet as such, and not that of one inside.
func nic(from, to *os.File, blind *atomic.Bool) error {
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		if err != nil {
			return err
		}
		frame := b[vnetHeader:n]
		start := int(binary.NativeEndian.Uint16(b[6:]))
		if b[0]&vnetNeedsSum != 0 && (start == outer || !blind.Load()) {
			at := start + int(binary.NativeEndian.Uint16(b[8:]))
			binary.BigEndian.PutUint16(frame[at:], sum(frame[start:]))
		}
		clear(b[:vnetHeader])
		if _, err := to.Write(b[:n]); err != nil && !errors.Is(err, unix.EIO) { // EIO: the device is down
			return err
		}
	}
}

// sum is the checksum of b, which holds that of the pseudo header already.
func sum(b []byte) uint16 {
	var s uint32
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	s = s&0xffff + s>>16
	s = s&0xffff + s>>16
	if s == 0xffff {
		return 0xffff // UDP's 0 means that there is none
	}
	return ^uint16(s)
}
