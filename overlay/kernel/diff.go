package kernel

import (
	"fmt"
	"slices"
)

// The order of additions and changes; deletions come after all of them, in
// reverse. Our table and the doors stand before the links they guard, a peer is
// admitted before anything leads to it, and FORWARD is opened last, so that nothing passes unguarded on the way. A link's own settings are
// written while it is down.
const (
	stageTable = iota
	stageAdmit
	stageDoor
	stageSysctl
	stageLink
	stageLinkSysctl
	stageUp
	stageAddr
	stageVeth
	stageVethSysctl
	stageNeigh
	stageFDB
	stageRoute
	stageAccept
	stages
)

// plan collects the ops of one diff.
type plan struct {
	have *view
	want State
	adds [stages][]op
	dels [stages][]op

	bare   map[string]bool // links and host sides made anew: nothing of theirs exists
	hushed map[string]bool // links whose neighbours the kernel will flush
	doomed map[string]bool // links and doors to be deleted, with all that hangs on them
	absent map[string]bool // wanted host sides that neither exist nor are made

	relinked bool // some link is made anew or deleted
}

// diff gives the ops, in order, that turn have into want. It is pure, and
// costs nothing for the slices of want that have is known to equal.
func diff(have *view, want State) []op {
	p := plan{
		have: have, want: want,
		bare: map[string]bool{}, hushed: map[string]bool{}, doomed: map[string]bool{}, absent: map[string]bool{},
	}
	p.firewall()
	p.doors()
	p.links()
	p.veths()
	p.sysctls()
	p.addrs()
	p.lists()
	var ops []op
	for stage := range p.adds {
		ops = append(ops, p.adds[stage]...)
	}
	for stage := range slices.Backward(p.dels[:]) {
		ops = append(ops, p.dels[stage]...)
	}
	return ops
}

func (p *plan) add(stage int, verb string, on object, why string) {
	p.adds[stage] = append(p.adds[stage], op{verb, on, why})
}

func (p *plan) del(stage int, on object) {
	p.dels[stage] = append(p.dels[stage], op{opDelete, on, ""})
}

// firewall plans our own table and the rules in dockerd's chain.
func (p *plan) firewall() {
	want := tableOf(p.want)
	switch {
	case want.text == p.have.table:
	case want.text == "":
		p.del(stageTable, table{text: p.have.table})
	case p.have.table == "":
		p.add(stageTable, opAdd, want, "")
	default:
		p.add(stageTable, opSet, want, "")
	}
	guarded := len(p.want.Guards) > 0
	for _, family := range families {
		a := p.have.accepts[family]
		switch {
		case guarded && a.legacy != "":
			p.add(stageAccept, opRefuse, accept{family}, a.legacy)
		case guarded && a.home != "" && !a.good:
			p.add(stageAccept, opSet, accept{family}, "")
		case !guarded && a.ours > 0:
			p.del(stageAccept, accept{family})
		}
	}
}

// links plans bridges, vxlan and TUN devices.
func (p *plan) links() {
	wanted := map[string]Link{}
	for _, l := range p.want.Links {
		if other, twice := wanted[l.Name]; twice {
			p.twice(stageLink, l, other)
			continue
		}
		wanted[l.Name] = l
		p.link(l)
	}
	for _, name := range sortedKeys(p.have.links) {
		if l := p.have.links[name]; l.marked && wanted[name].Name == "" {
			p.doomed[name], p.relinked = true, true
			p.retire(l.Link)
		}
	}
}

// retire deletes a link: before the others are made if one of them takes over
// its network identifier, which the kernel gives away only once.
func (p *plan) retire(l Link) {
	taken := l.VXLAN.VNI != 0 && slices.ContainsFunc(p.adds[stageLink], func(o op) bool {
		next, ok := o.on.(Link)
		return ok && next.VXLAN.VNI == l.VXLAN.VNI
	})
	if taken {
		p.adds[stageLink] = slices.Insert(p.adds[stageLink], 0, op{opDelete, l, ""})
		return
	}
	p.del(stageLink, l)
}

func (p *plan) link(want Link) {
	if who := p.have.blocked[label(want)]; who != "" {
		p.add(stageLink, opRefuse, want, who)
		return
	}
	have, ok := p.have.links[want.Name]
	switch {
	case !ok:
		p.bare[want.Name], p.relinked = true, true
		p.add(stageLink, opAdd, want, "")
	case !have.VXLAN.same(want.VXLAN):
		p.bare[want.Name], p.relinked = true, true
		p.add(stageLink, opRemake, want, "was "+have.VXLAN.String())
	default:
		if want.MTU == 0 {
			want.MTU = have.MTU
		}
		if want.MAC.IsZero() {
			want.MAC = have.MAC
		}
		if want.MAC != have.MAC {
			p.hushed[want.Name] = true
		}
		if why := have.differs(want); why != "" {
			p.add(stageLink, opSet, want, why)
		}
	}
	if p.bare[want.Name] || !have.up {
		p.add(stageUp, opUp, want, "")
	}
}

