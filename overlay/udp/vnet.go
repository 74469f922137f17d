package udp

import "encoding/binary"

// vnetSize is that of struct virtio_net_hdr (linux/virtio_net.h), which stands
// before every packet of a TUN device with IFF_VNET_HDR.
const vnetSize = 10

const (
	vnetNeedsSum = 1    // VIRTIO_NET_HDR_F_NEEDS_CSUM
	vnetTCP4     = 1    // VIRTIO_NET_HDR_GSO_TCPV4
	vnetTCP6     = 4    // VIRTIO_NET_HDR_GSO_TCPV6
	vnetUDP      = 5    // VIRTIO_NET_HDR_GSO_UDP_L4
	vnetECN      = 0x80 // VIRTIO_NET_HDR_GSO_ECN
)

// vnet is a virtio header. Its fields are in the machine's byte order.
type vnet struct {
	needsSum  bool
	gso       byte // 0: one packet
	headers   int  // bytes
	size      int  // bytes of payload a segment
	sumStart  int
	sumOffset int
}

func readVnet(b *[vnetSize]byte) vnet {
	return vnet{
		needsSum:  b[0]&vnetNeedsSum != 0,
		gso:       b[1],
		headers:   int(binary.NativeEndian.Uint16(b[2:])),
		size:      int(binary.NativeEndian.Uint16(b[4:])),
		sumStart:  int(binary.NativeEndian.Uint16(b[6:])),
		sumOffset: int(binary.NativeEndian.Uint16(b[8:])),
	}
}

func (v vnet) write(b *[vnetSize]byte) {
	b[0], b[1] = 0, v.gso
	if v.needsSum {
		b[0] = vnetNeedsSum
	}
	binary.NativeEndian.PutUint16(b[2:], uint16(v.headers))
	binary.NativeEndian.PutUint16(b[4:], uint16(v.size))
	binary.NativeEndian.PutUint16(b[6:], uint16(v.sumStart))
	binary.NativeEndian.PutUint16(b[8:], uint16(v.sumOffset))
}
