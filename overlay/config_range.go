package overlay

import (
	"fmt"
	"net/netip"
)

// family holds what differs between the IPv4 and the IPv6 half of a config.
type family struct {
	name    string
	prefix  string // of the config's field names
	example string
	maxLen  int // the longest subnet, with room for a device and a bridge
	share   int // the default subnet length, where the network is large enough
}

var (
	ipv4 = family{name: "IPv4", example: "an IPv4 network such as 10.5.0.0/16", maxLen: 30, share: 24}
	ipv6 = family{name: "IPv6", prefix: "IPv6", example: "an IPv6 network such as fd00:5::/48", maxLen: 126, share: 64}
)

// subnetRange is one family's half of a config.
type subnetRange struct {
	network  netip.Prefix
	bits     int // length of a subnet
	min, max netip.Addr
}

func (f family) field(name string) string { return f.prefix + name }

func (f family) owns(ip netip.Addr) bool {
	if f.prefix == "" {
		return ip.Is4()
	}
	return ip.Is6() && !ip.Is4In6() && ip.Zone() == ""
}

// parse reads one family's fields and fills in the defaults: the first subnet
// is left out, since a device with the network's own address confuses hosts.
func (f family) parse(network string, bits int, first, last string) (subnetRange, error) {
	var r subnetRange
	var err error
	if r.network, err = f.parseNetwork(network); err != nil {
		return r, err
	}
	if r.bits, err = f.parseLen(r.network, bits); err != nil {
		return r, err
	}
	n := r.network.Bits()
	if r.min, err = f.parseBound(r, "SubnetMin", first, setBits(r.network.Addr(), r.bits-1, r.bits)); err != nil {
		return r, err
	}
	if r.max, err = f.parseBound(r, "SubnetMax", last, setBits(r.network.Addr(), n, r.bits)); err != nil {
		return r, err
	}
	if r.max.Less(r.min) {
		return r, fmt.Errorf("%s %s is below %s %s: the same or a higher address is accepted",
			f.field("SubnetMax"), r.max, f.field("SubnetMin"), r.min)
	}
	return r, nil
}

func (f family) parseNetwork(text string) (netip.Prefix, error) {
	name := f.field("Network")
	if text == "" {
		return netip.Prefix{}, fmt.Errorf("%s is missing: %s is accepted", name, f.example)
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || !f.owns(p.Addr()) || p.Bits() == 0 {
		return netip.Prefix{}, fmt.Errorf("%s %q: %s is accepted", name, text, f.example)
	}
	// A network holds at least four subnets, of which the first is not used.
	if p.Bits() > f.maxLen-2 {
		return netip.Prefix{}, fmt.Errorf("%s %q is too small: /%d or larger is accepted", name, text, f.maxLen-2)
	}
	return p.Masked(), nil
}

func (f family) parseLen(network netip.Prefix, bits int) (int, error) {
	least := network.Bits() + 2
	if bits == 0 {
		return max(f.share, least), nil
	}
	if bits < least || bits > f.maxLen {
		return 0, fmt.Errorf("%s %d: %d to %d is accepted for %s %s, which must hold four subnets",
			f.field("SubnetLen"), bits, least, f.maxLen, f.field("Network"), network)
	}
	return bits, nil
}

func (f family) parseBound(r subnetRange, name, text string, fallback netip.Addr) (netip.Addr, error) {
	if text == "" {
		return fallback, nil
	}
	name = f.field(name)
	ip, err := netip.ParseAddr(text)
	if err != nil || !f.owns(ip) {
		return netip.Addr{}, fmt.Errorf("%s %q: an %s address of %s is accepted", name, text, f.name, r.network)
	}
	if ip.IsUnspecified() { // flannel's zero value
		return fallback, nil
	}
	if !r.network.Contains(ip) {
		return netip.Addr{}, fmt.Errorf("%s %s: an address of %s is accepted", name, ip, r.network)
	}
	if boundary := netip.PrefixFrom(ip, r.bits).Masked().Addr(); boundary != ip {
		return netip.Addr{}, fmt.Errorf("%s %s: an address on a /%d boundary such as %s is accepted",
			name, ip, r.bits, boundary)
	}
	return ip, nil
}

// setBits returns ip with the bits from (counted from the left) up to, but not
// including, to set.
func setBits(ip netip.Addr, from, to int) netip.Addr {
	b := ip.AsSlice()
	for i := from; i < to; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	ip, _ = netip.AddrFromSlice(b)
	return ip
}
