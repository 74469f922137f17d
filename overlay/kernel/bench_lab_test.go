//go:build lab

package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
)

// BenchmarkPeers programs peers into a fresh kernel, and then asks what one
// more container costs, what nothing costs, and what reading all of it costs.
func BenchmarkPeers(b *testing.B) {
	for _, n := range []int{2, 1000, 5000} {
		b.Run(fmt.Sprintf("cold/%d", n), func(b *testing.B) {
			h := newHost(b)
			base := example(n)
			base.Neighs, base.FDB, base.Routes = nil, nil, nil
			for b.Loop() {
				b.StopTimer()
				h.apply(base)
				want := example(n)
				b.StartTimer()
				h.apply(want)
			}
		})
		b.Run(fmt.Sprintf("veth/%d", n), func(b *testing.B) {
			h := newHost(b)
			h.watch()
			want := example(n)
			h.apply(want)
			h.quiet()
			for b.Loop() {
				more := want
				more.Veths = append(slices.Clone(want.Veths), Veth{Name: "flv2", Peer: "flp2", Master: "fl-blue", MTU: 1450, Create: true})
				h.apply(more)
				b.StopTimer()
				h.apply(want)
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("nothing/%d", n), func(b *testing.B) {
			h := newHost(b)
			want := example(n)
			h.apply(want)
			for b.Loop() {
				h.apply(want)
			}
		})
		b.Run(fmt.Sprintf("join/%d", n), func(b *testing.B) {
			h := newHost(b)
			less, more := example(n), example(n+1)
			h.apply(less)
			for b.Loop() {
				h.apply(more)
				b.StopTimer()
				h.apply(less)
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("reread/%d", n), func(b *testing.B) {
			h := newHost(b)
			want := example(n)
			h.apply(want)
			for b.Loop() {
				h.k.Doubt()
				h.apply(want)
			}
		})
	}
}

// BenchmarkDoor sends small datagrams to a tunnel's port of the host itself, which
// costs the sender what comes in costs: without a door, and past one with peers.
func BenchmarkDoor(b *testing.B) {
	for _, n := range []int{0, 2, 5000} {
		b.Run(fmt.Sprintf("peers/%d", n), func(b *testing.B) {
			h := newHost(b)
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8472})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			ear, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 8472})
			if err != nil {
				b.Fatal(err)
			}
			defer ear.Close()
			h.apply(State{}) // looks at other tables, which may bring their hooks
			if n > 0 {
				s := example(n)
				s.Admits = append(s.Admits, Admit{s.Doors[0], netip.MustParseAddr("127.0.0.2")})
				h.apply(State{Doors: s.Doors, Admits: s.Admits})
			}
			packet := append([]byte{8, 0, 0, 0, 0, 0, 1, 0}, make([]byte, 64)...)
			for b.Loop() {
				if _, err := c.Write(packet); err != nil {
					b.Fatal(err)
				}
			}
			if foreign, err := h.k.Foreign(); err != nil || foreign[8472] != 0 {
				b.Errorf("dropped %v: %v", foreign, err)
			}
		})
	}
}
