package kernel

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// readLinks lists all devices.
func (k *Kernel) readLinks() ([]linkInfo, error) {
	found, err := k.route.dump(linkQuery("", 0))
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	links := make([]linkInfo, 0, len(found))
	for _, a := range found {
		if l, ok := parseLink(a.body); ok && a.kind == unix.RTM_NEWLINK {
			links = append(links, l)
		}
	}
	return links, nil
}

// readAddrs lists all addresses.
func (k *Kernel) readAddrs() ([]addrInfo, error) {
	found, err := k.route.dump(addrQuery())
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	addrs := make([]addrInfo, 0, len(found))
	for _, a := range found {
		if info, ok := parseAddr(a.body); ok && a.kind == unix.RTM_NEWADDR {
			addrs = append(addrs, info)
		}
	}
	return addrs, nil
}

// readRoutes lists one family's routes of the main table.
func (k *Kernel) readRoutes(family byte) ([]routeInfo, error) {
	found, err := k.route.dump(routeQuery(family))
	if isGone(err) {
		return nil, nil // a namespace so new that it has no table
	}
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	routes := make([]routeInfo, 0, len(found))
	for _, a := range found {
		if a.kind != unix.RTM_NEWROUTE || len(a.body) == 0 || a.body[0] != family {
			continue
		}
		if r, ok := parseRoute(a.body); ok {
			routes = append(routes, r)
		}
	}
	return routes, nil
}

// readNeighs lists one device's entries of one family.
func (k *Kernel) readNeighs(family byte, index int) ([]neighInfo, error) {
	found, err := k.route.dump(neighQuery(family, index))
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	neighs := make([]neighInfo, 0, len(found))
	for _, a := range found {
		n, ok := parseNeigh(a.body)
		if ok && a.kind == unix.RTM_NEWNEIGH && n.family == family && n.index == index {
			neighs = append(neighs, n)
		}
	}
	return neighs, nil
}

// readNet reads everything but the firewall into a new view. want says which
// names, settings and destinations matter beside what carries our marks.
func (k *Kernel) readNet(want State) (*view, error) {
	v := newView()
	links, err := k.readLinks()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		v.names[l.index] = l.name
	}
	names := wantedNames(want)
	for _, l := range links {
		v.takeLink(l, names)
	}
	for _, l := range links {
		v.takePeer(l)
	}
	for _, l := range want.Links {
		k.takeTxSum(v, l)
	}
	addrs, err := k.readAddrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		v.takeAddr(a)
	}
	for _, l := range v.links {
		if err := k.readEntries(v, l); err != nil {
			return nil, err
		}
	}
	if err := k.takeRoutes(v, want); err != nil {
		return nil, err
	}
	return v, k.takeSysctls(v, want)
}

// wantedNames maps the devices that a state wants to what they are for.
func wantedNames(want State) map[string]object {
	names := make(map[string]object, len(want.Links)+len(want.Veths))
	for _, l := range want.Links {
		names[l.Name] = l
	}
	for _, v := range want.Veths {
		names[v.Name] = v
	}
	return names
}

// takeLink enters a device into the view: as ours, as being in the way of
// ours, or not at all.
func (v *view) takeLink(l linkInfo, wanted map[string]object) {
	marked := l.alias == Alias
	switch want := wanted[l.name].(type) {
	case Link:
		if l.kind == kindOf(want) && (marked || l.kind == "bridge" || l.kind == "vxlan" && l.mac == want.MAC) {
			v.links[l.name] = v.haveLink(l)
			return
		}
		v.blocked[label(want)] = fmt.Sprintf("%s exists and is not ours; delete it ('ip link del %s') or choose another name, VNI or port", describe(l), l.name)
	case Veth:
		if l.kind == "veth" {
			v.veths[l.name] = v.haveVeth(l)
			return
		}
		v.blocked[label(want)] = fmt.Sprintf("%s exists and is not ours; delete it ('ip link del %s')", describe(l), l.name)
	default:
		switch {
		case !marked || !ourName(l):
		case l.kind == "veth":
			v.veths[l.name] = v.haveVeth(l)
		default:
			v.links[l.name] = v.haveLink(l)
		}
	}
}

func kindOf(l Link) string {
	switch {
	case l.TUN:
		return "tun"
	case l.VXLAN.VNI != 0:
		return "vxlan"
	}
	return "bridge"
}

