package kernel

import (
	"testing"
)

func TestAcceptance(t *testing.T) {
	const in, out = `iifname "fl-" accept`, `oifname "fl-" accept`
	user := func(texts ...string) []chainRule {
		var rules []chainRule
		for _, text := range texts {
			rules = append(rules, chainRule{chain: userChain, text: text})
		}
		return rules
	}
	forward := func(texts ...string) []chainRule {
		rules := user(texts...)
		for i := range rules {
			rules[i].chain = forwardChain
		}
		return rules
	}
	for _, c := range []struct {
		name string
		have filterTable
		want acceptance
	}{
		{"no tables", filterTable{}, acceptance{}},
		{"open FORWARD", filterTable{forward: true}, acceptance{}},
		{"closed FORWARD", filterTable{forward: true, drops: true}, acceptance{home: forwardChain}},
		{"empty chain", filterTable{user: true}, acceptance{home: userChain}},
		{"in place", filterTable{user: true, rules: user(in, out, "return")}, acceptance{home: userChain, good: true, ours: 2}},
		{"other order", filterTable{user: true, rules: user(out, "?", in)}, acceptance{home: userChain, good: true, ours: 2}},
		{"after the user's own", filterTable{user: true, rules: user("? drop", in, out)}, acceptance{home: userChain, good: true, ours: 2}},
		{"out of reach", filterTable{user: true, rules: user("return", in, out)}, acceptance{home: userChain, ours: 2}},
		{"half", filterTable{user: true, rules: user(in)}, acceptance{home: userChain, ours: 1}},
		{"double", filterTable{user: true, rules: user(in, out, in)}, acceptance{home: userChain, ours: 3}},
		{"one twice", filterTable{user: true, rules: user(in, in)}, acceptance{home: userChain, ours: 2}},
		{"elsewhere", filterTable{user: true, forward: true, rules: append(user(in), forward(out)...)}, acceptance{home: userChain, ours: 2}},
		{"FORWARD only", filterTable{forward: true, drops: true, rules: forward(in, out)}, acceptance{home: forwardChain, good: true, ours: 2}},
		{"narrower rules are not ours", filterTable{user: true, rules: user(`iifname "fl-" ? accept`, `iifname "fl-a" accept`)}, acceptance{home: userChain}},
	} {
		if got := c.have.acceptance(); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}
