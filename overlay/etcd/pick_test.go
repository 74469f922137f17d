package etcd

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/overlay"
)

func parseConfig(t testing.TB, text string) overlay.Config {
	t.Helper()
	c, err := overlay.ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Free subnets are those that overlap nothing, one by one.
func TestFreeSubnets(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		cfg := parseConfig(t, `{"Network":"10.5.0.0/20","SubnetLen":24,"SubnetMin":"10.5.2.0","SubnetMax":"10.5.13.0"}`)
		taken := []netip.Prefix{subnet("fd00::/64"), subnet("9.0.0.0/8"), subnet("10.6.0.0/16")}
		for range rng.IntN(12) {
			ip := netip.AddrFrom4([4]byte{10, 5, byte(rng.IntN(20)), byte(rng.IntN(256))})
			taken = append(taken, netip.PrefixFrom(ip, 21+rng.IntN(12)))
		}
		var want []netip.Prefix
		for p := range cfg.Subnets() {
			free := true
			for _, x := range taken {
				free = free && !p.Overlaps(x)
			}
			if free {
				want = append(want, p)
			}
		}
		gaps, n := ipv4Space(cfg).free(taken)
		if n != len(want) {
			t.Fatalf("%d free, want %v; taken %v", n, want, taken)
		}
		for i, p := range want {
			if got := cfg.Subnet(nth(gaps, i)); got != p {
				t.Fatalf("free subnet %d is %s, want %s; taken %v", i, got, p, taken)
			}
		}
	}
}

// Every free subnet can be picked, and no other, in a network of any size.
func TestPick(t *testing.T) {
	cfg := parseConfig(t, `{"Network":"10.5.0.0/16","SubnetMin":"10.5.16.0","SubnetMax":"10.5.23.0"}`)
	taken := []netip.Prefix{subnet("10.5.17.0/24"), subnet("10.5.20.0/24")}
	seen := map[netip.Prefix]bool{}
	for range 1000 {
		p, err := ipv4Space(cfg).pick(t.Context(), taken, nil)
		if err != nil || cfg.Fits(p) != nil || p == taken[0] || p == taken[1] {
			t.Fatalf("picked %s, %v", p, err)
		}
		seen[p] = true
	}
	if len(seen) != 6 {
		t.Errorf("picked only %v", seen)
	}
	// The one subnet that can be used is found.
	cfg = parseConfig(t, `{"Network":"10.5.0.0/16"}`)
	only := subnet("10.5.77.0/24")
	avoid := func(p netip.Prefix) error {
		if p != only {
			return errors.New("in use")
		}
		return nil
	}
	if p, err := ipv4Space(cfg).pick(t.Context(), nil, avoid); p != only {
		t.Errorf("picked %s, %v", p, err)
	}
	// So is one of a few at a stretch among many, wherever the search begins.
	wide := parseConfig(t, `{"Network":"10.0.0.0/8","SubnetLen":24}`)
	stretch := subnet("10.255.0.0/16")
	for range 2000 {
		p, err := ipv4Space(wide).pick(t.Context(), nil, func(p netip.Prefix) error {
			if !stretch.Overlaps(p) {
				return errors.New("in use")
			}
			return nil
		})
		if err != nil || !stretch.Overlaps(p) {
			t.Fatalf("picked %s, %v", p, err)
		}
	}
	if _, err := ipv4Space(cfg).pick(t.Context(), []netip.Prefix{only}, avoid); !errors.Is(err, overlay.ErrFull) {
		t.Errorf("error %v", err)
	}
	if _, err := ipv4Space(cfg).pick(t.Context(), []netip.Prefix{subnet("10.0.0.0/8")}, nil); !errors.Is(err, overlay.ErrFull) {
		t.Errorf("error %v", err)
	}
}

