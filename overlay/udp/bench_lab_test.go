//go:build lab

package udp

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

var pathNames = []string{"host to host", "kernel VXLAN", "udp", "one packet a syscall"}

// BenchmarkPaths prints a table of this backend beside kernel VXLAN made by
// hand, the underlay itself and the plainest encapsulator: interleaved rounds,
// medians. Segmentation offloads are off on the underlay, so that packets
// cross at wire size; BENCH_OFFLOAD=on leaves them on.
func BenchmarkPaths(b *testing.B) {
	p := newPair(b)
	if os.Getenv("BENCH_OFFLOAD") != "on" {
		p.wireSize()
	}
	for _, ends := range [][2]*site{{p.a, p.b}, {p.b, p.a}} {
		ends[0].encapsulate(ends[1], "engine", enginePath, DefaultPort)
		ends[0].encapsulate(ends[1], "naive", naivePath, DefaultPort+1)
	}
	for path := range pathNames {
		e := p.b.end(path)
		server, err := e.Start("iperf3", "-s", "--forceflush", "-p", fmt.Sprint(6000+path))
		if err != nil {
			b.Fatal(err)
		}
		await(b, "iperf3", server, "Server listening")
		start(b, e, "echo", fmt.Sprint(7000+path))
	}
	kinds := []struct {
		name string
		run  func(path int) float64
	}{
		{"TCP 1 Gbit/s", func(path int) float64 { return p.tcp(path, 1) }},
		{"TCP 4 Gbit/s", func(path int) float64 { return p.tcp(path, 4) }},
		{"UDP 64 B kpps", p.small},
		{"RR UDP p50 us", func(path int) float64 { return p.ask(path, "udp") }},
		{"RR TCP p50 us", func(path int) float64 { return p.ask(path, "tcp") }},
	}
	rounds := 3
	if n := os.Getenv("BENCH_ROUNDS"); n != "" {
		fmt.Sscan(n, &rounds)
	}
	only := os.Getenv("BENCH_ONLY")
	for b.Loop() {
		for _, kind := range kinds {
			if only != "" && !strings.Contains(kind.name, only) {
				continue
			}
			got := make([][]float64, len(pathNames))
			for range rounds {
				for path := range pathNames {
					if o := os.Getenv("BENCH_PATH"); o != "" && !strings.Contains(o, fmt.Sprint(path)) {
						got[path] = append(got[path], 0)
						continue
					}
					got[path] = append(got[path], kind.run(path))
				}
			}
			slices.Sort(got[kernelPath])
			base := got[kernelPath][rounds/2]
			for path, name := range pathNames {
				slices.Sort(got[path])
				fmt.Printf("%-14s %-22s %8.2f  ratio to VXLAN %.2f  %.2f\n", kind.name, name, got[path][rounds/2], got[path][rounds/2]/base, got[path])
			}
		}
	}
}

// wireSize makes packets cross the underlay at wire size.
func (p *pair) wireSize() {
	const off = "ethtool -K %s tso off gso off tx-udp-segmentation off tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off gro %s >/dev/null"
	for _, s := range []*site{p.a, p.b} {
		sh(p, s.host, off, "eth0", "on")
		sh(p, p.wire, off, s.host.Name(), "off") // a veth's end does GRO only where the other does no TSO
	}
}

func (p *pair) tcp(path, streams int) float64 {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := p.a.end(path).Exec(ctx, "iperf3", "-J", "-t", "2", "-P", fmt.Sprint(streams),
		"-c", p.b.addr(path), "-p", fmt.Sprint(6000+path))
	if err != nil {
		p.Errorf("%v: %s", err, out)
		return 0
	}
	var said struct {
		End struct {
			Sum struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		p.Error(err)
	}
	return said.End.Sum.Bits / 1e9
}

func (p *pair) small(path int) float64 {
	sink := start(p, p.b.end(path), "sink", "9000", "1.5")
	run(p, p.a.end(path), "blast", p.b.addr(path)+":9000", "2")
	return rate(p, sink) / 1e3
}

func rate(t testing.TB, sink *netlab.Proc) (rate float64) {
	if err := sink.Wait(); err != nil {
		t.Error(err)
	}
	_, text, _ := strings.Cut(logOf(sink), "rate ")
	if _, err := fmt.Sscan(text, &rate); err != nil {
		t.Errorf("sink says %q", logOf(sink))
	}
	return rate
}

func (p *pair) ask(path int, by string) (p50 float64) {
	out := run(p, p.a.end(path), "ask", p.b.addr(path)+":"+fmt.Sprint(7000+path), "1.5", by)
	if _, err := fmt.Sscan(out, &p50); err != nil {
		p.Error(err)
	}
	return p50
}
