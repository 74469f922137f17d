package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// outcomes is what may become of a packet in a chain, as far as it is known.
type outcomes struct {
	drop   string // the rule that drops it, or may; empty for none
	let    bool   // it may be let pass
	onward bool   // it may leave the chain undecided
}

const (
	// maxDepth is how deep chains may call each other, as in nf_tables.
	maxDepth = 16
	// maxRules is how many rules are looked at, some of them again for every rule
	// that calls their chain.
	maxRules = 1 << 20
)

// stroll is a packet's walk through one base chain.
type stroll struct {
	walls  *walls
	packet Packet
	hook   uint32
	met    int // rules so far
}

// chain walks the rules of one chain, past each that perhaps does not match.
func (s *stroll) chain(id chainID, depth int) (all outcomes) {
	if depth > maxDepth {
		return outcomes{onward: true}
	}
	for _, r := range s.walls.rules[id] {
		if s.met++; s.met > maxRules {
			return outcomes{drop: all.drop, let: true, onward: true}
		}
		m := matching{packet: s.packet, hook: s.hook, links: s.walls.links, regs: map[uint32][]byte{}}
		fits := r.meet(&m)
		if fits == no || !m.decides {
			continue
		}
		one, next := s.verdict(&m, id, r.name(id.name), depth)
		if one.drop != "" && (fits == yes || all.drop == "") {
			all.drop = one.drop
		}
		all.let = all.let || one.let
		all.onward = all.onward || one.onward
		if fits == yes && !next {
			return all
		}
	}
	all.onward = true
	return all
}

// verdict is what comes of a rule that matches; next tells whether the rules
// behind it may be met.
func (s *stroll) verdict(m *matching, id chainID, rule string, depth int) (all outcomes, next bool) {
	switch m.code {
	case nfAccept:
		return outcomes{let: true}, false
	case nfDrop:
		return outcomes{drop: rule}, false
	case nfQueue: // a program decides
		return outcomes{drop: rule, let: true}, false
	case unix.NFT_RETURN:
		return outcomes{onward: true}, false
	case unix.NFT_GOTO:
		return s.chain(chainID{id.family, id.table, m.target}, depth+1), false
	case unix.NFT_JUMP:
		all = s.chain(chainID{id.family, id.table, m.target}, depth+1)
		next, all.onward = all.onward, false
		return all, next
	}
	return all, true
}

// fit is whether a rule matches a packet.
type fit byte

const (
	no fit = iota
	maybe
	yes
)

// matching is a packet's way through one rule's expressions, with what the
// registers hold; one that is missing holds what is not known.
type matching struct {
	packet Packet
	hook   uint32
	links  map[string]int
	regs   map[uint32][]byte

	fits    fit
	decides bool
	code    int32  // of the verdict
	target  string // chain of a jump
}

// wallRule is one of somebody else's chain.
type wallRule interface {
	// meet matches the packet of m, and leaves in m what the rule decides.
	meet(m *matching) fit
	// name is how a user finds the rule in its chain.
	name(chain string) string
}

func (r rawRule) name(chain string) string { return fmt.Sprintf("%s handle %d", chain, r.handle) }

func (r rawRule) meet(m *matching) fit {
	m.fits = yes
	for _, e := range r.expr {
		if !m.expression(e) {
			return no
		}
	}
	return m.fits
}

// expression is false where the rule does not match.
func (m *matching) expression(b []byte) bool {
	name, field := parseExpression(b)
	switch name {
	case "counter", "log", "notrack", "last":
	case "meta":
		if dreg := field[unix.NFTA_META_DREG]; dreg != nil {
			m.load(dreg, m.meta(num32be(field[unix.NFTA_META_KEY])))
		}
	case "payload":
		if dreg := field[unix.NFTA_PAYLOAD_DREG]; dreg != nil {
			m.load(dreg, m.payload(num32be(field[unix.NFTA_PAYLOAD_BASE]), num32be(field[unix.NFTA_PAYLOAD_OFFSET]), num32be(field[unix.NFTA_PAYLOAD_LEN])))
		}
	case "ct":
		m.load(field[unix.NFTA_CT_DREG], ct(num32be(field[unix.NFTA_CT_KEY])))
	case "bitwise":
		m.bitwise(field)
	case "cmp":
		return m.compare(field)
	case "range":
		return m.between(field)
	case "immediate":
		m.verdict(field)
	case "reject":
		m.decides, m.code = true, nfDrop
	case "queue":
		m.decides, m.code = true, nfQueue
	case "match":
		return m.xtMatch(unix.ByteSliceToString(field[unix.NFTA_MATCH_NAME]), field[unix.NFTA_MATCH_INFO])
	case "target":
		m.xtTarget(unix.ByteSliceToString(field[unix.NFTA_TARGET_NAME]))
	default:
		m.fits = maybe
	}
	return true
}

// register gives the number of a register in units of four bytes: 1 to 4 are
// the old names of registers of 16 bytes.
func register(v []byte) uint32 {
	n := num32be(v)
	if n >= unix.NFT_REG_1 && n <= unix.NFT_REG_4 {
		return unix.NFT_REG32_00 + 4*(n-unix.NFT_REG_1)
	}
	return n
}

func (m *matching) load(reg, value []byte) {
	if value == nil {
		delete(m.regs, register(reg))
		return
	}
	m.regs[register(reg)] = value
}

