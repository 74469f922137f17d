//go:build lab

package e2e

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// TestUpgrade brings a new build under running containers.
func TestUpgrade(t *testing.T) {
	expectErrors(t, cluster.hosts, etcdAway) // where the machine is slow when the plugin starts
	registry, err := cluster.lab.Registry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	etcd, err := cluster.lab.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := registry + "/docker-flannel:"
	sh(t, cluster.hosts[0], "cp -r /plugin /plugin2 && sed -i 's/\"description\": \"flannel/\"description\": \"newer, flannel/' /plugin2/config.json")
	for tag, dir := range map[string]string{"old": "/plugin", "new": "/plugin2"} {
		docker(t, cluster.hosts[0], "plugin", "create", name+tag, dir)
		docker(t, cluster.hosts[0], "plugin", "push", name+tag)
		docker(t, cluster.hosts[0], "plugin", "rm", name+tag)
	}
	s := &scene{hosts: cluster.hosts, etcd: etcd}
	for _, h := range s.hosts {
		docker(t, h, "plugin", "install", "--grant-all-permissions", "--alias", pluginName, name+"old", "ETCD_ENDPOINTS="+etcd.Endpoint)
		undo(t, h, "plugin", "rm", "-f", pluginName)
	}
	t.Cleanup(func() { s.ctl(t, "del", "--prefix", prefix) })
	s.furnish(t)
	hearts := s.hearts(t)
	for _, h := range s.hosts {
		docker(t, h, "plugin", "disable", "-f", pluginName)
		docker(t, h, "plugin", "upgrade", "--grant-all-permissions", "--skip-remote-check", pluginName, name+"new")
		docker(t, h, "plugin", "enable", pluginName)
		contains(t, "plugin inspect", docker(t, h, "plugin", "inspect", pluginName), "newer, flannel", "ETCD_ENDPOINTS="+etcd.Endpoint)
	}
	s.sound(t)
	calm(t, hearts, 0)
}

// TestLiveRestore takes the engine from under running containers, which an
// engine with live-restore leaves alone.
func TestLiveRestore(t *testing.T) {
	s := setScene(t)
	for _, h := range s.hosts {
		liveRestore(t, h, true)
		t.Cleanup(func() { liveRestore(t, h, false) })
	}
	for _, c := range []struct {
		name string
		end  func(h *netlab.Host) error
	}{
		{"engine ended", func(h *netlab.Host) error { return h.StopEngine(t.Context()) }},
		{"engine killed", func(h *netlab.Host) error { h.KillEngine(); return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			hearts := s.hearts(t)
			for _, h := range s.hosts {
				if err := c.end(h); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				err := h.StartEngine(ctx)
				cancel()
				if err != nil {
					t.Fatal(err)
				}
			}
			s.sound(t)
			// The engine takes its jump to DOCKER-USER out of FORWARD, whose
			// policy is to drop, and puts it in again: usually within 30 ms,
			// and as soon as the machine lets it.
			calm(t, hearts, int(2*time.Second/beatEvery))
		})
	}
}

// liveRestore switches live-restore in a running engine.
func liveRestore(t testing.TB, h *netlab.Host, on bool) {
	t.Helper()
	want := strconv.FormatBool(on)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := h.Exec(ctx, "sh", "-ec", "mkdir -p /etc/docker; echo '{\"live-restore\":"+want+"}' >/etc/docker/daemon.json; kill -HUP $(pidof dockerd)"); err != nil {
		t.Error(err)
		return
	}
	for ctx.Err() == nil {
		if got, err := h.Docker(ctx, "info", "-f", "{{.LiveRestoreEnabled}}"); err == nil && got == want {
			return
		}
	}
	t.Errorf("live-restore on %s is not %s", h.Name(), want)
}
