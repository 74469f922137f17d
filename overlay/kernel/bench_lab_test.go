//go:build lab

package kernel

import (
	"fmt"
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
