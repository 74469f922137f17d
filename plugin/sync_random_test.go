package plugin

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/blueprint"
)

// TestSyncRandom lets people and mishaps do anything in any order on three hosts,
// some of which hear of it late, and holds what has become of one name against
// what they have done: what a person has removed here is not made again, what
// nobody has removed stays, and hosts that hear of everything have what was made.
func TestSyncRandom(t *testing.T) {
	for seed := range uint64(100) {
		d := drama{b: newBoard(), dice: rand.New(rand.NewPCG(seed, 1)), t: t}
		for i := range 3 {
			d.sites = append(d.sites, newSite(t, d.b, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String()))
		}
		d.left, d.either = make([]bool, len(d.sites)), make([]bool, len(d.sites))
		for range 40 {
			d.next()
			d.check()
			if t.Failed() {
				t.Fatalf("seed %d:\n%v", seed, d.told)
			}
		}
	}
}

// drama is three hosts and what has happened.
type drama struct {
	t      *testing.T
	b      *board
	dice   *rand.Rand
	sites  []*site
	left   []bool // a person has removed the network there, and none has made it there since
	either []bool // it may be that, or another network by now
	told   []string
}

func (d *drama) has(i int) bool {
	return slices.ContainsFunc(d.sites[i].dock.networks, func(f found) bool { return f.Name == "blue" })
}

func (d *drama) tell(format string, args ...any) {
	d.told = append(d.told, fmt.Sprintf(format, args...)+"\n")
}

// next is one deed, after which some hosts look.
func (d *drama) next() {
	i := d.dice.IntN(len(d.sites))
	s, blue := d.sites[i], blueprint.Network{Name: "blue"}
	switch d.dice.IntN(6) {
	case 0, 1:
		if !d.has(i) {
			d.tell("%d makes it", i)
			if !d.has(0) && !d.has(1) && !d.has(2) { // it may be another one
				for j := range d.sites {
					d.left[j], d.either[j] = false, d.either[j] || d.left[j]
				}
			}
			s.make(d.t, blue)
			settled(d.t, d.b, s) // its event wakes the host
			d.left[i], d.either[i] = false, false
		}
	case 2:
		if d.has(i) {
			d.tell("%d removes it", i)
			s.dock.drop("blue")
			d.left[i], d.either[i] = true, false
		}
	case 3:
		d.tell("%d starts again", i)
		s.restart(d.t, d.b)
	case 4:
		// All have heard of everything when the store is lost, and that it is.
		settled(d.t, d.b, d.sites...)
		d.tell("the store is wiped")
		d.b.entries = map[string]blueprint.Entry{}
		settled(d.t, d.b, d.sites...)
	case 5:
		settled(d.t, d.b, d.sites...)
		d.tell("removed everywhere")
		if _, err := d.b.Retire(d.t.Context(), ""); err != nil {
			d.t.Fatal(err)
		}
		for i := range d.sites {
			settled(d.t, d.b, d.sites[i])
			if d.has(i) {
				d.t.Errorf("%d has it still", i)
			}
			d.left[i], d.either[i] = false, false
		}
	}
}

func (d *drama) check() {
	before := []bool{d.has(0), d.has(1), d.has(2)}
	var who []*site
	for _, s := range d.sites {
		if d.dice.IntN(3) > 0 {
			who = append(who, s)
		}
	}
	settled(d.t, d.b, who...)
	somewhere := false
	for i := range d.sites {
		if before[i] && !d.has(i) {
			d.t.Errorf("%d has lost it", i)
		}
		if d.left[i] && d.has(i) {
			d.t.Errorf("%d has it again", i)
		}
		somewhere = somewhere || d.has(i)
	}
	if len(who) < len(d.sites) {
		return
	}
	for i := range d.sites {
		if somewhere && !d.left[i] && !d.either[i] && !d.has(i) {
			d.t.Errorf("%d lacks it", i)
		}
	}
}
