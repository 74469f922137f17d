package kernel

import "golang.org/x/sys/unix"

// xtTarget is one of iptables' own targets; those that are not named here change a
// packet, or write about it.
func (m *matching) xtTarget(name string) {
	switch name {
	case "REJECT":
		m.decides, m.code = true, nfDrop
	case "NFQUEUE":
		m.decides, m.code = true, nfQueue
	}
}

// Fields of struct xt_conntrack_mtinfo1 to 3 of linux/netfilter.
const (
	conntrackWhat    = 146 // the bits of what is compared
	conntrackInverse = 148
	conntrackStates  = 150
	conntrackSize    = 152
)

// xtState compares the state of the packet's flow, which begins.
func (m *matching) xtState(info []byte) bool {
	const state, alias = 1, 1 << 13 // XT_CONNTRACK_STATE, and _ALIAS: it was written as -m state
	const plain = 15                // states in bits, those of NAT above
	if len(info) < conntrackSize || num16(info[conntrackWhat:])&^alias != state {
		m.fits = maybe
		return true
	}
	states := num16(info[conntrackStates:]) // with something else in half of it at revision 1
	if states&^plain != 0 && states&ctNew == 0 {
		m.fits = maybe
		return true
	}
	return (states&ctNew != 0) == (num16(info[conntrackInverse:])&state == 0)
}

// xtMatch is one of iptables' own matches: ports, as in struct xt_udp and
// struct xt_tcp of linux/netfilter, which begin alike, states and comments.
func (m *matching) xtMatch(name string, info []byte) bool {
	proto := map[string]byte{"udp": unix.IPPROTO_UDP, "tcp": unix.IPPROTO_TCP}[name]
	switch {
	case name == "comment":
		return true
	case name == "conntrack":
		return m.xtState(info)
	case proto == 0 || len(info) < 10:
		m.fits = maybe
		return true
	case proto != m.packet.Proto:
		return false
	}
	inverse := info[8]
	if name == "tcp" {
		if len(info) < 12 {
			m.fits = maybe
			return true
		}
		if info[8] != 0 || info[9] != 0 { // an option, or flags
			m.fits = maybe
		}
		inverse = info[11]
	}
	if from, to := num16(info), num16(info[2:]); from != 0 || to != 0xffff {
		m.fits = maybe // the source port
	}
	from, to := num16(info[4:]), num16(info[6:])
	if from == 0 && to == 0xffff {
		return true
	}
	if m.packet.Port == 0 {
		m.fits = maybe
		return true
	}
	inside := from <= m.packet.Port && m.packet.Port <= to
	return inside == (inverse&2 == 0)
}
