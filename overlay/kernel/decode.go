package kernel

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What the kernel tells of its objects, in dumps and in notifications alike.
// A message that is too short or of another family gives false.

// linkInfo is a device, any device.
type linkInfo struct {
	index, mtu int
	name, kind string
	alias      string
	up         bool
	loopback   bool
	mac        MAC
	master     int
	other      int  // index of the veth peer or of the underlay; 0 for none
	away       bool // other is in another namespace
	vxlan      VXLAN
	vxlanDev   int
	hairpin    bool // of a bridge's port
}

func parseLink(b []byte) (linkInfo, bool) {
	if len(b) < unix.SizeofIfInfomsg || b[0] != unix.AF_UNSPEC {
		return linkInfo{}, false
	}
	flags := num32(b[8:])
	l := linkInfo{
		index: int(int32(num32(b[4:]))), up: flags&unix.IFF_UP != 0, loopback: flags&unix.IFF_LOOPBACK != 0,
	}
	var data []byte
	for kind, v := range attributes(b[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(v)
		case unix.IFLA_IFALIAS:
			l.alias = unix.ByteSliceToString(v)
		case unix.IFLA_MTU:
			l.mtu = int(num32(v))
		case unix.IFLA_ADDRESS:
			l.mac = hardware(v)
		case unix.IFLA_MASTER:
			l.master = int(num32(v))
		case unix.IFLA_LINK:
			l.other = int(num32(v))
		case unix.IFLA_LINK_NETNSID:
			l.away = true
		case unix.IFLA_LINKINFO:
			for kind, v := range attributes(v) {
				switch kind {
				case unix.IFLA_INFO_KIND:
					l.kind = unix.ByteSliceToString(v)
				case unix.IFLA_INFO_DATA:
					data = v
				case unix.IFLA_INFO_SLAVE_DATA:
					if mode := inner(v, unix.IFLA_BRPORT_MODE); len(mode) == 1 {
						l.hairpin = mode[0] != 0
					}
				}
			}
		}
	}
	if l.kind == "vxlan" {
		l.vxlan, l.vxlanDev = parseVXLAN(data)
	}
	return l, l.name != ""
}

func parseVXLAN(b []byte) (v VXLAN, dev int) {
	for kind, value := range attributes(b) {
		switch kind {
		case unix.IFLA_VXLAN_ID:
			v.VNI = int(num32(value))
		case unix.IFLA_VXLAN_PORT:
			v.Port = int(num16be(value))
		case unix.IFLA_VXLAN_LOCAL, unix.IFLA_VXLAN_LOCAL6:
			if a := address(value); a.IsValid() && !a.IsUnspecified() {
				v.Local = a
			}
		case unix.IFLA_VXLAN_LINK:
			dev = int(num32(value))
		case unix.IFLA_VXLAN_LEARNING:
			v.Learning = num8(value) != 0
		case unix.IFLA_VXLAN_GBP:
			v.GBP = true
		}
	}
	return v, dev
}

// addrInfo is an address of any device.
type addrInfo struct {
	index  int
	prefix netip.Prefix
	flags  uint32 // IFA_F_...
	scope  byte   // RT_SCOPE_...
}

func parseAddr(b []byte) (addrInfo, bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return addrInfo{}, false
	}
	a := addrInfo{index: int(num32(b[4:])), flags: uint32(b[2]), scope: b[3]}
	var local, remote netip.Addr
	for kind, v := range attributes(b[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_LOCAL:
			local = address(v)
		case unix.IFA_ADDRESS:
			remote = address(v)
		case unix.IFA_FLAGS:
			a.flags = num32(v)
		}
	}
	if !local.IsValid() {
		local = remote
	}
	a.prefix = netip.PrefixFrom(local, int(b[1]))
	return a, a.prefix.IsValid()
}

// automatic tells whether the kernel gave the address by itself.
func (a addrInfo) automatic() bool {
	return a.prefix.Addr().Is6() && (a.scope != unix.RT_SCOPE_UNIVERSE || a.flags&unix.IFA_F_PERMANENT == 0)
}

// neighInfo is a neighbour or, of family AF_BRIDGE, a forwarding entry.
type neighInfo struct {
	family byte
	index  int
	state  uint16 // NUD_...
	flags  byte   // NTF_...
	ip     netip.Addr
	mac    MAC
}