func describe(l linkInfo) string {
	if l.kind == "" {
		return "a device " + l.name
	}
	return fmt.Sprintf("a %s device %s", l.kind, l.name)
}

func (v *view) haveLink(l linkInfo) haveLink {
	have := haveLink{
		Link:  Link{Name: l.name, MAC: l.mac, MTU: l.mtu, VXLAN: l.vxlan, TUN: l.kind == "tun", TxSum: v.links[l.name].TxSum},
		index: l.index, up: l.up, marked: l.alias == Alias,
	}
	have.VXLAN.Dev = v.names[l.vxlanDev]
	return have
}

func (v *view) haveVeth(l linkInfo) haveVeth {
	have := haveVeth{
		Veth:  Veth{Name: l.name, Master: v.names[l.master], MTU: l.mtu, Hairpin: l.hairpin},
		index: l.index, up: l.up, marked: l.alias == Alias,
	}
	if !l.away {
		have.peer.index = l.other
	}
	return have
}

// takePeer completes the pair whose other end l is.
func (v *view) takePeer(l linkInfo) {
	if l.kind != "veth" || l.away {
		return
	}
	have, ok := v.veths[v.names[l.other]]
	if !ok || have.peer.index != l.index {
		return
	}
	have.Peer, have.MAC, have.peer.mtu = l.name, l.mac, l.mtu
	v.veths[have.Name] = have
}

func (v *view) takeAddr(a addrInfo) {
	if addr, ok := v.ourAddr(a); ok {
		v.addrs[addr.key()] = addr
	}
}

// ourAddr is the address as one of ours; false on a device that is not ours,
// and for what the kernel assigns by itself.
func (v *view) ourAddr(a addrInfo) (Addr, bool) {
	link, ok := v.links[v.names[a.index]]
	return Addr{Link: link.Name, Prefix: a.prefix}, ok && !a.automatic()
}

// readEntries reads a vxlan device's neighbours and forwarding entries.
func (k *Kernel) readEntries(v *view, l haveLink) error {
	if l.VXLAN.VNI == 0 {
		return nil
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		found, err := k.readNeighs(family, l.index)
		if isGone(err) {
			return nil // with all entries; the notification is on its way
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", l.Name, err)
		}
		for _, n := range found {
			if entry, ok := n.neigh(l.Name); ok {
				v.neighs[entry.key()] = entry
			}
			if entry, ok := n.fdb(l.Name); ok {
				v.fdb[entry.key()] = entry
			}
		}
	}
	return nil
}

// neigh is the entry as a permanent neighbour on link.
func (n neighInfo) neigh(link string) (Neigh, bool) {
	ok := n.family != unix.AF_BRIDGE && n.state&unix.NUD_PERMANENT != 0
	return Neigh{Link: link, IP: n.ip, MAC: n.mac}, ok
}

// fdb is the entry as a permanent forwarding entry on link. The one without a
// MAC is the device's default destination.
func (n neighInfo) fdb(link string) (FDB, bool) {
	ok := n.family == unix.AF_BRIDGE && n.flags&unix.NTF_SELF != 0 && n.state&unix.NUD_PERMANENT != 0 && !n.mac.IsZero()
	return FDB{Link: link, MAC: n.mac, Dst: n.ip}, ok
}

// takeRoutes reads the main table: ours, and who else holds a destination
// that is wanted.
func (k *Kernel) takeRoutes(v *view, want State) error {
	wanted := make(map[netip.Prefix]Route, len(want.Routes))
	for _, r := range want.Routes {
		wanted[r.Dst] = r
	}
	v.routes, v.strays, v.same.Routes = map[netip.Prefix]Route{}, nil, nil
	maps.DeleteFunc(v.blocked, func(label, _ string) bool { return strings.HasPrefix(label, "route ") })
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		found, err := k.readRoutes(family)
		if err != nil {
			return err
		}
		for _, r := range found {
			v.takeRoute(r, wanted)
		}
	}
	return nil
}

func (v *view) takeRoute(r routeInfo, wanted map[netip.Prefix]Route) {
	if !r.ours() {
		if w, ok := wanted[r.dst]; ok {
			v.blocked[label(w)] = fmt.Sprintf("%s dev %s exists and is not ours", r, v.names[r.index])
		}
		return
	}
	route, ok := r.route(v.names)
	if _, twice := v.routes[r.dst]; !ok || twice {
		v.strays = append(v.strays, stray{r})
		return
	}
	v.routes[r.dst] = route
}
