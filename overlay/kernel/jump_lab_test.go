//go:build lab

package kernel

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestJump goes through random states in random order, sometimes with
// somebody else's interference: after each Apply a fresh read finds just what
// is wanted, and Watch finds nothing to doubt.
func TestJump(t *testing.T) {
	const seed, jumps = 7, 100
	h := newHost(t)
	h.sh("iptables-nft -N DOCKER-USER")
	h.watch()
	random := rand.New(rand.NewPCG(seed, seed))
	var last State
	for i := range jumps {
		want := randomState(random)
		if random.IntN(4) == 0 {
			want.Neighs, want.FDB, want.Routes = last.Neighs, last.FDB, last.Routes
			want = consistent(want)
		}
		if random.IntN(10) == 0 {
			h.k.Doubt()
		}
		got := h.apply(want)
		if len(got.Repaired) != 0 {
			t.Errorf("jump %d repaired %v", i, got.Repaired)
		}
		h.expect(want)
		h.quiet()
		if t.Failed() {
			t.Fatalf("jump %d, from\n%s\nto\n%s", i, last, want)
		}
		last = want
	}
}

// some is true one time in n.
func some(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

func randomState(r *rand.Rand) State {
	var s State
	mtu := 1300 + 50*r.IntN(3)
	for i := range 1 + r.IntN(3) {
		name := fmt.Sprintf("fl-%d", i)
		if some(r, 3) {
			continue
		}
		s.Links = append(s.Links, Link{Name: name, MAC: MAC{2, 1, byte(i), 0, 0, byte(r.IntN(2))}, MTU: mtu})
		s.Addrs = append(s.Addrs, Addr{name, netip.MustParsePrefix(fmt.Sprintf("10.%d.1.%d/24", 100+i, 1+r.IntN(3)))})
		s.Sysctls = append(s.Sysctls, Sysctl{"ipv6/conf/" + name + "/disable_ipv6", fmt.Sprint(r.IntN(2))})
		if some(r, 2) {
			s.Guards = append(s.Guards, name)
			s.Forwards = append(s.Forwards, Forward{In: name, Out: name}, Forward{In: name, Dst: netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", 100+r.IntN(3)))})
		}
		for j := range r.IntN(4) {
			id := 10*i + j
			s.Veths = append(s.Veths, Veth{
				Name: fmt.Sprint("flv", id), Peer: fmt.Sprint("flp", id), Master: name,
				MAC: MAC{2, 3, byte(id), 0, 0, byte(r.IntN(2))}, MTU: mtu, Create: true,
			})
		}
	}
	for i := range 3 {
		if some(r, 2) {
			continue
		}
		name := fmt.Sprint("flannel.", i+1)
		port := []int{8472, 8473, 4789}[r.IntN(3)]
		s.Links = append(s.Links, Link{Name: name, MAC: MAC{2, 2, byte(i), 0, 0, byte(r.IntN(2))}, MTU: mtu, VXLAN: VXLAN{
			VNI: i + 1, Port: port, Local: netip.MustParseAddr("10.0.0.1"), Dev: "eth0", Learning: some(r, 4),
			GBP: port == 4789, // devices with and without cannot share a port
		}})
		s.Addrs = append(s.Addrs, Addr{name, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/32", 110+i, r.IntN(2)))})
		for j := range r.IntN(20) {
			ip := netip.MustParseAddr(fmt.Sprintf("10.%d.%d.0", 120+i, j))
			mac := MAC{2, 4, byte(i), byte(j), 0, byte(r.IntN(2))}
			s.Neighs = append(s.Neighs, Neigh{name, ip, mac})
			s.FDB = append(s.FDB, FDB{name, mac, netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", 2+r.IntN(9)))})
			s.Routes = append(s.Routes, Route{Dst: netip.PrefixFrom(ip, 24), Via: ip, Link: name, OnLink: true})
			six := netip.MustParseAddr(fmt.Sprintf("fd00:%d:%d::", i, j))
			s.Neighs = append(s.Neighs, Neigh{name, six, mac})
			s.Routes = append(s.Routes, Route{Dst: netip.PrefixFrom(six, 64), Via: six, Link: name, OnLink: true})
		}
	}
	for j := range r.IntN(9) {
		s.Routes = append(s.Routes, Route{
			Dst: netip.MustParsePrefix(fmt.Sprintf("10.130.%d.0/24", j)), Link: "eth0",
			Via: netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", 2+r.IntN(5))), OnLink: some(r, 3),
		})
	}
	return s
}

// consistent leaves out the entries whose device is not wanted.
func consistent(s State) State {
	links := map[string]bool{"eth0": true}
	for _, l := range s.Links {
		links[l.Name] = true
	}
	for _, n := range s.Neighs {
		if !links[n.Link] {
			s.Neighs, s.FDB, s.Routes = nil, nil, nil
			break
		}
	}
	return s
}