// meta is what is known of the packet beside its bytes; nil for nothing.
func (m *matching) meta(key uint32) []byte {
	index := func(s string) []byte {
		if i := m.links[s]; i != 0 {
			return binary.NativeEndian.AppendUint32(nil, uint32(i))
		}
		return nil
	}
	in, out := m.packet.In, m.packet.Out
	switch m.hook { // where the other one is not decided yet, or known no more
	case unix.NF_INET_PRE_ROUTING:
		out = ""
	case unix.NF_INET_POST_ROUTING:
		in = ""
	}
	switch key {
	case unix.NFT_META_IIFNAME:
		return padded(in)
	case unix.NFT_META_OIFNAME:
		return padded(out)
	case unix.NFT_META_IIF:
		return index(in)
	case unix.NFT_META_OIF:
		return index(out)
	case unix.NFT_META_NFPROTO:
		return []byte{m.packet.family()}
	case unix.NFT_META_PROTOCOL:
		if m.packet.IPv6 {
			return binary.BigEndian.AppendUint16(nil, unix.ETH_P_IPV6)
		}
		return binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP)
	case unix.NFT_META_L4PROTO:
		return []byte{m.packet.Proto}
	}
	return nil
}

// padded is a device's name as the kernel compares it; nil for none.
func padded(name string) []byte {
	if name == "" || len(name) > unix.IFNAMSIZ {
		return nil
	}
	return append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...)
}

// payload is a field of the packet's headers; nil where it is not known.
func (m *matching) payload(base, offset, size uint32) []byte {
	const port = 2                                                     // offset of RFC 768
	protocol, source, destination := uint32(9), uint32(12), uint32(16) // of RFC 791
	if m.packet.IPv6 {
		protocol, source, destination = 6, 8, 24 // of RFC 8200
	}
	part := func(value []byte, start uint32) []byte {
		from := offset - start
		if offset < start || from+size > uint32(len(value)) {
			return nil
		}
		return value[from : from+size]
	}
	switch {
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && m.packet.Port != 0:
		return part(binary.BigEndian.AppendUint16(nil, m.packet.Port), port)
	case base != unix.NFT_PAYLOAD_NETWORK_HEADER:
		return nil
	case offset == protocol:
		return part([]byte{m.packet.Proto}, protocol)
	case offset < destination:
		return part(m.packet.Src.AsSlice(), source)
	}
	return part(m.packet.Dst.AsSlice(), destination)
}

// ctNew is NF_CT_STATE_BIT(IP_CT_NEW) of the kernel.
const ctNew = 8

// ct is what is known of the packet's flow: that it begins.
func ct(key uint32) []byte {
	if key == unix.NFT_CT_STATE {
		return binary.NativeEndian.AppendUint32(nil, ctNew)
	}
	return nil
}

func (m *matching) bitwise(field map[uint16][]byte) {
	from := m.regs[register(field[unix.NFTA_BITWISE_SREG])]
	mask := inner(field[unix.NFTA_BITWISE_MASK], unix.NFTA_DATA_VALUE)
	flip := inner(field[unix.NFTA_BITWISE_XOR], unix.NFTA_DATA_VALUE)
	if from == nil || len(mask) > len(from) || len(mask) == 0 || len(mask) != len(flip) {
		m.load(field[unix.NFTA_BITWISE_DREG], nil)
		return
	}
	result := make([]byte, len(mask))
	for i := range mask {
		result[i] = from[i]&mask[i] ^ flip[i]
	}
	m.load(field[unix.NFTA_BITWISE_DREG], result)
}

// compare is false where a comparison fails; one of what is not known may
// succeed.
func (m *matching) compare(field map[uint16][]byte) bool {
	have := m.regs[register(field[unix.NFTA_CMP_SREG])]
	want := inner(field[unix.NFTA_CMP_DATA], unix.NFTA_DATA_VALUE)
	if have == nil || len(want) > len(have) {
		m.fits = maybe
		return true
	}
	order := bytes.Compare(have[:len(want)], want)
	switch num32be(field[unix.NFTA_CMP_OP]) {
	case unix.NFT_CMP_EQ:
		return order == 0
	case unix.NFT_CMP_NEQ:
		return order != 0
	case unix.NFT_CMP_LT:
		return order < 0
	case unix.NFT_CMP_LTE:
		return order <= 0
	case unix.NFT_CMP_GT:
		return order > 0
	}
	return order >= 0
}

// between is false outside a range.
func (m *matching) between(field map[uint16][]byte) bool {
	have := m.regs[register(field[unix.NFTA_RANGE_SREG])]
	from := inner(field[unix.NFTA_RANGE_FROM_DATA], unix.NFTA_DATA_VALUE)
	to := inner(field[unix.NFTA_RANGE_TO_DATA], unix.NFTA_DATA_VALUE)
	if have == nil || len(from) > len(have) || len(to) != len(from) {
		m.fits = maybe
		return true
	}
	inside := bytes.Compare(have[:len(from)], from) >= 0 && bytes.Compare(have[:len(to)], to) <= 0
	return inside == (num32be(field[unix.NFTA_RANGE_OP]) == unix.NFT_RANGE_EQ)
}

func (m *matching) verdict(field map[uint16][]byte) {
	if num32be(field[unix.NFTA_IMMEDIATE_DREG]) != unix.NFT_REG_VERDICT {
		m.load(field[unix.NFTA_IMMEDIATE_DREG], inner(field[unix.NFTA_IMMEDIATE_DATA], unix.NFTA_DATA_VALUE))
		return
	}
	v := inner(field[unix.NFTA_IMMEDIATE_DATA], unix.NFTA_DATA_VERDICT)
	m.decides, m.code = true, int32(num32be(inner(v, unix.NFTA_VERDICT_CODE)))
	m.target = unix.ByteSliceToString(inner(v, unix.NFTA_VERDICT_CHAIN))
}
