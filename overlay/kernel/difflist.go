package kernel

import (
	"cmp"
	"slices"
)

// lists plans what there is one of a peer; a list that is known to be in place
// is not looked at.
func (p *plan) lists() {
	have, want := p.have, p.want
	if p.relinked || len(p.hushed) > 0 || !inPlace(have.same.Neighs, want.Neighs, len(have.neighs)) {
		compare(p, have.neighs, want.Neighs, stageNeigh)
	}
	if p.relinked || !inPlace(have.same.FDB, want.FDB, len(have.fdb)) {
		compare(p, have.fdb, want.FDB, stageFDB)
	}
	if p.relinked || !inPlace(have.same.Routes, want.Routes, len(have.routes)) {
		compare(p, have.routes, want.Routes, stageRoute)
	}
	for _, s := range have.strays {
		p.del(stageRoute, s)
	}
}

// entry is an object that there may be thousands of.
type entry[K comparable] interface {
	comparable
	object
	key() K
}

// compare plans one kind of entry: add for what is missing, set for what
// differs, delete for the rest. What is lost with its link is added anew.
func compare[K comparable, T entry[K]](p *plan, have map[K]T, want []T, stage int) {
	wanted := make(map[K]T, len(want))
	for _, w := range want {
		if other, twice := wanted[w.key()]; twice {
			p.twice(stage, w, other)
			continue
		}
		wanted[w.key()] = w
		h, ok := have[w.key()]
		ok = ok && !p.bare[h.link()]
		switch {
		case ok && h == w && (stage != stageNeigh || !p.hushed[w.link()]):
		case p.obstacle(stage, w) != "":
			p.add(stage, opRefuse, w, p.obstacle(stage, w))
		case !ok:
			p.add(stage, opAdd, w, "")
		case h == w:
			p.add(stage, opSet, w, "")
		default:
			p.add(stage, opSet, w, "was "+h.String())
		}
	}
	first := len(p.dels[stage])
	for key, h := range have {
		if _, ok := wanted[key]; !ok && !p.bare[h.link()] && !p.doomed[h.link()] {
			p.del(stage, h)
		}
	}
	sortOps(p.dels[stage][first:])
}

// sortOps puts ops of one kind in the order of their texts.
func sortOps(ops []op) {
	slices.SortFunc(ops, func(a, b op) int { return cmp.Compare(a.String(), b.String()) })
}

// obstacle tells who is in an entry's way; empty for nobody. Only routes are
// shared with others.
func (p *plan) obstacle(stage int, o object) string {
	if stage != stageRoute || len(p.have.blocked) == 0 {
		return ""
	}
	return p.have.blocked[label(o)]
}

// twice refuses an object that is wanted in two different ways.
func (p *plan) twice(stage int, o, other object) {
	if o != other {
		p.add(stage, opRefuse, o, "also wanted as "+other.String())
	}
}

// inPlace tells whether want need not be compared with the entries of the
// view, of which there are have: it is the slice they are known to equal, or
// there is nothing on either side.
func inPlace[T any](same, want []T, have int) bool {
	return sameSlice(same, want) && (len(want) > 0 || have == 0)
}

// sameSlice tells whether two slices are one: the same elements in the same
// memory, which their owner promised not to change.
func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
