package plugin

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// maxPoolBits leaves a network at least four hosts with a few containers each,
// and maxPoolBits6 four hosts with a /64.
const (
	maxPoolBits  = 24
	maxPoolBits6 = 62
)

// maxPoolSpan is by how many bits an IPv6 pool's networks are longer than the
// pool at most: what is looked through for a free one has an end.
const maxPoolSpan = 16

// readPool reads NETWORK_POOL, as in base=10.128.0.0/9,size=16 with or without
// ,ipv6-base=fd00:80::/40,ipv6-size=56.
func readPool(s *Settings, value string) error {
	parts := map[string]string{}
	for part := range strings.SplitSeq(value, ",") {
		key, text, _ := strings.Cut(strings.TrimSpace(part), "=")
		if _, again := parts[key]; again {
			return fmt.Errorf("%s is given twice", key)
		}
		parts[key] = text
	}
	four, ok := poolPart(parts, "base", "size")
	if !ok || !four.base.Addr().Is4() || four.bits > maxPoolBits {
		return fmt.Errorf("give an IPv4 network and the length of the CIDRs in it, up to %d, such as base=10.128.0.0/9,size=16", maxPoolBits)
	}
	s.Pool = overlay.Pool{Base: four.base, Bits: four.bits}
	if len(parts) == 2 {
		return nil
	}
	six, ok := poolPart(parts, "ipv6-base", "ipv6-size")
	if !ok || len(parts) != 4 || !six.base.Addr().Is6() || six.base.Addr().Is4In6() || six.bits > maxPoolBits6 || six.bits-six.base.Bits() > maxPoolSpan {
		return fmt.Errorf("after base and size give nothing, or an IPv6 network and the length of the CIDRs in it, up to %d and at most %d more than the network's, such as ipv6-base=fd00:80::/40,ipv6-size=56",
			maxPoolBits6, maxPoolSpan)
	}
	s.Pool.IPv6Base, s.Pool.IPv6Bits = six.base, six.bits
	return nil
}

// poolRange is one family's part of a pool.
type poolRange struct {
	base netip.Prefix
	bits int
}

func poolPart(parts map[string]string, base, size string) (r poolRange, ok bool) {
	p, err := netip.ParsePrefix(parts[base])
	if err != nil {
		return r, false
	}
	bits, err := strconv.Atoi(parts[size])
	return poolRange{p.Masked(), bits}, err == nil && p.Bits() <= bits
}
