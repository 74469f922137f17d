//go:build lab

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// TestEngineFaults takes engines and hosts away, after which the containers come
// back by themselves, with their addresses.
func TestEngineFaults(t *testing.T) {
	expectErrors(t, cluster.hosts, etcdAway, afterBoot)
	s := setScene(t)
	restart := func(t *testing.T, h *netlab.Host) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if err := h.StartEngine(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		fault func(t *testing.T, h *netlab.Host)
	}{
		{"engine ended", func(t *testing.T, h *netlab.Host) {
			if err := h.StopEngine(t.Context()); err != nil {
				t.Fatal(err)
			}
			restart(t, h)
		}},
		{"engine killed", func(t *testing.T, h *netlab.Host) {
			h.KillEngine()
			restart(t, h)
		}},
		{"power lost", func(t *testing.T, h *netlab.Host) {
			if err := h.PowerOff(); err != nil {
				t.Fatal(err)
			}
			restart(t, h)
		}},
		{"power lost, etcd down for the whole boot", func(t *testing.T, h *netlab.Host) {
			if err := s.etcd.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := h.PowerOff(); err != nil {
				t.Fatal(err)
			}
			restart(t, h)
			for i, other := range s.hosts {
				docker(t, other, "run", "--rm", "--network", network, "busybox", "ping", "-c", "2", "-i", "0.2", "-w", "10", s.addrs[1-i])
			}
			if err := s.etcd.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		for _, h := range s.hosts {
			t.Run(fmt.Sprintf("%s, %s", c.name, h.Name()), func(t *testing.T) {
				before := s.ctl(t, "get", "--prefix", prefix+"/subnets/")
				c.fault(t, h)
				s.sound(t)
				if after := s.ctl(t, "get", "--prefix", prefix+"/subnets/"); after != before {
					t.Errorf("leases before:\n%s\nafter:\n%s", before, after)
				}
			})
		}
	}
}

// TestEmbeddedHostLost takes the host with the embedded etcd away: the other
// goes on, and needs nothing when it is back.
func TestEmbeddedHostLost(t *testing.T) {
	expectErrors(t, cluster.hosts, etcdAway, afterBoot)
	install(t, cluster.hosts)
	s := &scene{hosts: cluster.hosts}
	s.furnish(t)
	first, second := s.hosts[0], s.hosts[1]
	if err := first.PowerOff(); err != nil {
		t.Fatal(err)
	}
	docker(t, second, "run", "--rm", "--network", network, "busybox", "ping", "-c", "2", "-i", "0.2", "-w", "10", s.addrs[1])
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := first.StartEngine(ctx); err != nil {
		t.Fatal(err)
	}
	s.sound(t)
	for _, kill := range []func(){func() { killPlugin(t, first) }, func() { killPlugin(t, second) }} {
		hearts := s.hearts(t)
		kill()
		s.sound(t)
		calm(t, hearts, 0)
	}
}
