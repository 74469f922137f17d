package kernel

import (
	"encoding/binary"
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

// legacyEntry is one entry of a legacy table.
func legacyEntry(in, out, target string, data []byte) []byte {
	e := make([]byte, entryHead+targetData)
	put := func(at, mask int, name string) {
		copy(e[at:], name)
		for i := range name {
			e[mask+i] = 0xff
		}
	}
	put(entryIn, entryInMask, in)
	put(entryOut, entryOutMask, out)
	copy(e[entryHead+targetName:], target)
	e = append(e, data...)
	binary.NativeEndian.PutUint16(e[entryTarget:], entryHead)
	binary.NativeEndian.PutUint16(e[entryNext:], uint16(len(e)))
	return e
}

func TestParseLegacy(t *testing.T) {
	verdict := func(v int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(v)) }
	chainHead := append([]byte(userChain), make([]byte, 21)...)
	inverted := legacyEntry("fl-", "", "", verdict(-2))
	inverted[entryInverse] = 1
	var blob []byte
	add := func(e []byte) int { blob = append(blob, e...); return len(blob) - len(e) }
	add(legacyEntry("fl-", "", "", verdict(-1)))
	add(legacyEntry("fl-a", "", "", verdict(-2)))
	add(inverted)
	drop := add(legacyEntry("", "", "", verdict(-1)))
	accept := add(legacyEntry("", "", "", verdict(-2)))
	if got := parseLegacy(blob, drop); got != (legacyTable{drops: true}) {
		t.Errorf("drop: %+v", got)
	}
	if got := parseLegacy(blob, accept); got != (legacyTable{}) {
		t.Errorf("accept: %+v", got)
	}
	add(legacyEntry("", "", "ERROR", chainHead))
	add(legacyEntry("fl-", "", "", verdict(-2)))
	add(legacyEntry("", "fl-", "", verdict(-2)))
	want := legacyTable{user: true, drops: true, in: true, out: true}
	if got := parseLegacy(blob, drop); got != want {
		t.Errorf("mended: %+v", got)
	}
	if got := parseLegacy(blob[:len(blob)-1], drop); got.out {
		t.Errorf("torn: %+v", got)
	}
}