func parseNeigh(b []byte) (neighInfo, bool) {
	if len(b) < unix.SizeofNdMsg {
		return neighInfo{}, false
	}
	n := neighInfo{family: b[0], index: int(num32(b[4:])), state: num16(b[8:]), flags: b[10]}
	for kind, v := range attributes(b[unix.SizeofNdMsg:]) {
		switch kind {
		case unix.NDA_DST:
			n.ip = address(v)
		case unix.NDA_LLADDR:
			n.mac = hardware(v)
		}
	}
	return n, true
}

// routeInfo is a route of the main table.
type routeInfo struct {
	dst      netip.Prefix
	via      netip.Addr
	src      netip.Addr // preferred source
	index    int        // of the device; 0 for several or none
	metric   uint32     // lower wins
	flags    uint32     // RTNH_F_...
	protocol byte
	scope    byte
	kind     byte // RTN_...
	tos      byte
	several  bool // more than one next hop
}

func parseRoute(b []byte) (routeInfo, bool) {
	if len(b) < unix.SizeofRtMsg {
		return routeInfo{}, false
	}
	r := routeInfo{tos: b[3], protocol: b[5], scope: b[6], kind: b[7], flags: num32(b[8:])}
	if r.flags&unix.RTM_F_CLONED != 0 {
		return routeInfo{}, false
	}
	zero := netip.IPv4Unspecified()
	switch b[0] {
	case unix.AF_INET:
	case unix.AF_INET6:
		zero = netip.IPv6Unspecified()
	default:
		return routeInfo{}, false
	}
	r.dst = netip.PrefixFrom(zero, int(b[1]))
	table := uint32(b[4])
	for kind, v := range attributes(b[unix.SizeofRtMsg:]) {
		switch kind {
		case unix.RTA_TABLE:
			table = num32(v)
		case unix.RTA_DST:
			r.dst = netip.PrefixFrom(address(v), int(b[1]))
		case unix.RTA_GATEWAY:
			r.via = address(v)
		case unix.RTA_PREFSRC:
			r.src = address(v)
		case unix.RTA_OIF:
			r.index = int(num32(v))
		case unix.RTA_PRIORITY:
			r.metric = num32(v)
		case unix.RTA_MULTIPATH:
			r.several = true
			r.index = firstHop(v)
		}
	}
	// Only what was configured counts, not what the state of a link adds.
	r.flags &= unix.RTNH_F_ONLINK
	return r, table == unix.RT_TABLE_MAIN && r.dst.IsValid()
}

// confInfo is the IPv4 setting for all devices.
type confInfo struct{ forwarding int }

const (
	// The attributes of linux/netconf.h.
	netconfIndex      = 1
	netconfForwarding = 2
	netconfAll        = -1 // index that stands for all devices
)

// parseConf reads a change of a device's settings (struct netconfmsg); false for
// one device's, and for other settings than forwarding.
func parseConf(b []byte) (c confInfo, ok bool) {
	if len(b) < 4 || b[0] != unix.AF_INET {
		return c, false
	}
	all := false
	for kind, v := range attributes(b[4:]) {
		switch kind {
		case netconfIndex:
			all = int32(num32(v)) == netconfAll
		case netconfForwarding:
			c.forwarding, ok = int(num32(v)), true
		}
	}
	return c, all && ok
}

// firstHop is the device of the first of several next hops (struct rtnexthop).
func firstHop(b []byte) int {
	if len(b) < unix.SizeofRtNexthop {
		return 0
	}
	return int(num32(b[4:]))
}

// String is the route as far as it matters to who owns it.
func (r routeInfo) String() string {
	text := r.dst.String()
	if r.kind != unix.RTN_UNICAST {
		text = fmt.Sprintf("type %d %s", r.kind, text)
	}
	if r.via.IsValid() {
		text += " via " + r.via.String()
	}
	if r.several {
		text += " via several"
	}
	if r.metric != 0 {
		text += fmt.Sprintf(" metric %d", r.metric)
	}
	return "route " + text + " proto " + protocolName(r.protocol)
}

// protocolName is the name that iproute2 shows for a route's owner.
func protocolName(p byte) string {
	if p == RouteProtocol {
		return "docker-flannel"
	}
	return netlink.RouteProtocol(p).String()
}
