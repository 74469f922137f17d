package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The rules of bridges that are their containers' way out: what may leave the
// host and come back, addresses that are translated, and published ports.

// Egress is a bridge whose containers go out through this host: to anywhere but
// State.Inside and the host's other bridges, and what answers them comes in.
type Egress struct {
	Bridge string
	Src    netip.Prefix // the containers' addresses
	Masq   bool         // what leaves gets an address of the host
	Uplink string       // interface that counts as outside though it may be a bridge
}

// Publish leads what comes to Host, an address and port of this host, to the
// container at To behind Bridge. The unspecified address stands for every
// address of the host in its family but ::1. What stays on this host's own bridge gets the bridge's
// address as its source, everything else keeps its own.
type Publish struct {
	Bridge   string
	Proto    Protocol
	Host, To netip.AddrPort
}

// Protocol is an IP protocol with ports.
type Protocol byte

// The protocols whose ports can be published.
const (
	TCP  Protocol = unix.IPPROTO_TCP
	UDP  Protocol = unix.IPPROTO_UDP
	SCTP Protocol = unix.IPPROTO_SCTP
)

// String is the name as Docker writes it.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprint(byte(p))
}

// String is the rule as in "publish fl-a tcp 0.0.0.0:8080 to 10.5.7.2:80".
func (p Publish) String() string {
	return fmt.Sprintf("publish %s %s %s to %s", p.Bridge, p.Proto, p.Host, p.To)
}

// line is a rule made of its parts.
type line struct {
	text  string
	parts []expr.Any
}

func (l line) String() string    { return l.text }
func (l line) exprs() []expr.Any { return l.parts }

// rulef joins the parts of a rule and names it.
func rulef(parts [][]expr.Any, format string, args ...any) rule {
	l := line{text: fmt.Sprintf(format, args...)}
	for _, p := range parts {
		l.parts = append(l.parts, p...)
	}
	return l
}

// loopback are the addresses that must stay on the host.
func loopback() netip.Prefix { return netip.MustParsePrefix("127.0.0.0/8") }

// outsideRules say what passes between egress bridges and the outside. The
// drops come before what lets new connections out, and after what belongs to
// connections that were let in or out.
func outsideRules(s State) []rule {
	var known, drops, out []rule
	for _, e := range s.Egresses {
		ours := join(from(e.Src), in(e.Bridge))
		known = append(known,
			rulef(parts(ours, related(), accepted()), "answers in %s src %s", e.Bridge, e.Src),
			rulef(parts(to(e.Src), leaving(e.Bridge), related(), accepted()), "answers out %s dst %s", e.Bridge, e.Src),
			rulef(parts(ours, translated(), accepted()), "published in %s src %s", e.Bridge, e.Src))
		for _, p := range s.Inside {
			drops = append(drops, rulef(parts(to(p), in(e.Bridge), dropped()), "inside in %s dst %s", e.Bridge, p))
		}
		drops = append(drops, rulef(parts(in(e.Bridge), not(leaving(e.Uplink)), kindOut("bridge"), dropped()), "bridges in %s but %s", e.Bridge, e.Uplink))
		out = append(out, rulef(parts(ours, not(matchDevice(expr.MetaKeyOIFNAME, []byte(TUNPrefix))), accepted()), "egress %s src %s", e.Bridge, e.Src))
	}
	for _, p := range s.Publishes {
		known = append(known, rulef(
			parts(port(p.Proto, p.To.Port()), to(single(p.To.Addr())), leaving(p.Bridge), translated(), accepted()),
			"publish %s %s to %s", p.Bridge, p.Proto, p.To))
	}
	all := tidy(known)
	all = append(all, tidy(drops)...)
	return append(all, tidy(out)...)
}