// TestPickAsksAll asks for as many subnets as it may, and for those of a larger
// network evenly.
func TestPickAsksAll(t *testing.T) {
	for _, free := range []int{1, 2, 300, obstacles - 1, obstacles, obstacles + 1, obstacles + 2, 600, 1000, 1026, 65535, 1 << 22} {
		asked := map[netip.Prefix]bool{}
		all := space{netip.MustParsePrefix("10.0.0.0/8"), free, func(i int) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		}}
		_, err := all.pick(t.Context(), nil, func(p netip.Prefix) error {
			asked[p] = true
			return errors.New("in use")
		})
		if !errors.Is(err, overlay.ErrFull) {
			t.Errorf("of %d: error %v", free, err)
		}
		var at []int
		for p := range asked {
			a := p.Addr().As4()
			at = append(at, int(a[1])<<16|int(a[2])<<8|int(a[3]))
		}
		slices.Sort(at)
		widest := free - at[len(at)-1] + at[0] // around the end
		for i := range at[1:] {
			widest = max(widest, at[i+1]-at[i])
		}
		if want := min(free, obstacles); len(at) < want || widest > (free+want-1)/want {
			t.Errorf("of %d: %d asked, at most %d from one to the next", free, len(at), widest)
		}
	}
}

// In a network with millions of subnets the search ends: one that is leased as
// a whole is known to be full at once, and one that a wide route is in the way of
// is given up.
func TestPickInVast(t *testing.T) {
	cfg := parseConfig(t, `{"Network":"10.0.0.0/8","SubnetLen":30,"EnableIPv6":true,"IPv6Network":"fd00::/8","IPv6SubnetLen":126}`)
	for _, c := range []struct {
		space space
		all   string
		half  string
	}{
		{ipv4Space(cfg), "0.0.0.0/0", "10.0.0.0/9"},
		{ipv6Space(cfg), "::/0", "fd00::/99"},
	} {
		if _, err := c.space.pick(t.Context(), []netip.Prefix{subnet(c.all)}, nil); !errors.Is(err, overlay.ErrFull) {
			t.Errorf("%s leased: %v", c.all, err)
		}
		half := subnet(c.half)
		if p, err := c.space.pick(t.Context(), []netip.Prefix{half}, nil); err != nil || half.Overlaps(p) || cfg.Fits(p) != nil {
			t.Errorf("%s leased: picked %s, %v", half, p, err)
		}
		asked := 0
		avoid := func(p netip.Prefix) error {
			asked++
			return errors.New("a route to " + p.String())
		}
		if _, err := c.space.pick(t.Context(), nil, avoid); !errors.Is(err, overlay.ErrFull) || !strings.Contains(err.Error(), "a route to ") || asked > 2*obstacles {
			t.Errorf("asked %d times: %v", asked, err)
		}
	}
}

// A key that is no lease of the network and leaves no subnet is named.
func TestFullForAKey(t *testing.T) {
	cfg := parseConfig(t, `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}`)
	four := held{key: "/n/subnets/10.0.0.0-8", lease: overlay.Lease{Subnet: subnet("10.0.0.0/8")}}
	six := held{key: "/n/subnets/10.5.1.0-24&::-0", lease: overlay.Lease{Subnet: subnet("10.5.1.0/24"), IPv6Subnet: subnet("::/0")}}
	elsewhere := held{key: "/n/subnets/10.6.0.0-24", lease: overlay.Lease{Subnet: subnet("10.6.0.0/24")}}
	harmless := held{key: "/n/subnets/10.5.0.0-24", lease: overlay.Lease{Subnet: subnet("10.5.0.0/24")}} // below SubnetMin
	for _, c := range []struct {
		all   []held
		claim overlay.Claim
		want  string
	}{
		{[]held{elsewhere, harmless, four}, claimOf(1), "SubnetLen is 24), and where no host uses it: etcdctl del '/n/subnets/10.0.0.0-8'"},
		{[]held{elsewhere, harmless, six}, dualOf(1), "IPv6SubnetLen is 64), and where no host uses it: etcdctl del '/n/subnets/10.5.1.0-24&::-0'"},
	} {
		_, err := decide(t.Context(), cfg, c.all, c.claim)
		if !errors.Is(err, overlay.ErrFull) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %s", err, c.want)
		}
	}
	if d, err := decide(t.Context(), cfg, []held{elsewhere, six}, claimOf(1)); err != nil || !d.create.subnet.IsValid() {
		t.Errorf("%+v, %v", d, err)
	}
}
