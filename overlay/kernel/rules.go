package kernel

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Our table holds one chain that says what is forwarded, one for what the host takes
// itself where tunnels end here, and the chains of nat.go where a bridge is its
// containers' way out. Rules are named by their texts, which the kernel keeps for us
// as comments.

// chainPriority puts our chain after conntrack and before the filter tables of
// others, which stand at 0.
const chainPriority = -5

// baseChain is one chain of our table.
type baseChain struct {
	name     string
	kind     nftables.ChainType
	hook     uint32
	priority int32
	rules    []rule
}

// String describes the chain as it must be.
func (c baseChain) String() string {
	return chain{name: c.name, kind: string(c.kind), hook: c.hook, priority: c.priority, policy: nfAccept}.String()
}

// chainText describes the chain that is always there.
var chainText = forwardRules(State{}).String()

// rule is one rule of ours.
type rule interface {
	String() string // unique within its chain, and what the rule is known by
	exprs() []expr.Any
}

// guard is the rule that drops what is left to or from one bridge.
type guard struct {
	link string
	out  bool
}

func (g guard) String() string {
	if g.out {
		return "guard out " + g.link
	}
	return "guard in " + g.link
}

// closed is the rule that drops what is left from a network to itself.
type closed netip.Prefix

func (c closed) String() string { return "closed " + netip.Prefix(c).String() }

// String is the seal as in "seal in docker* out eth0 udp 8472".
func (s Seal) String() string { return fmt.Sprintf("seal in %s* out %s udp %d", s.In, s.Out, s.Port) }

// lid is the part of a Seal that is about this host's own end of the tunnels.
type lid Seal

func (l lid) String() string { return fmt.Sprintf("seal in %s* udp %d", l.In, l.Port) }

// uplink lets in at once what comes over the underlay, and not from a bridge:
// names are what a rule compares at the highest price, and every packet of a
// tunnel comes by here.
type uplink string

func (u uplink) String() string { return "uplink in " + string(u) }

// forwardRules gives the chain that lets packets pass, in the order its rules
// must stand: what is let through, then what drops the rest. Of what is let through, the
// rules with addresses stand first: they are cheap to pass by, and carry what
// goes between hosts.
func forwardRules(s State) baseChain {
	var accepts, plain, seals, guards []rule
	for _, f := range s.Forwards {
		if f.Src.IsValid() || f.Dst.IsValid() {
			accepts = append(accepts, f)
		} else {
			plain = append(plain, f)
		}
	}
	for _, link := range s.Guards {
		guards = append(guards, guard{link, false}, guard{link, true})
	}
	for _, seal := range s.Seals {
		seals = append(seals, seal)
	}
	for _, p := range s.Closed {
		guards = append(guards, closed(p))
	}
	rules := slices.Concat(tidy(accepts), tidy(plain), tidy(seals), outsideRules(s), tidy(guards))
	return baseChain{"forward", nftables.ChainTypeFilter, unix.NF_INET_FORWARD, chainPriority, rules}
}

// inputRules gives the chain of what the host does not take.
func inputRules(s State) baseChain {
	var uplinks, lids []rule
	for _, seal := range s.Seals {
		uplinks = append(uplinks, uplink(seal.Out))
		lids = append(lids, lid(seal))
	}
	return baseChain{"input", nftables.ChainTypeFilter, unix.NF_INET_LOCAL_IN, chainPriority, slices.Concat(tidy(uplinks), tidy(lids))}
}

// tidy sorts rules by their texts, equal ones once.
func tidy(rules []rule) []rule {
	slices.SortFunc(rules, func(a, b rule) int { return cmp.Compare(a.String(), b.String()) })
	return slices.CompactFunc(rules, func(a, b rule) bool { return a.String() == b.String() })
}

// tableOf is the table that a state asks for; without rules, none.
func tableOf(s State) table {
	forward := forwardRules(s)
	t := table{chains: []baseChain{forward}}
	for _, c := range append([]baseChain{inputRules(s)}, natChains(s)...) {
		if len(c.rules) > 0 {
			t.chains = append(t.chains, c)
		}
	}
	if len(t.chains) == 1 && len(forward.rules) == 0 {
		return table{}
	}
	var lines []string
	for _, c := range t.chains {
		lines = append(lines, c.String())
		for _, r := range c.rules {
			lines = append(lines, r.String())
		}
	}
	t.text = strings.Join(lines, "\n") + "\n"
	return t
}

// hookName is nft's, by the kernel's number for the family inet.
func hookName(hook uint32) string {
	names := [...]string{"prerouting", "input", "forward", "output", "postrouting"}
	if hook < uint32(len(names)) {
		return names[hook]
	}
	return fmt.Sprint(hook)
}
