package kernel

import (
	"maps"
	"net/netip"
	"slices"
)

// view is what one network namespace holds of ours, indexed: the have side of
// a diff, and what notifications are compared with.
type view struct {
	sysctls map[string]string
	links   map[string]haveLink
	veths   map[string]haveVeth
	addrs   map[Addr]Addr
	neighs  map[neighKey]Neigh
	fdb     map[fdbKey]FDB
	routes  map[netip.Prefix]Route
	wall

	// strays are routes with our protocol number that no Route can describe.
	strays []stray
	// blocked tells who is in the way of a wanted object, by its label.
	blocked map[string]string
	// devs are the devices of others that our links and routes hang on.
	devs map[string]dev
	// names holds every device's name by its index.
	names map[int]string
	// same holds the slices that the maps above are known to equal, so that
	// a diff against the very same slice costs nothing.
	same State
}

// wall is what nftables holds of ours.
type wall struct {
	table   string // lines of our table
	doors   map[Door]string
	admits  map[Admit]Admit
	accepts map[string]acceptance // by family
	wallErr error                 // why the others could not be read
}

func newWall() wall {
	return wall{doors: map[Door]string{}, admits: map[Admit]Admit{}, accepts: map[string]acceptance{}}
}

type neighKey struct {
	link string
	ip   netip.Addr
}

type fdbKey struct {
	link string
	mac  MAC
}

func (a Addr) key() Addr          { return a }
func (n Neigh) key() neighKey     { return neighKey{n.Link, n.IP} }
func (f FDB) key() fdbKey         { return fdbKey{f.Link, f.MAC} }
func (r Route) key() netip.Prefix { return r.Dst }

// haveLink is a bridge, vxlan or TUN device as it is.
type haveLink struct {
	Link
	index  int
	up     bool
	marked bool // carries Alias
}

// haveVeth is the host side of a pair as it is, and its peer if that is here.
type haveVeth struct {
	Veth           // Peer and MAC are empty while the peer is elsewhere
	index  int     // of Name
	up     bool    // Name
	marked bool    // Name carries Alias
	peer   peerEnd // zero while it is in another namespace
}

type peerEnd struct{ index, mtu int }

// dev is a device of somebody else's; index 0 means that there is none.
type dev struct {
	index, mtu int
	up         bool
}

// acceptance is how one family's filter table stands.
type acceptance struct {
	home   string // chain the rules belong to; empty if none
	good   bool   // both rules stand in home, once and reachable
	ours   int    // our rules in any chain
	legacy string // what mends an xtables table that drops and lacks them; empty if none does
}

// stray is a route with our protocol number that must go.
type stray struct{ route routeInfo }

func (s stray) kind() string   { return "route" }
func (s stray) link() string   { return "" }
func (s stray) name() string   { return s.route.dst.String() + " stray" }
func (s stray) String() string { return s.route.String() }

func newView() *view {
	return &view{
		sysctls: map[string]string{}, links: map[string]haveLink{}, veths: map[string]haveVeth{},
		addrs: map[Addr]Addr{}, neighs: map[neighKey]Neigh{}, fdb: map[fdbKey]FDB{},
		routes: map[netip.Prefix]Route{}, wall: newWall(),
		blocked: map[string]string{}, devs: map[string]dev{}, names: map[int]string{},
	}
}

// state is the view as a State, without what our table accepts: that is
// known as text only. Sysctls are those that were asked for.
func (v *view) state() State {
	var s State
	for key, value := range v.sysctls {
		s.Sysctls = append(s.Sysctls, Sysctl{key, value})
	}
	for _, l := range v.links {
		s.Links = append(s.Links, l.Link)
	}
	for _, p := range v.veths {
		s.Veths = append(s.Veths, p.Veth)
	}
	s.Addrs = slices.Collect(maps.Values(v.addrs))
	s.Neighs = slices.Collect(maps.Values(v.neighs))
	s.FDB = slices.Collect(maps.Values(v.fdb))
	s.Routes = slices.Collect(maps.Values(v.routes))
	for d, text := range v.doors {
		if text == d.text() {
			s.Doors = append(s.Doors, d)
		}
	}
	s.Admits = slices.Collect(maps.Values(v.admits))
	return s
}