// differs tells what is to be changed in place; empty for nothing.
func (l haveLink) differs(want Link) string {
	var why list
	if l.MAC != want.MAC {
		why.add("was mac %s", l.MAC)
	}
	if l.MTU != want.MTU {
		why.add("was mtu %d", l.MTU)
	}
	if want.TxSum != Kept && l.TxSum != want.TxSum {
		why.add("was not txsum %s", want.TxSum)
	}
	if !l.marked {
		why.add("was unmarked")
	}
	return why.text
}

// veths plans containers' cables.
func (p *plan) veths() {
	wanted := map[string]Veth{}
	for _, v := range p.want.Veths {
		if other, twice := wanted[v.Name]; twice {
			p.twice(stageVeth, v, other)
			continue
		}
		wanted[v.Name] = v
		p.veth(v)
	}
	for _, name := range sortedKeys(p.have.veths) {
		if v := p.have.veths[name]; v.marked && wanted[name].Name == "" {
			p.del(stageVeth, v.Veth)
		}
	}
}

func (p *plan) veth(want Veth) {
	if who := p.have.blocked[label(want)]; who != "" {
		p.add(stageVeth, opRefuse, want, who)
		return
	}
	have, ok := p.have.veths[want.Name]
	switch {
	case !ok && !want.Create:
		p.absent[want.Name] = true
	case !ok:
		p.bare[want.Name] = true
		p.add(stageVeth, opAdd, want, "")
	case want.Create && have.Peer != want.Peer:
		p.bare[want.Name] = true
		why := "the other end is elsewhere"
		if have.Peer != "" {
			why = "the other end is " + have.Peer
		}
		p.add(stageVeth, opRemake, want, why)
	default:
		if want.MTU == 0 {
			want.MTU = have.MTU
		}
		if want.MAC.IsZero() {
			want.MAC = have.MAC
		}
		if why := have.differs(want); why != "" {
			p.add(stageVeth, opSet, want, why)
		}
	}
}

// differs tells what is to be changed in place; empty for nothing. A peer in
// another namespace is the container's own.
func (v haveVeth) differs(want Veth) string {
	var why list
	if v.MTU != want.MTU {
		why.add("was mtu %d", v.MTU)
	}
	if v.Master != want.Master {
		why.add("was on bridge %q", v.Master)
	}
	if v.Hairpin != want.Hairpin {
		why.add("was hairpin %t", v.Hairpin)
	}
	if !v.up {
		why.add("was down")
	}
	if !v.marked {
		why.add("was unmarked")
	}
	if v.peer.index != 0 && v.peer.mtu != want.MTU {
		why.add("other end was mtu %d", v.peer.mtu)
	}
	if v.peer.index != 0 && v.MAC != want.MAC {
		why.add("other end was mac %s", v.MAC)
	}
	return why.text
}

// sysctls plans settings; one that is no longer wanted keeps its value.
func (p *plan) sysctls() {
	links := map[string]bool{}
	for _, l := range p.want.Links {
		links[l.Name] = true
	}
	hosts := map[string]bool{}
	for _, v := range p.want.Veths {
		hosts[v.Name] = true
	}
	for _, s := range p.want.Sysctls {
		link := s.link()
		was, known := p.have.sysctls[s.Key]
		if known && was == s.Value && !p.bare[link] || p.absent[link] {
			continue
		}
		why := ""
		if known && !p.bare[link] {
			why = "was " + was
		}
		switch {
		case links[link]:
			p.add(stageLinkSysctl, opSet, s, why)
		case hosts[link]:
			p.add(stageVethSysctl, opSet, s, why)
		default:
			p.add(stageSysctl, opSet, s, why)
		}
	}
}

// addrs plans addresses. An address that is replaced by another of the same
// subnet goes first: the kernel makes the later one of a subnet depend on the
// earlier, and would delete both.
func (p *plan) addrs() {
	compare(p, p.have.addrs, p.want.Addrs, stageAddr)
	adds := p.adds[stageAddr]
	p.dels[stageAddr] = slices.DeleteFunc(p.dels[stageAddr], func(o op) bool {
		old := o.on.(Addr)
		early := slices.ContainsFunc(adds, func(a op) bool {
			next := a.on.(Addr)
			return next.Link == old.Link && next.Prefix.Masked() == old.Prefix.Masked()
		})
		if early {
			p.adds[stageAddr] = slices.Insert(p.adds[stageAddr], 0, o)
		}
		return early
	})
}

func sortedKeys[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// list joins reasons with commas.
type list struct{ text string }

func (l *list) add(format string, args ...any) {
	if l.text != "" {
		l.text += ", "
	}
	l.text += fmt.Sprintf(format, args...)
}
