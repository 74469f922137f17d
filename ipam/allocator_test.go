package ipam

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func addr(text string) netip.Addr     { return netip.MustParseAddr(text) }
func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func newAllocator(t testing.TB, subnet string) *Allocator {
	t.Helper()
	a, err := NewAllocator(prefix(subnet))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// step is one call and its outcome: an address with a star if it was free
// before, or an error's text.
type step struct{ call, arg, owner, want string }

func (s step) run(a *Allocator) string {
	var got netip.Addr
	var fresh bool
	var err error
	switch s.call {
	case "take":
		got, fresh, err = a.Take(s.owner)
	case "exact":
		got = addr(s.arg)
		fresh, err = a.TakeExact(got, s.owner)
	case "release":
		return fmt.Sprint(a.Release(addr(s.arg)))
	}
	if err != nil {
		return err.Error()
	}
	if fresh {
		return got.String() + "*"
	}
	return got.String()
}

func TestAllocator(t *testing.T) {
	for _, tt := range []struct {
		name, subnet string
		steps        []step
	}{
		{"in turn, released ones last", "10.5.7.0/29", []step{
			{"take", "", "a", "10.5.7.2*"},
			{"take", "", "b", "10.5.7.3*"},
			{"release", "10.5.7.2", "", "true"},
			{"take", "", "c", "10.5.7.4*"},
			{"take", "", "d", "10.5.7.5*"},
			{"release", "10.5.7.4", "", "true"},
			{"take", "", "e", "10.5.7.6*"},
			{"take", "", "f", "10.5.7.2*"},
			{"take", "", "g", "10.5.7.4*"},
			{"take", "", "h", "subnet 10.5.7.0/29: no address is free, all 5 are in use; remove a container from this network, or give every host a larger subnet"},
			{"release", "10.5.7.3", "", "true"},
			{"take", "", "h", "10.5.7.3*"},
		}},
		{"smallest subnet", "10.5.7.0/30", []step{
			{"take", "", "a", "10.5.7.2*"},
			{"take", "", "b", "subnet 10.5.7.0/30: no address is free, all 1 are in use; remove a container from this network, or give every host a larger subnet"},
			{"take", "", "a", "10.5.7.2"},
			{"release", "10.5.7.2", "", "true"},
			{"release", "10.5.7.2", "", "false"},
			{"take", "", "b", "10.5.7.2*"},
		}},
		{"largest subnet", "10.0.0.0/8", []step{
			{"take", "", "", "10.0.0.2*"},
			{"exact", "10.255.255.254", "", "10.255.255.254*"},
			{"exact", "10.255.255.255", "", "address 10.255.255.255: reserved, it is the broadcast address of 10.0.0.0/8; choose one from 10.0.0.2 to 10.255.255.254"},
			{"take", "", "", "10.0.0.3*"},
		}},
		{"an owner keeps its address", "10.5.7.0/24", []step{
			{"take", "", "a", "10.5.7.2*"},
			{"take", "", "a", "10.5.7.2"},
			{"release", "10.5.7.2", "", "true"},
			{"take", "", "b", "10.5.7.3*"},
			{"take", "", "a", "10.5.7.2*"},
			{"release", "10.5.7.2", "", "true"},
			{"exact", "10.5.7.2", "c", "10.5.7.2*"},
			{"take", "", "a", "10.5.7.4*"},
		}},
		{"the address held last counts", "10.5.7.0/24", []step{
			{"exact", "10.5.7.9", "a", "10.5.7.9*"},
			{"release", "10.5.7.9", "", "true"},
			{"exact", "10.5.7.5", "a", "10.5.7.5*"},
			{"release", "10.5.7.5", "", "true"},
			{"take", "", "a", "10.5.7.5*"},
			{"take", "", "a", "10.5.7.5"},
		}},
		{"nobody has no memory", "10.5.7.0/24", []step{
			{"take", "", "", "10.5.7.2*"},
			{"take", "", "", "10.5.7.3*"},
			{"release", "10.5.7.2", "", "true"},
			{"take", "", "", "10.5.7.4*"},
		}},
		{"exact addresses", "10.5.7.0/24", []step{
			{"exact", "10.5.7.3", "a", "10.5.7.3*"},
			{"exact", "10.5.7.3", "a", "10.5.7.3"},
			{"exact", "10.5.7.3", "b", "address 10.5.7.3: in use on this host already, by a; choose another"},
			{"exact", "10.5.7.3", "", "address 10.5.7.3: in use on this host already, by a; choose another"},
			{"exact", "10.5.7.4", "", "10.5.7.4*"},
			{"exact", "10.5.7.4", "", "address 10.5.7.4: in use on this host already; choose another"},
			{"exact", "10.5.7.0", "a", "address 10.5.7.0: reserved, it is the network address of 10.5.7.0/24; choose one from 10.5.7.2 to 10.5.7.254"},
			{"exact", "10.5.7.1", "a", "address 10.5.7.1: reserved, it is the gateway address of 10.5.7.0/24; choose one from 10.5.7.2 to 10.5.7.254"},
			{"exact", "10.5.7.255", "a", "address 10.5.7.255: reserved, it is the broadcast address of 10.5.7.0/24; choose one from 10.5.7.2 to 10.5.7.254"},
			{"exact", "10.5.8.3", "a", "address 10.5.8.3: outside this host's subnet 10.5.7.0/24; choose one from 10.5.7.2 to 10.5.7.254"},
			{"exact", "fd00::3", "a", "address fd00::3: outside this host's subnet 10.5.7.0/24; choose one from 10.5.7.2 to 10.5.7.254"},
			{"release", "10.5.7.1", "", "false"},
			{"take", "", "", "10.5.7.2*"},
			{"take", "", "", "10.5.7.5*"},
		}},
		{"IPv6 has no broadcast address", "fd00:5::8/126", []step{
			{"take", "", "a", "fd00:5::a*"},
			{"take", "", "b", "fd00:5::b*"},
			{"take", "", "c", "subnet fd00:5::8/126: no address is free, all 2 are in use; remove a container from this network, or give every host a larger subnet"},
			{"exact", "fd00:5::9", "c", "address fd00:5::9: reserved, it is the gateway address of fd00:5::8/126; choose one from fd00:5::a to fd00:5::b"},
			{"release", "fd00:5::a", "", "true"},
			{"take", "", "c", "fd00:5::a*"},
		}},
		{"IPv6 of the usual size", "fd00:5:0:7::/64", []step{
			{"exact", "fd00:5:0:7:1234::1", "a", "fd00:5:0:7:1234::1*"},
			{"take", "", "b", "fd00:5:0:7::2*"},
			{"release", "fd00:5:0:7::2", "", "true"},
			{"take", "", "c", "fd00:5:0:7::3*"},
			{"take", "", "b", "fd00:5:0:7::2*"},
			{"exact", "fd00:5:0:7::", "d", "address fd00:5:0:7::: reserved, it is the network address of fd00:5:0:7::/64; choose one from fd00:5:0:7::2 to fd00:5:0:7:ffff:ffff:ffff:ffff"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAllocator(t, tt.subnet)
			for i, s := range tt.steps {
				if got := s.run(a); got != s.want {
					t.Errorf("step %d, %s %s %q:\n got %s\nwant %s", i, s.call, s.arg, s.owner, got, s.want)
				}
			}
		})
	}
}

func TestNewAllocatorErrors(t *testing.T) {
	for _, p := range []netip.Prefix{{}, prefix("10.5.7.0/31"), prefix("10.5.7.2/32"), prefix("10.0.0.0/7"), prefix("10.5.7.1/24"), prefix("fd00::/127"), prefix("fc00::/7"), prefix("::ffff:10.5.7.0/120")} {
		if _, err := NewAllocator(p); err == nil {
			t.Errorf("%s: no error", p)
		}
	}
}

// model is the allocator as plainly as it can be said: every free address
// stands in one queue.
type model struct {
	free  []netip.Addr
	held  map[netip.Addr]string
	owned map[netip.Addr]string // last owner of free addresses
}

func newModel(subnet netip.Prefix) *model {
	m := &model{held: map[netip.Addr]string{}, owned: map[netip.Addr]string{}}
	for a := subnet.Addr().Next().Next(); subnet.Contains(a.Next()); a = a.Next() {
		m.free = append(m.free, a)
	}
	return m
}

func (m *model) hold(i int, owner string) string {
	a := m.free[i]
	m.free = slices.Delete(m.free, i, i+1)
	m.held[a] = owner
	delete(m.owned, a)
	return a.String() + "*"
}

func (m *model) take(owner string) string {
	var mine []netip.Addr
	for a, o := range m.held {
		if owner != "" && o == owner {
			mine = append(mine, a)
		}
	}
	if len(mine) > 0 {
		return slices.MinFunc(mine, netip.Addr.Compare).String()
	}
	if len(m.free) == 0 {
		return "full"
	}
	for i, a := range slices.Backward(m.free) {
		if owner != "" && m.owned[a] == owner {
			return m.hold(i, owner)
		}
	}
	return m.hold(0, owner)
}

func (m *model) exact(a netip.Addr, owner string) string {
	if o, ok := m.held[a]; ok && o != "" && o == owner {
		return a.String()
	}
	if i := slices.Index(m.free, a); i >= 0 {
		return m.hold(i, owner)
	}
	return "refused"
}

func (m *model) release(a netip.Addr) string {
	owner, ok := m.held[a]
	if ok {
		delete(m.held, a)
		m.free = append(m.free, a)
		m.owned[a] = owner
	}
	return fmt.Sprint(ok)
}

// The allocator does what the model does, over restarts too, for any calls.
func TestAllocatorAgainstModel(t *testing.T) {
	subnets := []string{"10.5.7.0/30", "10.5.7.8/29", "10.5.7.240/28", "10.5.7.0/26"}
	owners := []string{"", "", "a", "b", "c", "d", "e", "f", "g", "h"}
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		subnet := prefix(subnets[seed%4])
		a, m := newAllocator(t, subnet.String()), newModel(subnet)
		size := 1 << (32 - subnet.Bits())
		for i := range 400 {
			s := step{call: []string{"take", "take", "exact", "release", "release"}[rnd.IntN(5)], owner: owners[rnd.IntN(len(owners))]}
			target := subnet.Addr()
			for range rnd.IntN(size + 1) { // one past the end included
				target = target.Next()
			}
			s.arg = target.String()
			want := ""
			switch s.call {
			case "take":
				want = m.take(s.owner)
			case "exact":
				want = m.exact(target, s.owner)
			case "release":
				want = m.release(target)
			}
			got := s.run(a)
			if failed := want == "full" || want == "refused"; failed && len(got) > len("255.255.255.255*") {
				got = want
			}
			if got != want {
				t.Fatalf("seed %d, call %d, %s %s %q: got %s, want %s", seed, i, s.call, s.arg, s.owner, got, want)
			}
			if a.Used() != len(m.held) || a.Free() != len(m.free) {
				t.Fatalf("seed %d, call %d: %d used, %d free, want %d, %d", seed, i, a.Used(), a.Free(), len(m.held), len(m.free))
			}
			if rnd.IntN(10) == 0 {
				a = again(t, a)
			}
		}
	}
}

// In a subnet too large to remember every address, a released one still rests
// for many releases, and the search wraps round.
func TestLargeSubnet(t *testing.T) {
	a := newAllocator(t, "10.5.0.0/20")
	released := map[netip.Addr]int{}
	var held []netip.Addr
	for i := range 20_000 {
		got, fresh, err := a.Take(fmt.Sprint("owner", i))
		if err != nil || !fresh || slices.Contains(held, got) {
			t.Fatalf("call %d: %s, %t, %v", i, got, fresh, err)
		}
		if at, ok := released[got]; ok && i-at < memory {
			t.Fatalf("call %d: %s comes again after %d releases", i, got, i-at)
		}
		held = append(held, got)
		if len(held) > 100 {
			a.Release(held[0])
			released[held[0]] = i
			held = held[1:]
		}
	}
	if len(a.State().Resting) != memory || a.Used() != 100 {
		t.Errorf("%d rest, %d used", len(a.State().Resting), a.Used())
	}
	again(t, a)
}

func BenchmarkTakeRelease(b *testing.B) {
	for _, used := range []int{10, 200, 252} {
		b.Run(fmt.Sprintf("used=%d", used), func(b *testing.B) {
			a := newAllocator(b, "10.5.7.0/24")
			for range used {
				if _, _, err := a.Take(""); err != nil {
					b.Fatal(err)
				}
			}
			for i := 0; b.Loop(); i++ {
				got, _, err := a.Take(fmt.Sprint("owner", i))
				if err != nil {
					b.Fatal(err)
				}
				a.Release(got)
			}
		})
	}
}
