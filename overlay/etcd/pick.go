package etcd

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// probes is how many free subnets are tried at random before all are tried in
// order. Hosts that join at the same moment rarely try the same one.
const probes = 16

// pick chooses a subnet that overlaps none of taken and that avoid (which may
// be nil) has nothing against. It returns ErrFull where there is none.
func pick(ctx context.Context, cfg overlay.Config, taken []netip.Prefix, avoid func(netip.Prefix) error) (netip.Prefix, error) {
	gaps, free := freeSubnets(cfg, taken)
	if free == 0 {
		return netip.Prefix{}, fmt.Errorf("%w: all %d of %s are leased; remove the Docker network from a host that can do without it", overlay.ErrFull, cfg.Count(), cfg.Network)
	}
	if avoid == nil {
		return cfg.Subnet(nth(gaps, rand.IntN(free))), nil
	}
	var reason error
	try := func(i int) (netip.Prefix, bool) {
		p := cfg.Subnet(nth(gaps, i%free))
		err := avoid(p)
		if err != nil {
			reason = err
		}
		return p, err == nil
	}
	for range min(probes, free) {
		if p, ok := try(rand.IntN(free)); ok {
			return p, nil
		}
	}
	start := rand.IntN(free)
	for i := range free {
		if err := ctx.Err(); err != nil {
			return netip.Prefix{}, err
		}
		if p, ok := try(start + i); ok {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("%w that this host can use: %d of %s are not leased, but for instance: %w",
		overlay.ErrFull, free, cfg.Network, reason)
}

// obstacles is how many subnets this host may have something in the way of before
// the search ends: to look costs a millisecond, and one wide route can be in the
// way of all 65,535.
const obstacles = 512

// pickIPv6 chooses the IPv6 subnet to go with an IPv4 one: the one with the same
// number where it is free, since people read them side by side, and else any.
func pickIPv6(ctx context.Context, cfg overlay.Config, all []held, claim overlay.Claim, subnet netip.Prefix) (netip.Prefix, error) {
	count := cfg.CountIPv6()
	var reason error
	avoided := 0
	try := func(i int) (netip.Prefix, bool) {
		p := cfg.IPv6Subnet(i)
		if holder(all, p) != nil {
			return p, false
		}
		if claim.Avoid != nil {
			if err := claim.Avoid(p); err != nil {
				reason = err
				avoided++
				return p, false
			}
		}
		return p, true
	}
	if s, ok := covered(cfg, subnet); ok && s.from < count {
		if p, ok := try(s.from); ok {
			return p, nil
		}
	}
	for range min(probes, count) {
		if p, ok := try(rand.IntN(count)); ok {
			return p, nil
		}
	}
	for i := range count {
		if err := ctx.Err(); err != nil {
			return netip.Prefix{}, err
		}
		if avoided == obstacles {
			break
		}
		if p, ok := try(i); ok {
			return p, nil
		}
	}
	err := fmt.Errorf("%w: all %d of %s are leased; remove the Docker network from a host that can do without it", overlay.ErrFull, count, cfg.IPv6Network)
	if reason != nil {
		err = fmt.Errorf("%w that this host can use in %s, for instance: %w", overlay.ErrFull, cfg.IPv6Network, reason)
	}
	return netip.Prefix{}, err
}

// span is a run of subnets by their number in the config, to not included.
type span struct{ from, to int }

// freeSubnets returns the runs of subnets that overlap none of taken, and how
// many subnets they hold.
func freeSubnets(cfg overlay.Config, taken []netip.Prefix) (gaps []span, free int) {
	used := make([]span, 0, len(taken))
	for _, p := range taken {
		if s, ok := covered(cfg, p); ok {
			used = append(used, s)
		}
	}
	slices.SortFunc(used, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	next := 0
	add := func(to int) {
		if next < to {
			gaps = append(gaps, span{next, to})
			free += to - next
		}
	}
	for _, s := range used {
		add(s.from)
		next = max(next, s.to)
	}
	add(cfg.Count())
	return gaps, free
}

// covered returns the config's subnets that p overlaps, false for none.
func covered(cfg overlay.Config, p netip.Prefix) (span, bool) {
	if !cfg.EnableIPv4 || !p.Addr().Is4() {
		return span{}, false
	}
	step := int64(1) << (32 - cfg.SubnetLen)
	base := number(cfg.SubnetMin)
	first := number(p.Masked().Addr())
	last := first + int64(1)<<(32-p.Bits()) - 1
	if last < base || first >= base+int64(cfg.Count())*step {
		return span{}, false
	}
	from := max(first-base, 0) / step
	to := min((last-base)/step+1, int64(cfg.Count()))
	return span{int(from), int(to)}, true
}

func number(ip netip.Addr) int64 {
	b := ip.As4()
	return int64(binary.BigEndian.Uint32(b[:]))
}

// nth returns the i-th subnet of the gaps, i less than what they hold.
func nth(gaps []span, i int) int {
	for i >= gaps[0].to-gaps[0].from {
		i -= gaps[0].to - gaps[0].from
		gaps = gaps[1:]
	}
	return gaps[0].from + i
}
