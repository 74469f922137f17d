//go:build lab

package e2e

import (
	"context"
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// A NIC with the fault, between a host and the wire: it computes the checksum of
// a packet that was left to it, and of one inside VXLAN does not.

// blind puts such a NIC before a host.
func blind(t *testing.T, h *netlab.Host) {
	t.Helper()
	wire := cluster.lab.Wire()
	near, far := tap(t, wire, "nicnear"), tap(t, wire, "nicfar")
	carry := func(from, to *os.File, blind bool) {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			carryFrames(from, to, blind)
		}()
		t.Cleanup(func() {
			from.Close()
			<-ended
		})
	}
	carry(near, far, true)
	carry(far, near, false)
	sh(t, wire, `ip link add nicbr type bridge
		ip link set nicnear master nicbr up; ip link set nicfar master br0 up; ip link set nicbr up
		ip link set `+h.Name()+` master nicbr`)
	t.Cleanup(func() { sighted(t, h) })
}

// sighted takes the NIC away.
func sighted(t *testing.T, h *netlab.Host) {
	t.Helper()
	if _, err := cluster.lab.Wire().Exec(context.Background(), "sh", "-c", "ip link set "+h.Name()+" master br0; ip link del nicbr 2>/dev/null; true"); err != nil {
		t.Error(err)
	}
}

// tap makes a TAP device that leaves checksums to its reader.
func tap(t *testing.T, wire *netlab.Host, name string) *os.File {
	t.Helper()
	var fd int
	err := wire.Do(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return err
		}
		return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM)
	})
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), name)
}

// carryFrames carries frames, each behind a struct virtio_net_hdr, until from is
// closed.
func carryFrames(from, to *os.File, blind bool) {
	const (
		header   = 10
		needsSum = 1
		outer    = 14 + 20 // where the transport header of a packet as such begins
	)
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		frame := b[header:n]
		start := int(binary.NativeEndian.Uint16(b[6:]))
		if b[0]&needsSum != 0 && (start == outer || !blind) {
			at := start + int(binary.NativeEndian.Uint16(b[8:]))
			binary.BigEndian.PutUint16(frame[at:], onesSum(frame[start:]))
		}
		clear(b[:header])
		if _, err := to.Write(b[:n]); err != nil {
			continue // the device is down, or gone
		}
	}
}

// onesSum is the checksum of b, which holds that of the pseudo header already.
func onesSum(b []byte) uint16 {
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
