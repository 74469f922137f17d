//go:build lab && soak

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

const (
	soakEnv = "SOAK" // how long TestSoak goes on, as 10m
	seedEnv = "SEED" // what its faults are drawn from; empty for another one each time

	// soakStarts is how many containers start at most during a fault.
	soakStarts = 6
	// A plugin's process may have this many threads, and so many more files
	// open than when it was calmest.
	mostThreads = 40
	spareFiles  = 8
)

// mischief is what TestSoak does to a host.
type mischief struct {
	name string
	do   func(t *testing.T, s *scene, h *netlab.Host)
}

// mischiefs are the faults of TestSoak. It waits for no repair: what has to be
// sound afterwards is the same for all.
func mischiefs() []mischief {
	all := []mischief{
		{"nothing", func(*testing.T, *scene, *netlab.Host) {}},
		{"plugin killed", func(t *testing.T, _ *scene, h *netlab.Host) { killPlugin(t, h) }},
		{"plugin disabled and enabled", func(t *testing.T, _ *scene, h *netlab.Host) {
			docker(t, h, "plugin", "disable", "-f", pluginName)
			docker(t, h, "plugin", "enable", pluginName)
		}},
		{"etcd killed and started", func(t *testing.T, s *scene, h *netlab.Host) {
			if err := s.etcd.Kill(); err != nil {
				t.Fatal(err)
			}
			docker(t, h, "run", "--rm", "--network", network, "busybox", "true")
			if err := s.etcd.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"engine killed", func(t *testing.T, _ *scene, h *netlab.Host) {
			h.KillEngine()
			startEngine(t, h)
		}},
		{"engine ended", func(t *testing.T, _ *scene, h *netlab.Host) {
			if err := h.StopEngine(t.Context()); err != nil {
				t.Fatal(err)
			}
			startEngine(t, h)
		}},
		{"power lost", func(t *testing.T, _ *scene, h *netlab.Host) {
			if err := h.PowerOff(); err != nil {
				t.Fatal(err)
			}
			startEngine(t, h)
		}},
		{"cable out and in", func(t *testing.T, _ *scene, h *netlab.Host) {
			if err := h.Unplug(); err != nil {
				t.Fatal(err)
			}
			if err := h.Replug(); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, command := range []string{
		"ip link del flannel.1",
		"ip link set flannel.1 down",
		"ip route flush dev flannel.1",
		"bridge fdb show dev flannel.1 | while read mac rest; do bridge fdb del $mac dev flannel.1; done",
		"ip link set $(ip -br link | grep -o '^fl-[0-9a-f]*') down",
		"ip addr flush dev $(ip -br link | grep -o '^fl-[0-9a-f]*')",
		"nft delete table inet docker-flannel",
		"iptables -F DOCKER-USER",
		"sysctl -qw net.ipv4.ip_forward=0",
	} {
		all = append(all, mischief{command, func(t *testing.T, _ *scene, h *netlab.Host) { sh(t, h, command) }})
	}
	return all
}

// startEngine starts a host's engine, and the host where it has no power.
func startEngine(t testing.TB, h *netlab.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := h.StartEngine(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestSoak does mischief at random for a long time while containers come and go,
// and looks after each whether everything is as it should be.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv(soakEnv))
	if err != nil {
		t.Fatalf("%s: %v", soakEnv, err)
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(seedEnv); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedEnv, err)
		}
	}
	t.Logf("repeat with: make soak %s=%s %s=%d", soakEnv, length, seedEnv, seed)
	expectErrors(t, cluster.hosts, etcdAway, repairs, sweeps)
	s := setScene(t)
	chance := rand.New(rand.NewPCG(seed, 0))
	all, calmest := mischiefs(), map[string]usage{}
	for began, round := time.Now(), 1; time.Since(began) < length; round++ {
		m, h := all[chance.IntN(len(all))], s.hosts[chance.IntN(len(s.hosts))]
		starts, delay := chance.IntN(soakStarts+1), time.Duration(chance.IntN(1000))*time.Millisecond
		t.Logf("%s, round %d: %s on %s after %s, %d containers", time.Since(began).Round(time.Second), round, m.name, h.Name(), delay, starts)
		s.disturb(t, m, h, starts, delay)
		s.sound(t)
		for _, h := range s.hosts {
			checkUsage(t, h, calmest)
		}
	}
}

// disturb has containers come and go on all hosts, and after a while, so in the
// midst of a container's start, a fault on one. Containers may fail to start.
func (s *scene) disturb(t *testing.T, m mischief, h *netlab.Host, starts int, delay time.Duration) {
	t.Helper()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, other := range s.hosts {
		wg.Go(func() {
			for range starts {
				if err := try(t, other, "run", "--rm", "--network", network, "busybox", "true"); err != nil {
					t.Logf("meanwhile: %.200v", err)
				}
			}
		})
	}
	<-time.After(delay)
	m.do(t, s, h)
}

// usage is what the plugin's process has in use.
type usage struct{ files, threads int }

// checkUsage holds what a host's plugin has in use against the least that the same
// process had before.
func checkUsage(t *testing.T, h *netlab.Host, calmest map[string]usage) {
	t.Helper()
	wait(t, "open files and threads of the plugin on "+h.Name(), func() error {
		text, err := h.Exec(t.Context(), "sh", "-c", "p=$(pidof flannel) && echo $p $(ls /proc/$p/fd | wc -l) $(ls /proc/$p/task | wc -l) $(stat -c %Y /proc/$p)")
		if err != nil {
			return err
		}
		var pid, begun int
		var now usage
		if _, err := fmt.Sscan(text, &pid, &now.files, &now.threads, &begun); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		process := fmt.Sprintf("%s/%d/%d", h.Name(), pid, begun)
		least, known := calmest[process]
		if !known || now.files < least.files {
			calmest[process] = now
			least = now
		}
		if now.files > least.files+spareFiles || now.threads > mostThreads {
			return fmt.Errorf("%+v, before %+v", now, least)
		}
		return nil
	})
}
