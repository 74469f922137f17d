package kernel

import (
	"fmt"

	"github.com/google/nftables"
)

// admitBatch is the number of peers in one transaction: a netlink attribute holds
// 64 KiB, and an element takes some 30 bytes.
const admitBatch = 1000

func doorTable() *nftables.Table {
	return &nftables.Table{Name: DoorTable, Family: nftables.TableFamilyINet}
}

// sets are the door's, by family. Their numbers need to differ within one
// transaction only.
func (d Door) sets(table *nftables.Table) (sets []*nftables.Set) {
	for i, l := range lineages() {
		sets = append(sets, &nftables.Set{Table: table, ID: uint32(i + 1), Name: d.set(l), KeyType: l.key})
	}
	return sets
}

// setOf is the set that an address belongs to.
func (a Admit) setOf(sets []*nftables.Set) *nftables.Set {
	if a.From.Is6() {
		return sets[1]
	}
	return sets[0]
}

// writeDoor makes a door's chain anew, or deletes it with its sets. With the last
// door the table goes.
func (k *Kernel) writeDoor(d Door, remove bool) error {
	conn, err := k.tables.begin()
	if err != nil {
		return err
	}
	table := conn.AddTable(doorTable())
	if k.view.doors[d] != "" {
		conn.DelChain(&nftables.Chain{Table: table, Name: d.chain()})
	}
	for _, set := range d.sets(table) {
		if err := conn.AddSet(set, nil); err != nil {
			return err
		}
		if remove { // safe, since it is there now
			conn.DelSet(set)
		}
	}
	if !remove {
		addChain(conn, table, d.rules())
	} else if len(k.view.doors) == 1 {
		conn.DelTable(table)
	}
	return k.tables.commit()
}

// writeAdmits admits, or no longer, all of them or nobody.
func (k *Kernel) writeAdmits(admits []Admit, remove bool) error {
	conn, err := k.tables.begin()
	if err != nil {
		return err
	}
	table := doorTable()
	if !remove {
		conn.AddTable(table)
	}
	elements := map[string][]nftables.SetElement{}
	var sets []*nftables.Set
	for _, a := range admits {
		set := a.setOf(a.Door.sets(table))
		if elements[set.Name] == nil {
			set.ID = uint32(len(sets) + 1)
			sets = append(sets, set)
		}
		elements[set.Name] = append(elements[set.Name], nftables.SetElement{Key: a.From.AsSlice()})
	}
	for _, set := range sets {
		if remove {
			err = conn.SetDeleteElements(set, elements[set.Name])
		} else if err = conn.AddSet(set, nil); err == nil {
			err = conn.SetAddElements(set, elements[set.Name])
		}
		if err != nil {
			return fmt.Errorf("write set %s: %w", set.Name, err)
		}
	}
	return k.tables.commit()
}

// admit carries out ops that are all about whom a door admits, and do the same.
func (r *runner) admit(ops []op) {
	admits := make([]Admit, 0, len(ops))
	for _, o := range ops {
		admits = append(admits, o.on.(Admit))
	}
	err := r.k.writeAdmits(admits, ops[0].verb == opDelete)
	if err == nil {
		for _, o := range ops {
			r.settle(o, nil)
		}
		return
	}
	// They fail together, and so they are told. A door that would keep them out
	// stays open.
	for _, a := range admits {
		r.broken[a.link()] = true
	}
	r.fail(ops[0], fmt.Errorf("%s %s and %d more: %w", ops[0].verb, ops[0].on, len(ops)-1, err), doubtWall)
}