// natChains are the chains that translate addresses, and one that keeps the
// host's loopback addresses to itself where translation opens the way to them.
func natChains(s State) []baseChain {
	var raw, before, own, hairpin, inside, masq []rule
	for _, e := range s.Egresses {
		if e.Src.Addr().Is4() {
			raw = append(raw,
				rulef(parts(to(loopback()), in(e.Bridge), dropped()), "loopback in %s dst %s", e.Bridge, loopback()),
				rulef(parts(from(loopback()), in(e.Bridge), dropped()), "loopback in %s src %s", e.Bridge, loopback()))
			hairpin = append(hairpin, rulef(parts(from(loopback()), leaving(e.Bridge), masquerade(false)), "masquerade %s to %s", loopback(), e.Bridge))
		}
		hairpin = append(hairpin, rulef(parts(from(e.Src), leaving(e.Bridge), translated(), masquerade(false)), "masquerade %s back to %s", e.Src, e.Bridge))
		if !e.Masq {
			continue
		}
		for _, p := range s.Inside {
			inside = append(inside, rulef(parts(to(p), accepted()), "inside dst %s", p))
		}
		masq = append(masq, rulef(parts(from(e.Src), not(leaving(e.Bridge)), not(to(multicast(e.Src.Addr()))), masquerade(true)), "masquerade %s beyond %s", e.Src, e.Bridge))
	}
	for _, p := range s.Publishes {
		way := rulef(parts(port(p.Proto, p.Host.Port()), at(p.Host.Addr()), lead(p.To)), "%s", p)
		own = append(own, way)
		if !p.Host.Addr().IsLoopback() {
			before = append(before, way)
		}
	}
	if before = tidy(before); len(before) > 0 {
		// What comes from elsewhere for a loopback address is no business of ours.
		before = append([]rule{rulef(parts(to(loopback()), accepted()), "inside dst %s", loopback())}, before...)
	}
	after := append(append(tidy(hairpin), tidy(inside)...), tidy(masq)...)
	const rawPriority, dstPriority, srcPriority = -300, -100, 100 // linux/netfilter_ipv4.h
	return []baseChain{
		{"raw", nftables.ChainTypeFilter, unix.NF_INET_PRE_ROUTING, rawPriority, tidy(raw)},
		{"prerouting", nftables.ChainTypeNAT, unix.NF_INET_PRE_ROUTING, dstPriority, before},
		{"output", nftables.ChainTypeNAT, unix.NF_INET_LOCAL_OUT, dstPriority, tidy(own)},
		{"postrouting", nftables.ChainTypeNAT, unix.NF_INET_POST_ROUTING, srcPriority, after},
	}
}

// multicast is never masqueraded.
func multicast(family netip.Addr) netip.Prefix {
	if family.Is6() {
		return netip.MustParsePrefix("ff00::/8")
	}
	return netip.MustParsePrefix("224.0.0.0/4")
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func parts(p ...[]expr.Any) [][]expr.Any { return p }

func join(p ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, more := range p {
		all = append(all, more...)
	}
	return all
}

// from and to match the IP header's source and destination, and its family.
func from(p netip.Prefix) []expr.Any { return join(ofFamily(p), inPrefix(p, false)) }
func to(p netip.Prefix) []expr.Any   { return join(ofFamily(p), inPrefix(p, true)) }

func in(device string) []expr.Any      { return onDevice(expr.MetaKeyIIFNAME, device) }
func leaving(device string) []expr.Any { return onDevice(expr.MetaKeyOIFNAME, device) }

// not turns the last comparison of a match around.
func not(match []expr.Any) []expr.Any {
	last := *match[len(match)-1].(*expr.Cmp)
	last.Op = expr.CmpOpNeq
	return append(match[:len(match)-1:len(match)-1], &last)
}

// kindOut matches the kind of the device that the packet leaves by; one without
// a kind, as a NIC, does not match whatever is compared.
func kindOut(kind string) []expr.Any {
	const oifKind = 27 // NFT_META_OIFKIND, linux/netfilter/nf_tables.h
	return onDevice(oifKind, kind)
}

// at matches what comes for an address of this host. For all of IPv6 that is
// without ::1: an answer to it from elsewhere than the loopback device reaches no
// socket, and IPv6 has nothing like IPv4's route_localnet.
func at(host netip.Addr) []expr.Any {
	if !host.IsUnspecified() {
		return to(single(host))
	}
	match := ofFamily(single(host))
	if host.Is6() {
		match = not(to(single(netip.IPv6Loopback())))
	}
	return append(match,
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(unix.RTN_LOCAL)})
}

// port matches a protocol and its destination port.
func port(p Protocol, number uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(p)}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, number)},
	}
}

// related matches what belongs to a connection that was let through.
func related() []expr.Any {
	return tracked(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

// translated matches what belongs to a connection led to another address.
func translated() []expr.Any {
	const dstNAT = 1 << 5 // IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h
	return tracked(expr.CtKeySTATUS, dstNAT)
}

func tracked(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(bits), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native(0)},
	}
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func accepted() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func dropped() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}

// masquerade gives the packet the address of the device it leaves by. Ports at
// random keep two connections that begin at once from choosing the same.
func masquerade(random bool) []expr.Any {
	return []expr.Any{&expr.Masq{FullyRandom: random}}
}

// lead sends the packet to a container.
func lead(to netip.AddrPort) []expr.Any {
	family := uint32(unix.NFPROTO_IPV4)
	if to.Addr().Is6() {
		family = unix.NFPROTO_IPV6
	}
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: to.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, to.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
	}
}
