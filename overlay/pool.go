package overlay

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
)

// Pool is where new networks take their CIDRs from.
type Pool struct {
	Base netip.Prefix
	Bits int // of every network's CIDR
	// IPv6Base and IPv6Bits are the same of IPv6; zero where networks are made
	// with IPv4 alone.
	IPv6Base netip.Prefix
	IPv6Bits int
}

// fours is the pool's IPv4 part as the setting NETWORK_POOL has it.
func (p Pool) fours() string { return fmt.Sprintf("base=%s,size=%d", p.Base, p.Bits) }

// String is the pool as the setting NETWORK_POOL has it.
func (p Pool) String() string {
	text := p.fours()
	if p.IPv6Base.IsValid() {
		text += fmt.Sprintf(",ipv6-base=%s,ipv6-size=%d", p.IPv6Base, p.IPv6Bits)
	}
	return text
}

// ipv6 is the first IPv6 CIDR of the pool that is free for a new network.
func (o *Overlay) ipv6(name string, others map[string]Config) (netip.Prefix, error) {
	return o.firstFree(o.opt.Pool.IPv6Base, o.opt.Pool.IPv6Bits, name, others)
}

// obstacles is how many CIDRs in a row this host may have something in the way of:
// to look costs a millisecond, and one wide route can be in the way of them all.
const obstacles = 512

// firstFree is the first CIDR of this length in base that no other network and
// nothing on this host has.
func (o *Overlay) firstFree(base netip.Prefix, bits int, name string, others map[string]Config) (netip.Prefix, error) {
	var why error
	inTheWay := 0
	for p := range cidrs(base, bits) {
		if _, taken := overlapping(p, others); taken {
			continue
		}
		if why = o.free(p); why == nil {
			return p, nil
		}
		if inTheWay++; inTheWay == obstacles {
			break
		}
	}
	none, hint := "CIDR", "give it one with --subnet"
	if base.Addr().Is6() {
		none, hint = "IPv6 CIDR", "give the setting a larger ipv6-base"
	}
	return netip.Prefix{}, errors.Join(fmt.Errorf("the setting NETWORK_POOL (%s) has no %s left for %s: %s", o.opt.Pool, none, title(name), hint), why)
}

// dockers are the pools from which an engine takes the subnets of its own
// networks, unless its daemon.json says otherwise.
var dockers = []netip.Prefix{
	netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("172.18.0.0/15"),
	netip.MustParsePrefix("172.20.0.0/14"), netip.MustParsePrefix("172.24.0.0/13"),
	netip.MustParsePrefix("192.168.0.0/16"),
}

// free tells why a CIDR of the pool is not: this host or Docker has other plans.
func (o *Overlay) free(p netip.Prefix) error {
	for _, d := range dockers {
		if d.Overlaps(p) {
			return fmt.Errorf("%s overlaps %s, from which Docker takes subnets for networks of its own", p, d)
		}
	}
	return o.avoid(p)
}

// cidrs yields base's parts of this length in order.
func cidrs(base netip.Prefix, bits int) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		p := netip.PrefixFrom(base.Masked().Addr(), bits)
		for base.Overlaps(p) && yield(p) {
			next := following(p)
			if !p.Addr().Less(next.Addr()) {
				return // the family's last one
			}
			p = next
		}
	}
}

// following is the next prefix of the same length; the first after the last.
func following(p netip.Prefix) netip.Prefix {
	b := p.Addr().AsSlice()
	for bit := p.Bits() - 1; bit >= 0; bit-- {
		b[bit/8] ^= 0x80 >> (bit % 8)
		if b[bit/8]&(0x80>>(bit%8)) != 0 {
			break // nothing to carry
		}
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(addr, p.Bits())
}
