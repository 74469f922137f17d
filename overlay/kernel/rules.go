package kernel

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
)

// Our table holds one chain; its rules are named by their texts, which the
// kernel keeps for us as comments.

// chainPriority puts our chain after conntrack and before the filter tables of
// others, which stand at 0.
const chainPriority = -5

// chainText describes the chain as it must be.
var chainText = fmt.Sprintf("chain forward type filter hook forward priority %d policy accept", chainPriority)

// rule is one rule of ours: a Forward, a guard or a closed network.
type rule interface {
	String() string // unique, and what the rule is known by
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

// rulesOf gives a state's rules in the order they must stand: what is let
// through, then the guards that drop the rest. Of what is let through, the
// rules with addresses stand first: they are cheap to pass by, and carry what
// goes between hosts.
func rulesOf(s State) []rule {
	var accepts, plain, guards []rule
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
	for _, p := range s.Closed {
		guards = append(guards, closed(p))
	}
	return slices.Concat(tidy(accepts), tidy(plain), tidy(guards))
}

// tidy sorts rules by their texts, equal ones once.
func tidy(rules []rule) []rule {
	slices.SortFunc(rules, func(a, b rule) int { return cmp.Compare(a.String(), b.String()) })
	return slices.CompactFunc(rules, func(a, b rule) bool { return a.String() == b.String() })
}

// tableOf is the table that a state asks for; without rules, none.
func tableOf(s State) table {
	t := table{rules: rulesOf(s)}
	if len(t.rules) == 0 {
		return t
	}
	lines := []string{chainText}
	for _, r := range t.rules {
		lines = append(lines, r.String())
	}
	t.text = strings.Join(lines, "\n") + "\n"
	return t
}
