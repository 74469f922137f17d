//go:build lab

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// BenchmarkDockerRun times docker run --rm of a container that ends at once, on
// the flannel network and on the engine's own bridge networks, in interleaved
// rounds, and reports medians and their ratio. A flannel container has a second
// interface, to docker_gwbridge, which a bridge network's has not. The network
// none is what the engine takes without any interface.
func BenchmarkDockerRun(b *testing.B) {
	install(b, cluster.hosts)
	create(b, cluster.hosts)
	for i, h := range cluster.hosts {
		b.Run("engine="+engines[i], func(b *testing.B) { compareRuns(b, h) })
	}
}

const latencyRounds = 25

func compareRuns(b *testing.B, h *netlab.Host) {
	docker(b, h, "network", "create", "plain")
	undo(b, h, "network", "rm", "plain")
	networks := []string{network, "plain", "none"}
	took := map[string][]time.Duration{}
	for b.Loop() {
		for round := range latencyRounds + 1 {
			for _, name := range networks {
				begin := time.Now()
				docker(b, h, "run", "--rm", "--network", name, "busybox", "true")
				if round > 0 { // the first warms caches
					took[name] = append(took[name], time.Since(begin))
				}
			}
		}
	}
	median := func(name string) float64 {
		slices.Sort(took[name])
		return took[name][len(took[name])/2].Seconds() * 1000
	}
	for _, name := range networks {
		b.ReportMetric(median(name), fmt.Sprintf("ms/run-%s", name))
	}
	b.ReportMetric(median(network)/median("plain"), "ratio-to-bridge")
	b.ReportMetric(0, "ns/op")
}