// done records that an op has been carried out.
func (v *view) done(o op) {
	gone := o.verb == opDelete
	switch on := o.on.(type) {
	case Sysctl:
		v.sysctls[on.Key] = on.Value
	case Link:
		v.doneLink(o.verb, on)
	case Veth:
		v.doneVeth(o.verb, on)
	case Addr:
		put(v.addrs, on.key(), on, gone)
	case Neigh:
		put(v.neighs, on.key(), on, gone)
	case FDB:
		put(v.fdb, on.key(), on, gone)
	case Route:
		put(v.routes, on.key(), on, gone)
	case stray:
		v.strays = slices.DeleteFunc(v.strays, func(s stray) bool { return s == on })
	case table:
		v.table = on.text
		if gone {
			v.table = ""
		}
	case Admit:
		put(v.admits, on, on, gone)
	case Door:
		v.doneDoor(on, gone)
	case accept:
		a := v.accepts[on.family]
		a.good, a.ours = !gone, 2
		if gone {
			a.ours = 0
		}
		v.accepts[on.family] = a
	}
}

// doneDoor records a change of a door; with it goes whom it admits.
func (v *view) doneDoor(d Door, gone bool) {
	put(v.doors, d, d.text(), gone)
	if gone {
		maps.DeleteFunc(v.admits, func(_ Admit, a Admit) bool { return a.Door == d })
	}
}

func put[K comparable, T any](m map[K]T, key K, value T, gone bool) {
	if gone {
		delete(m, key)
	} else {
		m[key] = value
	}
}

// doneLink records a change of a link and what the kernel drops with it.
func (v *view) doneLink(verb string, l Link) {
	old := v.links[l.Name]
	switch verb {
	case opUp:
		old.up = true
		v.links[l.Name] = old
	case opSet:
		if old.MAC != l.MAC {
			v.dropNeighs(l.Name)
		}
		old.MAC, old.MTU, old.marked = l.MAC, l.MTU, true
		if l.TxSum != Kept {
			old.TxSum = l.TxSum
		}
		v.links[l.Name] = old
	case opAdd, opRemake:
		v.dropLink(l.Name)
		v.links[l.Name] = haveLink{Link: l, marked: true}
	case opDelete:
		v.dropLink(l.Name)
	}
}

func (v *view) doneVeth(verb string, want Veth) {
	want.Create = false
	switch verb {
	case opAdd, opRemake:
		v.dropSysctls(want.Name)
		v.veths[want.Name] = haveVeth{Veth: want, up: true, marked: true, peer: peerEnd{mtu: want.MTU}}
	case opSet:
		have := v.veths[want.Name]
		if have.peer.index == 0 {
			want.Peer, want.MAC = "", MAC{}
		} else {
			have.peer.mtu = want.MTU
		}
		have.Veth, have.up, have.marked = want, true, true
		v.veths[want.Name] = have
	case opDelete:
		delete(v.veths, want.Name)
		v.dropSysctls(want.Name)
	}
}

// dropLink forgets a link and all that hangs on it, as the kernel does.
func (v *view) dropLink(name string) {
	delete(v.links, name)
	v.dropSysctls(name)
	v.dropNeighs(name)
	maps.DeleteFunc(v.addrs, func(_ Addr, a Addr) bool { return a.Link == name })
	maps.DeleteFunc(v.fdb, func(_ fdbKey, f FDB) bool { return f.Link == name })
	maps.DeleteFunc(v.routes, func(_ netip.Prefix, r Route) bool { return r.Link == name })
	for port, veth := range v.veths {
		if veth.Master == name {
			veth.Master = ""
			v.veths[port] = veth
		}
	}
	v.same = State{}
}

// dropNeighs forgets a link's neighbours, which the kernel flushes, permanent
// ones too, when its MAC changes.
func (v *view) dropNeighs(link string) {
	maps.DeleteFunc(v.neighs, func(_ neighKey, n Neigh) bool { return n.Link == link })
	v.same.Neighs = nil
}

func (v *view) dropSysctls(link string) {
	maps.DeleteFunc(v.sysctls, func(key, _ string) bool { return Sysctl{Key: key}.link() == link })
}
