package kernel

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Packet is what a firewall sees of the first packet of a flow, as far as it
// is known: a zero field is not known.
type Packet struct {
	Way      Way
	IPv6     bool
	In, Out  string // interfaces
	Src, Dst netip.Addr
	Proto    byte   // unix.IPPROTO_...
	Port     uint16 // destination, of UDP and TCP
}

// Way is how a packet passes the host.
type Way byte

// The ways of a packet.
const (
	Inward  Way = iota // to a socket of the host
	Outward            // from one
	Across             // routed
)

// hooks are the netfilter hooks on each way.
var hooks = map[Way][]uint32{
	Inward:  {unix.NF_INET_PRE_ROUTING, unix.NF_INET_LOCAL_IN},
	Outward: {unix.NF_INET_LOCAL_OUT, unix.NF_INET_POST_ROUTING},
	Across:  {unix.NF_INET_PRE_ROUTING, unix.NF_INET_FORWARD, unix.NF_INET_POST_ROUTING},
}

// Obstacle is a base chain of somebody else's that drops a packet.
type Obstacle struct {
	Family, Table string // such as ip filter
	Chain         string // the base chain
	Rule          string // where: a rule's chain and its handle or number, or "policy drop"
	Certain       bool   // false where it hangs on what is not known of the packet
	Legacy        bool   // of the legacy xtables, which nft does not show
}

// String names the obstacle as nft does, or the legacy iptables.
func (o Obstacle) String() string {
	if o.Legacy {
		return fmt.Sprintf("chain %s of the legacy %stables' table %s (%s)", o.Chain, o.Family, o.Table, o.Rule)
	}
	return fmt.Sprintf("chain %s of nftables table %s %s (%s)", o.Chain, o.Family, o.Table, o.Rule)
}

// Obstacles finds the nftables chains of others, iptables-nft's too, and those of
// the legacy iptables' filter table that drop a packet. What a rule matches beyond
// interfaces, addresses, protocol, port and state of a flow is taken for not known.
// With an error comes what was found without the legacy ones.
func (k *Kernel) Obstacles(p Packet) ([]Obstacle, error) {
	w, err := k.readWalls(p)
	if err != nil {
		return nil, err
	}
	found := w.obstacles(p)
	old, err := k.legacyWalls(p.IPv6)
	if err != nil {
		return found, err
	}
	if old != nil {
		for _, o := range old.obstacles(p) {
			o.Legacy = true
			found = append(found, o)
		}
	}
	return found, nil
}

// family is the one of nftables that sees only packets such as this.
func (p Packet) family() byte {
	if p.IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// families are the names of nftables' families that see IP packets.
var ipFamilies = map[byte]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}

// chainID names a chain.
type chainID struct {
	family      byte
	table, name string
}

// walls are the chains of all tables but ours.
type walls struct {
	base  []chain   // with a hook, in the order of their priorities
	ids   []chainID // of base
	rules map[chainID][]wallRule
	links map[string]int // indexes by name
}

// rawRule is a rule with its expressions as the kernel sends them.
type rawRule struct {
	handle uint64
	expr   [][]byte
}

// readWalls lists the chains that a packet may meet, with their rules.
func (k *Kernel) readWalls(p Packet) (*walls, error) {
	w := &walls{rules: map[chainID][]wallRule{}, links: map[string]int{}}
	for _, family := range []byte{p.family(), unix.NFPROTO_INET} {
		found, err := k.filter.dump(nftQuery(unix.NFT_MSG_GETCHAIN, family, nil))
		if isGone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list nftables chains: %w", err)
		}
		for _, a := range found {
			c := parseChain(a.body)
			if a.body[0] != family || c.table == Table || c.table == DoorTable {
				continue
			}
			id := chainID{family, c.table, c.name}
			if c.kind == "filter" {
				w.base, w.ids = append(w.base, c), append(w.ids, id)
			}
			if w.rules[id], err = k.readRaw(id); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range []string{p.In, p.Out} {
		l, ok, err := k.lookup(name)
		if err != nil {
			return nil, err
		}
		if ok {
			w.links[name] = l.index
		}
	}
	return w, nil
}

// lookup reads one device without remembering it.
func (k *Kernel) lookup(name string) (linkInfo, bool, error) {
	if name == "" {
		return linkInfo{}, false, nil
	}
	found, err := k.route.query(linkQuery(name, 0))
	if isGone(err) {
		return linkInfo{}, false, nil
	}
	if err != nil {
		return linkInfo{}, false, fmt.Errorf("read device %s: %w", name, err)
	}
	for _, a := range found {
		if l, ok := parseLink(a.body); ok {
			return l, true, nil
		}
	}
	return linkInfo{}, false, nil
}

// readRaw lists a chain's rules in order.
func (k *Kernel) readRaw(id chainID) ([]wallRule, error) {
	found, err := k.filter.dump(nftQuery(unix.NFT_MSG_GETRULE, id.family, func(e *encoder) {
		e.text(unix.NFTA_RULE_TABLE, id.table)
		e.text(unix.NFTA_RULE_CHAIN, id.name)
	}))
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables rules of %s %s: %w", id.table, id.name, err)
	}
	var rules []wallRule
	for _, a := range found {
		if parseRule(a.body).chain == id.name {
			rules = append(rules, parseRaw(a.body))
		}
	}
	return rules, nil
}

func parseRaw(b []byte) rawRule {
	r := rawRule{handle: parseRule(b).handle}
	for kind, v := range attributes(nftBody(b)) {
		if kind != unix.NFTA_RULE_EXPRESSIONS {
			continue
		}
		for _, v := range attributes(v) {
			r.expr = append(r.expr, v)
		}
	}
	return r
}

// obstacles walks the packet through every base chain on its way: an accept
// ends one of them only.
func (w *walls) obstacles(p Packet) []Obstacle {
	var found []Obstacle
	for i, c := range w.base {
		if !slices.Contains(hooks[p.Way], c.hook) {
			continue
		}
		s := stroll{walls: w, packet: p, hook: c.hook}
		all := s.chain(w.ids[i], 0)
		o := Obstacle{Family: ipFamilies[w.ids[i].family], Table: c.table, Chain: c.name}
		switch {
		case all.onward && c.policy == nfDrop:
			o.Rule, o.Certain = "policy drop", !all.let
		case all.drop != "":
			o.Rule, o.Certain = all.drop, !all.let && !all.onward
		default:
			continue
		}
		found = append(found, o)
	}
	slices.SortFunc(found, func(a, b Obstacle) int { return cmp.Compare(a.String(), b.String()) })
	return found
}
