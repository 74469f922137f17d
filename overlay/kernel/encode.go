package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Requests to the kernel, as rtnetlink(7) and the uapi headers lay them out.

// family is the address family of an address, by netlink's number.
func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// linkHeader starts a link message (struct ifinfomsg). up sets the device up;
// otherwise its flags stay.
func (e *encoder) linkHeader(index int, up bool) {
	e.raw(unix.AF_UNSPEC, 0, 0, 0)
	e.u32(uint32(index))
	if up {
		e.u32(unix.IFF_UP)
		e.u32(unix.IFF_UP)
	} else {
		e.u32(0)
		e.u32(0)
	}
}

// createLink makes a bridge or vxlan device, down. devIndex is the underlay's.
func createLink(l Link, devIndex int) message {
	var e encoder
	e.linkHeader(0, false)
	e.text(unix.IFLA_IFNAME, l.Name)
	if !l.MAC.IsZero() {
		e.attr(unix.IFLA_ADDRESS, l.MAC[:]...)
	}
	e.nest(unix.IFLA_LINKINFO, func() {
		if l.VXLAN.VNI == 0 {
			e.text(unix.IFLA_INFO_KIND, "bridge")
			return
		}
		e.text(unix.IFLA_INFO_KIND, "vxlan")
		e.nest(unix.IFLA_INFO_DATA, func() { e.vxlan(l.VXLAN, devIndex) })
	})
	return message{unix.RTM_NEWLINK, unix.NLM_F_CREATE | unix.NLM_F_EXCL, e.b}
}

func (e *encoder) vxlan(v VXLAN, devIndex int) {
	e.attr32(unix.IFLA_VXLAN_ID, uint32(v.VNI))
	if devIndex != 0 {
		e.attr32(unix.IFLA_VXLAN_LINK, uint32(devIndex))
	}
	switch {
	case v.Local.Is4():
		e.addr(unix.IFLA_VXLAN_LOCAL, v.Local)
	case v.Local.Is6():
		e.addr(unix.IFLA_VXLAN_LOCAL6, v.Local)
	}
	e.attr(unix.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, uint16(v.port()))...)
	e.attr(unix.IFLA_VXLAN_LEARNING, flag(v.Learning))
	if v.GBP {
		e.attr(unix.IFLA_VXLAN_GBP)
	}
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// createVeth makes a pair: the host side up and, unless master is 0, on its
// bridge; the peer down, ready to be moved.
func createVeth(v Veth, master int) message {
	var e encoder
	e.linkHeader(0, true)
	e.text(unix.IFLA_IFNAME, v.Name)
	if v.MTU != 0 {
		e.attr32(unix.IFLA_MTU, uint32(v.MTU))
	}
	if master != 0 {
		e.attr32(unix.IFLA_MASTER, uint32(master))
	}
	e.nest(unix.IFLA_LINKINFO, func() {
		e.text(unix.IFLA_INFO_KIND, "veth")
		e.nest(unix.IFLA_INFO_DATA, func() {
			e.nest(vethInfoPeer, func() {
				e.linkHeader(0, false)
				e.text(unix.IFLA_IFNAME, v.Peer)
				if v.MTU != 0 {
					e.attr32(unix.IFLA_MTU, uint32(v.MTU))
				}
				if v.Segments != 0 {
					e.attr32(unix.IFLA_GSO_MAX_SEGS, uint32(v.Segments))
				}
				if !v.MAC.IsZero() {
					e.attr(unix.IFLA_ADDRESS, v.MAC[:]...)
				}
			})
		})
	})
	return message{unix.RTM_NEWLINK, unix.NLM_F_CREATE | unix.NLM_F_EXCL, e.b}
}

// vethInfoPeer is VETH_INFO_PEER of linux/veth.h.
const vethInfoPeer = 1

// setLink changes the named device; fill adds the attributes that change.
func setLink(name string, up bool, fill func(*encoder)) message {
	var e encoder
	e.linkHeader(0, up)
	e.text(unix.IFLA_IFNAME, name)
	if fill != nil {
		fill(&e)
	}
	return message{unix.RTM_SETLINK, 0, e.b}
}

func markLink(name string) message {
	return setLink(name, false, func(e *encoder) { e.attr(unix.IFLA_IFALIAS, []byte(Alias)...) })
}

// setHairpin changes a bridge's port.
func setHairpin(name string, on bool) message {
	var mode byte
	if on {
		mode = 1
	}
	var e encoder
	e.linkHeader(0, true)
	e.text(unix.IFLA_IFNAME, name)
	e.nest(unix.IFLA_LINKINFO, func() {
		e.text(unix.IFLA_INFO_SLAVE_KIND, "bridge")
		e.nest(unix.IFLA_INFO_SLAVE_DATA, func() { e.attr(unix.IFLA_BRPORT_MODE, mode) })
	})
	return message{unix.RTM_NEWLINK, 0, e.b}
}

