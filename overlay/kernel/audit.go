package kernel

import (
	"strings"
)

// Difference is an object of the kernel that is not as a State wants it.
type Difference struct {
	Object string // as in Failure.Object
	Change string // what Apply would do about it
}

// Audit reads everything anew and tells what Apply would change to make want
// true. It changes nothing.
func (k *Kernel) Audit(want State) ([]Difference, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fresh, err := k.readNet(want)
	if err != nil {
		return nil, err
	}
	if fresh.wall = k.readWall(); fresh.wallErr != nil {
		return nil, fresh.wallErr
	}
	return differences(diff(fresh, want)), nil
}

// differences are ops in words; those of our table, which is rewritten as a
// whole, without its lines.
func differences(ops []op) []Difference {
	var out []Difference
	for _, o := range ops {
		change := o.String()
		if _, whole := o.on.(table); whole {
			change = o.verb + " nft table inet " + Table
		}
		out = append(out, Difference{Object: label(o.on), Change: change})
	}
	return out
}

// Dump is what the namespace holds of ours, and the devices that it may hang
// on, as text: a picture for a person.
func (k *Kernel) Dump() (string, error) {
	v, err := k.readNet(State{})
	if err != nil {
		return "", err
	}
	if v.wall = k.readWall(); v.wallErr != nil {
		return "", v.wallErr
	}
	var b strings.Builder
	b.WriteString(v.state().String())
	for _, s := range v.strays {
		b.WriteString("stray " + s.String() + "\n")
	}
	b.WriteString(v.table)
	for _, family := range families {
		a := v.accepts[family]
		home := a.home
		if home == "" {
			home = "none"
		}
		b.WriteString("docker-user " + family + ": chain " + home)
		if a.good {
			b.WriteString(", our rules stand in it")
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}
