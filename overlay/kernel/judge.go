package kernel

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// judge compares notifications with the view and tells which of them shows
// that the kernel is not as the view says; empty for none. touched names the
// links that were changed since the last call: of these only the last
// notification counts, since the ones before show the change half done. So it
// is always with everything but links.
func (v *view) judge(events []event, touched map[string]bool) string {
	reason := ""
	links := map[string]event{}
	entries := map[eventID]event{}
	for _, e := range events {
		switch {
		case e.conf != nil:
			if v.judgeConf(*e.conf) {
				reason = e.String()
			}
			continue
		case e.link == nil:
			if e.addr != nil && v.judgeUnderlay(e) {
				reason = e.String()
			}
			entries[e.id()] = e
			continue
		case touched[e.link.name]:
			links[e.link.name] = e
		case v.judgeLink(e):
			reason = e.String()
		}
		if e.gone {
			delete(v.names, e.link.index)
		} else {
			v.names[e.link.index] = e.link.name
		}
	}
	for _, e := range links {
		if v.judgeLink(e) {
			reason = e.String()
		}
	}
	for _, e := range entries {
		if reason != "" {
			break
		}
		if v.judgeEntry(e) {
			reason = e.String()
		}
	}
	return reason
}

// judgeConf tells whether forwarding was switched by others.
func (v *view) judgeConf(c confInfo) bool {
	was, known := v.sysctls["ipv4/ip_forward"]
	return known && was != strconv.Itoa(c.forwarding)
}

// judgeUnderlay tells whether an address of somebody else's device matters:
// with an IPv4 address the kernel drops routes without a word, and a new one
// may be the host's from now on. Of IPv6 addresses a router tells again and
// again: they matter where a tunnel ends at one that is gone.
func (v *view) judgeUnderlay(e event) bool {
	a := *e.addr
	if v.devs[v.names[a.index]].index == 0 {
		return false
	}
	ends := func(l haveLink) bool { return l.VXLAN.Local == a.prefix.Addr() }
	return a.prefix.Addr().Is4() || e.gone && slices.ContainsFunc(slices.Collect(maps.Values(v.links)), ends)
}

// judgeLink tells whether a link notification belies the view. A container's
// end of a pair comes and goes with the engine's work: that is entered into
// the view and is no reason for doubt.
func (v *view) judgeLink(e event) bool {
	l := *e.link
	now := dev{index: l.index, mtu: l.mtu, up: l.up}
	if e.gone {
		now = dev{}
	}
	if was, ok := v.devs[l.name]; ok && was != now && (!e.gone || was.index == l.index) {
		v.devs[l.name] = now
		return true
	}
	if e.gone {
		return v.judgeGone(l)
	}
	if old := v.names[l.index]; old != "" && old != l.name && v.holds(old) {
		return true // renamed
	}
	if have, ok := v.links[l.name]; ok {
		return v.haveLink(l) != have
	}
	if have, ok := v.veths[l.name]; ok {
		told := v.haveVeth(l)
		return told.index != have.index || told.MTU != have.MTU || told.Master != have.Master ||
			told.up != have.up || told.marked != have.marked
	}
	if host, ok := v.veths[v.names[l.other]]; ok && l.kind == "veth" && !l.away {
		told := host
		told.peer = peerEnd{index: l.index, mtu: l.mtu}
		told.Peer, told.MAC = l.name, l.mac
		if host.peer.index == l.index {
			return told != host
		}
		v.veths[host.Name] = told
		return false
	}
	return l.alias == Alias && ourName(l)
}

// judgeGone tells whether a link that was deleted, or moved out, was one that
// the view holds.
func (v *view) judgeGone(l linkInfo) bool {
	if have, ok := v.links[l.name]; ok {
		return have.index == l.index
	}
	if have, ok := v.veths[l.name]; ok {
		return have.index == l.index
	}
	if host, ok := v.veths[v.names[l.other]]; ok && host.peer.index == l.index {
		host.peer, host.Peer, host.MAC = peerEnd{}, "", MAC{}
		v.veths[host.Name] = host
		return false
	}
	return v.blocked["link "+l.name] != "" || v.blocked["veth "+l.name] != ""
}

// holds tells whether the view has a device of that name.
func (v *view) holds(name string) bool {
	_, link := v.links[name]
	_, veth := v.veths[name]
	_, dev := v.devs[name]
	return link || veth || dev
}

// ourName tells whether a marked device is one that a State could name.
func ourName(l linkInfo) bool {
	prefixes := map[string][]string{
		"bridge": {BridgePrefix}, "vxlan": {VXLANPrefix, VXLAN6Prefix}, "tun": {TUNPrefix}, "veth": {VethPrefix},
	}[l.kind]
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(l.name, p) })
}

// judgeEntry tells whether a notification of anything else belies the view.
func (v *view) judgeEntry(e event) bool {
	switch {
	case e.addr != nil:
		addr, ours := v.ourAddr(*e.addr)
		_, known := v.addrs[addr.key()]
		return ours && known == e.gone
	case e.route != nil:
		return v.judgeRoute(*e.route, e.gone)
	}
	link := v.names[e.neigh.index]
	if v.links[link].VXLAN.VNI == 0 {
		return false
	}
	if e.neigh.family == unix.AF_BRIDGE {
		told, ok := e.neigh.fdb(link)
		have, known := v.fdb[told.key()]
		return belies(have, known, told, ok && !e.gone)
	}
	told, ok := e.neigh.neigh(link)
	have, known := v.neighs[told.key()]
	return belies(have, known, told, ok && !e.gone)
}

// belies compares what is known of an entry with what the kernel tells.
func belies[T comparable](have T, known bool, told T, exists bool) bool {
	return known != exists || known && have != told
}

func (v *view) judgeRoute(r routeInfo, gone bool) bool {
	have, known := v.routes[r.dst]
	if !r.ours() {
		// Somebody's route may have taken the place of ours, or given it free.
		return !gone && known || gone && v.blocked[label(Route{Dst: r.dst})] != ""
	}
	told, ok := r.route(v.names)
	if gone {
		return known && ok && have == told
	}
	return !ok || !known || have != told
}
