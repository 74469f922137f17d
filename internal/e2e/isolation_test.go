//go:build lab

package e2e

import (
	"fmt"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// TestOtherNetworks: a container on another Docker network of a host reaches
// flannel's containers neither here nor there, nor they it.
func TestOtherNetworks(t *testing.T) {
	one, two := cluster.hosts[0], cluster.hosts[1]
	install(t, cluster.hosts)
	create(t, cluster.hosts)
	here := start(t, one, "here", "busybox", "sleep", "600")
	there := start(t, two, "there", "busybox", "sleep", "600")
	other := map[*netlab.Host]string{}
	for _, h := range cluster.hosts {
		docker(t, h, "network", "create", "other")
		undo(t, h, "network", "rm", "other")
		docker(t, h, "run", "-d", "--name", "stranger", "--network", "other", "busybox", "sleep", "600")
		undo(t, h, "rm", "-f", "stranger")
		other[h] = docker(t, h, "inspect", "-f", `{{.NetworkSettings.Networks.other.IPAddress}}`, "stranger")
	}
	reaches := func(h *netlab.Host, name, addr string) bool {
		return try(t, h, "exec", name, "timeout", "2", "ping", "-c", "1", addr) == nil
	}
	// The probe: where packets may pass, it says so.
	for _, c := range []struct {
		from       *netlab.Host
		name, addr string
	}{{one, "here", there}, {two, "there", here}, {one, "stranger", netlab.Outside}} {
		wait(t, "the probe's sight", func() error {
			if !reaches(c.from, c.name, c.addr) {
				return fmt.Errorf("from %s on %s no way to %s", c.name, c.from.Name(), c.addr)
			}
			return nil
		})
	}
	for _, c := range []struct {
		from       *netlab.Host
		name, addr string
	}{
		{one, "stranger", here}, {one, "stranger", there}, {two, "stranger", here}, {two, "stranger", there},
		{one, "here", other[one]}, {two, "there", other[two]},
	} {
		if reaches(c.from, c.name, c.addr) {
			t.Errorf("%s on %s reaches %s", c.name, c.from.Name(), c.addr)
		}
	}
}

// TestInternal: containers of an internal network reach each other across hosts
// and nothing else.
func TestInternal(t *testing.T) {
	one, two := cluster.hosts[0], cluster.hosts[1]
	install(t, cluster.hosts)
	create(t, cluster.hosts, "--internal")
	here := start(t, one, "here", "busybox", "sleep", "600")
	start(t, two, "there", "busybox", "sleep", "600")
	docker(t, two, "exec", "there", "ping", "-c", "2", "-w", "5", here)
	for h, name := range map[*netlab.Host]string{one: "here", two: "there"} {
		if err := try(t, h, "exec", name, "timeout", "2", "ping", "-c", "1", netlab.Outside); err == nil {
			t.Errorf("%s reaches %s from an internal network", name, netlab.Outside)
		}
	}
}
