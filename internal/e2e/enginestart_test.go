//go:build lab

package e2e

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// BenchmarkEngineStart times an engine's start, from dockerd's start to its first
// answer, without the plugin, with the plugin and one network, and the same
// while etcd is down. The engine waits half a second before it calls any managed
// plugin.
func BenchmarkEngineStart(b *testing.B) {
	etcd, err := cluster.lab.Etcd(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for i, h := range cluster.hosts {
		b.Run("engine="+engines[i], func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(engineStart(b, h), "ms/without")
				installWith(b, h, "ETCD_ENDPOINTS="+etcd.Endpoint)
				docker(b, h, "network", "create", "-d", "flannel", "--ipam-driver", "flannel", network)
				b.ReportMetric(engineStart(b, h), "ms/with")
				if err := etcd.Kill(); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(engineStart(b, h), "ms/with-etcd-down")
				if err := etcd.Start(b.Context()); err != nil {
					b.Fatal(err)
				}
				docker(b, h, "network", "rm", network)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

const startRounds = 7

// engineStart is the median in milliseconds.
func engineStart(b *testing.B, h *netlab.Host) float64 {
	b.Helper()
	took := make([]time.Duration, 0, startRounds)
	for range startRounds {
		if err := h.StopEngine(b.Context()); err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		begin := time.Now()
		err := h.StartEngine(ctx)
		took = append(took, time.Since(begin))
		cancel()
		if err != nil {
			b.Fatal(err)
		}
	}
	slices.Sort(took)
	return took[startRounds/2].Seconds() * 1000
}
