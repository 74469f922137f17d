package kernel

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Traffic is what a device has carried since it was made.
type Traffic struct {
	ReceivedPackets, SentPackets uint64
	ReceivedBytes, SentBytes     uint64
	ReceiveErrors, SendErrors    uint64
	ReceiveDropped, SendDropped  uint64
}

// Traffic reads the counts of one device.
func (k *Kernel) Traffic(device string) (Traffic, error) {
	var e encoder
	e.linkHeader(0, false)
	e.text(unix.IFLA_IFNAME, device)
	found, err := k.route.query(message{unix.RTM_GETLINK, 0, e.b})
	if err != nil {
		return Traffic{}, fmt.Errorf("read the counts of device %s: %w", device, err)
	}
	for _, a := range found {
		if t, ok := parseTraffic(a.body); ok && a.kind == unix.RTM_NEWLINK {
			return t, nil
		}
	}
	return Traffic{}, fmt.Errorf("read the counts of device %s: the kernel tells none", device)
}

// parseTraffic reads the head of struct rtnl_link_stats64 in a device's message.
func parseTraffic(b []byte) (Traffic, bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return Traffic{}, false
	}
	for kind, v := range attributes(b[unix.SizeofIfInfomsg:]) {
		if kind != unix.IFLA_STATS64 {
			continue
		}
		var n [8]uint64
		if len(v) < 8*len(n) {
			return Traffic{}, false
		}
		for i := range n {
			n[i] = binary.NativeEndian.Uint64(v[8*i:])
		}
		return Traffic{n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]}, true
	}
	return Traffic{}, false
}
