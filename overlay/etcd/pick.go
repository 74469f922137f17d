package etcd

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sort"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// probes is how many free subnets are tried at random before others are tried in
// order. Hosts that join at the same moment rarely try the same one.
const probes = 16

// obstacles is how many subnets this host may have something in the way of before
// the search ends: to look costs a millisecond, and one wide route can be in the
// way of all 65,535. In a larger network these are spread over all of it.
const obstacles = 512

// space is one family's subnets that a network can lease, by their number.
type space struct {
	network netip.Prefix
	count   int
	at      func(int) netip.Prefix
}

func ipv4Space(cfg overlay.Config) space { return space{cfg.Network, cfg.Count(), cfg.Subnet} }

func ipv6Space(cfg overlay.Config) space {
	return space{cfg.IPv6Network, cfg.CountIPv6(), cfg.IPv6Subnet}
}

// pick chooses a subnet that overlaps none of taken and that avoid (which may
// be nil) has nothing against. It returns ErrFull where none is found. What it
// costs grows with taken, not with the network.
func (s space) pick(ctx context.Context, taken []netip.Prefix, avoid func(netip.Prefix) error) (netip.Prefix, error) {
	gaps, free := s.free(taken)
	if free == 0 {
		return netip.Prefix{}, fmt.Errorf("%w: all %d of %s are leased; remove the Docker network from a host that can do without it", overlay.ErrFull, s.count, s.network)
	}
	if avoid == nil {
		return s.at(nth(gaps, rand.IntN(free))), nil
	}
	var reason error
	start, n := rand.IntN(free), min(free, obstacles) // n of them evenly spread: what is in the way is so at a stretch
	for try := range probes + n {
		i := rand.IntN(free)
		if k := try - probes; k >= 0 {
			i = (start + k*(free/n) + k*(free%n)/n) % free
		}
		if err := ctx.Err(); err != nil {
			return netip.Prefix{}, err
		}
		p := s.at(nth(gaps, i))
		if reason = avoid(p); reason == nil {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("%w that this host can use: %d of %s are not leased, but for instance: %w",
		overlay.ErrFull, free, s.network, reason)
}

// span is a run of subnets by their number, to not included.
type span struct{ from, to int }

// free returns the runs of subnets that overlap none of taken, and how many
// subnets they hold.
func (s space) free(taken []netip.Prefix) (gaps []span, free int) {
	used := make([]span, 0, len(taken))
	for _, p := range taken {
		if u, ok := s.covered(p); ok {
			used = append(used, u)
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
	for _, u := range used {
		add(u.from)
		next = max(next, u.to)
	}
	add(s.count)
	return gaps, free
}

// covered returns the subnets that p overlaps, false for none.
func (s space) covered(p netip.Prefix) (span, bool) {
	p = p.Masked()
	if p.Addr().BitLen() != s.network.Addr().BitLen() {
		return span{}, false
	}
	from := sort.Search(s.count, func(i int) bool {
		subnet := s.at(i)
		return subnet.Overlaps(p) || p.Addr().Less(subnet.Addr())
	})
	to := from + sort.Search(s.count-from, func(i int) bool { return !s.at(from + i).Overlaps(p) })
	return span{from, to}, from < to
}

// nth returns the i-th subnet of the gaps, i less than what they hold.
func nth(gaps []span, i int) int {
	for i >= gaps[0].to-gaps[0].from {
		i -= gaps[0].to - gaps[0].from
		gaps = gaps[1:]
	}
	return gaps[0].from + i
}

// twin is the IPv6 subnet with the same number as an IPv4 one, since people read
// them side by side; zero for none.
func twin(cfg overlay.Config, subnet netip.Prefix) netip.Prefix {
	number, ok := ipv4Space(cfg).covered(subnet)
	if !ok || number.from >= cfg.CountIPv6() {
		return netip.Prefix{}
	}
	return cfg.IPv6Subnet(number.from)
}
