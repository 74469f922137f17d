package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// Reading nftables: only what our own rules are made of is understood, so that
// no rule of somebody else's can stand in the way.

// nftQuery asks nftables for chains or rules of one family.
func nftQuery(kind uint16, family byte, fill func(*encoder)) message {
	e := encoder{}
	e.raw(family, unix.NFNETLINK_V0, 0, 0)
	if fill != nil {
		fill(&e)
	}
	return message{unix.NFNL_SUBSYS_NFTABLES<<8 | kind, 0, e.b}
}

// nfgenmsgSize is the size of struct nfgenmsg in bytes.
const nfgenmsgSize = 4

// nftBody is what follows the family header of an nftables message.
func nftBody(b []byte) []byte { return b[min(nfgenmsgSize, len(b)):] }

// chain is an nftables chain, as far as it matters to us.
type chain struct {
	table, name string
	kind        string // empty for one without a hook
	hook        uint32
	priority    int32
	policy      uint32 // NF_DROP or NF_ACCEPT
}

func parseChain(b []byte) chain {
	var c chain
	for kind, v := range attributes(nftBody(b)) {
		switch kind {
		case unix.NFTA_CHAIN_TABLE:
			c.table = unix.ByteSliceToString(v)
		case unix.NFTA_CHAIN_NAME:
			c.name = unix.ByteSliceToString(v)
		case unix.NFTA_CHAIN_TYPE:
			c.kind = unix.ByteSliceToString(v)
		case unix.NFTA_CHAIN_POLICY:
			c.policy = num32be(v)
		case unix.NFTA_CHAIN_HOOK:
			for kind, v := range attributes(v) {
				switch kind {
				case unix.NFTA_HOOK_HOOKNUM:
					c.hook = num32be(v)
				case unix.NFTA_HOOK_PRIORITY:
					c.priority = int32(num32be(v))
				}
			}
		}
	}
	return c
}

// String describes a chain.
func (c chain) String() string {
	if c.kind == "" {
		return "chain " + c.name
	}
	policy := "drop"
	if c.policy == nfAccept {
		policy = "accept"
	}
	return fmt.Sprintf("chain %s type %s hook %s priority %d policy %s", c.name, c.kind, hookName(c.hook), c.priority, policy)
}

// Verdicts of linux/netfilter.h and linux/netfilter/nf_tables.h.
const (
	nfDrop    = 0
	nfAccept  = 1
	nfQueue   = 3
	nftReturn = -5
)

// chainRule is a rule as far as we understand it.
type chainRule struct {
	chain   string
	handle  uint64
	comment string
	packets uint64 // that its counter has seen
	text    string // its expressions; one we do not know is a "?"
}

func parseRule(b []byte) chainRule {
	var r chainRule
	var words []string
	for kind, v := range attributes(nftBody(b)) {
		switch kind {
		case unix.NFTA_RULE_CHAIN:
			r.chain = unix.ByteSliceToString(v)
		case unix.NFTA_RULE_HANDLE:
			if len(v) == 8 {
				r.handle = binary.BigEndian.Uint64(v)
			}
		case unix.NFTA_RULE_USERDATA:
			r.comment = comment(v)
		case unix.NFTA_RULE_EXPRESSIONS:
			for _, v := range attributes(v) {
				r.packets += parsePackets(v)
				if word := expressionText(v); word != "" {
					words = append(words, word)
				}
			}
		}
	}
	r.text = strings.Join(words, " ")
	return r
}

// comment is the text that a rule carries.
func comment(b []byte) string {
	for len(b) >= 2 {
		kind, size := b[0], int(b[1])
		if b = b[2:]; size > len(b) {
			break
		}
		if userdata.Type(kind) == userdata.TypeComment {
			return unix.ByteSliceToString(b[:size])
		}
		b = b[size:]
	}
	return ""
}

