package overlay

import (
	"fmt"
	"net/netip"
)

// named is how many hosts one line of the log names.
const named = 8

// hostAt is a host by what makes it one: a subnet, and where it is.
type hostAt struct {
	subnet netip.Prefix
	ip     netip.Addr
}

// tidings logs which other hosts came to a network and which went; the caller
// holds mu.
func (o *Overlay) tidings(n *network, before, after []Lease) {
	self := n.self()
	was, is := others(self, before), others(self, after)
	tell := func(what string, these, those []Lease) {
		known := make(map[hostAt]bool, len(those))
		for _, l := range those {
			known[hostAt{l.Subnet, l.PublicIP}] = true
		}
		count := 0
		var names []string
		for _, l := range these {
			if known[hostAt{l.Subnet, l.PublicIP}] {
				continue
			}
			if count++; count <= named {
				names = append(names, fmt.Sprintf("%s at %s", l.Subnet, l.PublicIP))
			}
		}
		if count > named {
			names = append(names, fmt.Sprintf("and %d more", count-named))
		}
		if count > 0 {
			o.opt.Log.Info(what, "network", title(n.Name), "count", count, "hosts", names)
		}
	}
	tell("hosts came", is, was)
	tell("hosts went", was, is)
}