func setMTU(name string, mtu int) message {
	return setLink(name, false, func(e *encoder) { e.attr32(unix.IFLA_MTU, uint32(mtu)) })
}

func setMAC(name string, mac MAC) message {
	return setLink(name, false, func(e *encoder) { e.attr(unix.IFLA_ADDRESS, mac[:]...) })
}

func deleteLink(name string) message {
	var e encoder
	e.linkHeader(0, false)
	e.text(unix.IFLA_IFNAME, name)
	return message{unix.RTM_DELLINK, 0, e.b}
}

// linkQuery asks for one device by name or by index, or with neither for all,
// without counters.
func linkQuery(name string, index int) message {
	var e encoder
	e.linkHeader(index, false)
	if name != "" {
		e.text(unix.IFLA_IFNAME, name)
	}
	e.attr32(unix.IFLA_EXT_MASK, rtextSkipStats)
	return message{unix.RTM_GETLINK, 0, e.b}
}

// rtextSkipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h.
const rtextSkipStats = 1 << 3

// addrMessage adds or deletes an address (struct ifaddrmsg). Ours need no
// duplicate detection: the cluster's leases make them unique.
func addrMessage(kind, flags uint16, p netip.Prefix, index int) message {
	var e encoder
	e.raw(family(p.Addr()), byte(p.Bits()), 0, unix.RT_SCOPE_UNIVERSE)
	e.u32(uint32(index))
	e.addr(unix.IFA_LOCAL, p.Addr())
	e.addr(unix.IFA_ADDRESS, p.Addr())
	if p.Addr().Is6() {
		e.attr32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
	}
	return message{kind, flags, e.b}
}

// neighMessage adds or deletes a permanent neighbour (struct ndmsg).
func neighMessage(kind, flags uint16, n Neigh, index int) message {
	var e encoder
	e.neighHeader(family(n.IP), index, unix.NUD_PERMANENT, 0)
	e.addr(unix.NDA_DST, n.IP)
	e.attr(unix.NDA_LLADDR, n.MAC[:]...)
	return message{kind, flags, e.b}
}

// fdbMessage adds or deletes a vxlan device's own forwarding entry.
func fdbMessage(kind, flags uint16, f FDB, index int) message {
	var e encoder
	e.neighHeader(unix.AF_BRIDGE, index, unix.NUD_PERMANENT, unix.NTF_SELF)
	e.attr(unix.NDA_LLADDR, f.MAC[:]...)
	e.addr(unix.NDA_DST, f.Dst)
	return message{kind, flags, e.b}
}

func (e *encoder) neighHeader(family byte, index int, state uint16, flags byte) {
	e.raw(family, 0, 0, 0)
	e.u32(uint32(index))
	e.u16(state)
	e.raw(flags, 0)
}

// neighQuery lists the entries of one device: neighbours, or with AF_BRIDGE
// its forwarding entries.
func neighQuery(family byte, index int) message {
	var e encoder
	e.neighHeader(family, 0, 0, 0)
	e.attr32(unix.NDA_IFINDEX, uint32(index))
	return message{unix.RTM_GETNEIGH, 0, e.b}
}

// routeMessage adds, replaces or deletes a route of the main table (struct
// rtmsg).
func routeMessage(kind, flags uint16, r routeInfo) message {
	var e encoder
	e.raw(family(r.dst.Addr()), byte(r.dst.Bits()), 0, r.tos, unix.RT_TABLE_MAIN, r.protocol, r.scope, r.kind)
	e.u32(r.flags)
	e.addr(unix.RTA_DST, r.dst.Addr())
	if r.via.IsValid() {
		e.addr(unix.RTA_GATEWAY, r.via)
	}
	if r.src.IsValid() {
		e.addr(unix.RTA_PREFSRC, r.src)
	}
	if r.index != 0 {
		e.attr32(unix.RTA_OIF, uint32(r.index))
	}
	if r.metric != 0 {
		e.attr32(unix.RTA_PRIORITY, r.metric)
	}
	return message{kind, flags, e.b}
}

// routeQuery lists the main table of one family.
func routeQuery(family byte) message {
	var e encoder
	e.raw(family, 0, 0, 0, unix.RT_TABLE_MAIN, 0, 0, 0)
	e.u32(0)
	return message{unix.RTM_GETROUTE, 0, e.b}
}

// addrQuery lists all addresses.
func addrQuery() message {
	var e encoder
	e.raw(unix.AF_UNSPEC, 0, 0, 0)
	e.u32(0)
	return message{unix.RTM_GETADDR, 0, e.b}
}