// parseExpression gives an expression's name and its attributes by number.
func parseExpression(b []byte) (name string, field map[uint16][]byte) {
	field = map[uint16][]byte{}
	for kind, v := range attributes(b) {
		switch kind {
		case unix.NFTA_EXPR_NAME:
			name = unix.ByteSliceToString(v)
		case unix.NFTA_EXPR_DATA:
			for kind, v := range attributes(v) {
				field[kind] = v
			}
		}
	}
	return name, field
}

// expressionText prints one expression; a counter is nothing.
func expressionText(b []byte) string {
	name, field := parseExpression(b)
	switch name {
	case "counter":
		return ""
	case "meta":
		switch num32be(field[unix.NFTA_META_KEY]) {
		case unix.NFT_META_IIFNAME:
			return "iifname"
		case unix.NFT_META_OIFNAME:
			return "oifname"
		}
	case "cmp":
		if num32be(field[unix.NFTA_CMP_OP]) == unix.NFT_CMP_EQ {
			return fmt.Sprintf("%q", inner(field[unix.NFTA_CMP_DATA], unix.NFTA_DATA_VALUE))
		}
	case "immediate":
		verdict := inner(field[unix.NFTA_IMMEDIATE_DATA], unix.NFTA_DATA_VERDICT)
		switch int32(num32be(inner(verdict, unix.NFTA_VERDICT_CODE))) {
		case nfAccept:
			return "accept"
		case nfDrop:
			return "drop"
		case nftReturn:
			return "return"
		}
	}
	return "?"
}

// inner is the first attribute of that type in b.
func inner(b []byte, wanted uint16) []byte {
	for kind, v := range attributes(b) {
		if kind == wanted {
			return v
		}
	}
	return nil
}

// readChains lists one family's chains of one table.
func (k *Kernel) readChains(family byte, table string) ([]chain, error) {
	found, err := k.filter.dump(nftQuery(unix.NFT_MSG_GETCHAIN, family, nil))
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var chains []chain
	for _, a := range found {
		if c := parseChain(a.body); c.table == table && a.body[0] == family {
			chains = append(chains, c)
		}
	}
	return chains, nil
}

// readRules lists a chain's rules in order.
func (k *Kernel) readRules(family byte, table, name string) ([]chainRule, error) {
	found, err := k.filter.dump(nftQuery(unix.NFT_MSG_GETRULE, family, func(e *encoder) {
		e.text(unix.NFTA_RULE_TABLE, table)
		e.text(unix.NFTA_RULE_CHAIN, name)
	}))
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables rules of %s %s: %w", table, name, err)
	}
	var rules []chainRule
	for _, a := range found {
		if r := parseRule(a.body); r.chain == name {
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// readTable gives our table's lines as it stands; empty if there is none.
func (k *Kernel) readTable() (string, error) {
	_, err := k.filter.query(nftQuery(unix.NFT_MSG_GETTABLE, unix.NFPROTO_INET, func(e *encoder) {
		e.text(unix.NFTA_TABLE_NAME, Table)
	}))
	switch {
	case isGone(err):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read nftables table %s: %w", Table, err)
	}
	chains, err := k.readChains(unix.NFPROTO_INET, Table)
	if err != nil {
		return "", err
	}
	lines := []string{}
	for _, c := range chains {
		lines = append(lines, c.String())
		rules, err := k.readRules(unix.NFPROTO_INET, Table, c.name)
		if err != nil {
			return "", err
		}
		for _, r := range rules {
			lines = append(lines, r.comment)
		}
	}
	return strings.Join(lines, "\n") + "\n", nil
}

// readWall reads our tables and how dockerd's filter tables stand.
func (k *Kernel) readWall() (w wall) {
	var err, failed error
	w.table, err = k.readTable()
	w.doors, w.admits, failed = k.readDoors()
	err = errors.Join(err, failed)
	w.accepts = map[string]acceptance{}
	for _, family := range families {
		found, failed := k.readFilter(family)
		w.accepts[family] = found.acceptance()
		err = errors.Join(err, failed)
	}
	if a := w.accepts["ip"]; a.home == "" && err == nil {
		a.legacy = k.legacyMending()
		w.accepts["ip"] = a
	}
	w.wallErr = err
	return w
}
