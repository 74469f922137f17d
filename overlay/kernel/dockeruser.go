package kernel

import (
	"fmt"
)

// Dockerd's iptables rules may drop in FORWARD what our table accepts, since
// every base chain has its say. Two accept rules for our bridges in the chain
// that dockerd leaves to its users keep it from that; what may pass is decided
// in our own table.

const (
	userChain    = "DOCKER-USER"
	forwardChain = "FORWARD"
)

// filterTable is one family's filter table of iptables-nft.
type filterTable struct {
	user, forward bool // the chains exist
	drops         bool // FORWARD's policy
	rules         []chainRule
}

// readFilter reads what matters of it.
func (k *Kernel) readFilter(family string) (filterTable, error) {
	var f filterTable
	chains, err := k.readChains(protocolOf(family), "filter")
	if err != nil {
		return f, err
	}
	for _, c := range chains {
		switch c.name {
		case userChain:
			f.user = true
		case forwardChain:
			f.forward = true
			f.drops = c.kind != "" && c.policy == nfDrop
		default:
			continue
		}
		rules, err := k.readRules(protocolOf(family), "filter", c.name)
		if err != nil {
			return f, err
		}
		f.rules = append(f.rules, rules...)
	}
	return f, nil
}

// home is the chain that our rules belong to; empty if none needs them.
func (f filterTable) home() string {
	switch {
	case f.user:
		return userChain
	case f.forward && f.drops:
		return forwardChain
	}
	return ""
}

// ours tells which of our two rules this is; empty for neither.
func (r chainRule) ours() string {
	for _, side := range []string{"iifname", "oifname"} {
		if r.text == fmt.Sprintf("%s %q accept", side, BridgePrefix) {
			return side
		}
	}
	return ""
}

// final tells whether nothing after the rule is ever reached.
func (r chainRule) final() bool {
	return r.text == "accept" || r.text == "drop" || r.text == "return"
}

// acceptance judges the table: both rules must stand in the home chain, once,
// before what ends it. Rules of others may come first: they are for the user
// to restrict our traffic with.
func (f filterTable) acceptance() acceptance {
	a := acceptance{home: f.home()}
	reached := map[string]bool{}
	ended := false
	for _, r := range f.rules {
		side := r.ours()
		if side != "" {
			a.ours++
		}
		if r.chain != a.home || ended {
			continue
		}
		if side != "" {
			reached[side] = true
		}
		ended = r.final()
	}
	a.good = len(reached) == 2 && a.ours == 2
	return a
}
