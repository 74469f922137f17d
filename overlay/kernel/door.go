package kernel

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Doors stand in a table of their own: it is never written as a whole, so that
// neither their thousands of peers nor their counts go when another rule changes.

// Door is where one network's tunnels end on this host: a UDP port and, where
// several tunnels share one, the VXLAN network identifier (RFC 7348). What comes
// there from an address that no Admit names is dropped and counted. Packets of
// other identifiers are none of its business.
type Door struct {
	Port int
	VNI  int // 0 where every packet to the port is the network's
}

// Admit lets a host's packets, those From its address, in by a door of the same
// State.
type Admit struct {
	Door Door
	From netip.Addr
}

// doorPrefix starts the names of a door's chain and sets.
const doorPrefix = "door_"

// String is the door as in "door udp 8472 vni 1".
func (d Door) String() string { return "door " + d.name() }

// String is the entry as in "admit udp 8472 vni 1 from 10.0.0.8".
func (a Admit) String() string { return fmt.Sprintf("admit %s from %s", a.Door.name(), a.From) }

func (d Door) kind() string { return "door" }
func (d Door) link() string { return d.name() } // what its Admits hang on
func (d Door) name() string {
	text := fmt.Sprintf("%s %d", UDP, d.Port)
	if d.VNI != 0 {
		text += fmt.Sprintf(" vni %d", d.VNI)
	}
	return text
}

func (a Admit) kind() string { return "admit" }
func (a Admit) link() string { return a.Door.name() }
func (a Admit) name() string { return a.Door.name() + " " + a.From.String() }
func (a Admit) key() Admit   { return a }

// chain names the door's chain: door_8472_1, or door_8285 without identifier.
func (d Door) chain() string {
	name := doorPrefix + strconv.Itoa(d.Port)
	if d.VNI != 0 {
		name += "_" + strconv.Itoa(d.VNI)
	}
	return name
}

// doorOf is the door that a chain of that name belongs to.
func doorOf(chain string) (Door, bool) {
	var d Door
	rest, ok := strings.CutPrefix(chain, doorPrefix)
	if !ok {
		return d, false
	}
	port, vni, _ := strings.Cut(rest, "_")
	d.Port, _ = strconv.Atoi(port)
	d.VNI, _ = strconv.Atoi(vni)
	return d, d.chain() == chain
}

// lineage is one family of addresses.
type lineage struct {
	name   string // nft's
	number byte
	key    nftables.SetDatatype
	source uint32 // of the source address in the IP header, in bytes
}

// lineages are both families: a door has a set and a rule of each, so that one
// without peers is shut.
func lineages() [2]lineage {
	return [2]lineage{
		{"ip", unix.NFPROTO_IPV4, nftables.TypeIPAddr, 12},
		{"ip6", unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 8},
	}
}

// set names the set of a family's peers.
func (d Door) set(l lineage) string { return d.chain() + "_" + l.name }

// rules are what shuts the door.
func (d Door) rules() baseChain {
	c := baseChain{name: d.chain(), kind: nftables.ChainTypeFilter, hook: unix.NF_INET_LOCAL_IN, priority: chainPriority}
	for _, l := range lineages() {
		match := []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{l.number}},
		}
		match = append(match, port(UDP, uint16(d.Port))...)
		if d.VNI != 0 {
			match = append(match, ofVNI(d.VNI)...)
		}
		match = append(match,
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: l.source, Len: l.key.Bytes},
			&expr.Lookup{SourceRegister: 1, SetName: d.set(l), Invert: true})
		c.rules = append(c.rules, rulef(parts(match, dropped()), "foreign %s %s", l.name, d.name()))
	}
	return c
}

// ofVNI matches the identifier in the VXLAN header, past the UDP one's eight bytes.
func ofVNI(vni int) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 8 + 4, Len: 3},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(vni >> 16), byte(vni >> 8), byte(vni)}},
	}
}

// text is how the door stands when it is as it must be.
func (d Door) text() string {
	c := d.rules()
	lines := []string{c.String()}
	for _, r := range c.rules {
		lines = append(lines, r.String())
	}
	return strings.Join(lines, "\n")
}

// doors plans doors and whom they admit. A door's set stands before the door
// shuts, and goes with it.
func (p *plan) doors() {
	wanted := map[Door]bool{}
	for _, d := range p.want.Doors {
		if wanted[d] {
			continue
		}
		wanted[d] = true
		switch p.have.doors[d] {
		case d.text():
		case "":
			p.add(stageDoor, opAdd, d, "")
		default:
			p.add(stageDoor, opSet, d, "")
		}
	}
	gone := false
	for d := range p.have.doors {
		if !wanted[d] {
			gone, p.doomed[d.name()] = true, true
			p.del(stageDoor, d)
		}
	}
	sortOps(p.dels[stageDoor])
	if gone || !inPlace(p.have.same.Admits, p.want.Admits, len(p.have.admits)) {
		compare(p, p.have.admits, p.want.Admits, stageAdmit)
	}
}
