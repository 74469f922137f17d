//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// TestSync creates Docker networks on one host and finds them on the other.
func TestSync(t *testing.T) {
	etcd, err := cluster.lab.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{hosts: cluster.hosts, etcd: etcd}
	t.Cleanup(func() { s.ctl(t, "del", "--prefix", prefix) })
	expectErrors(t, s.hosts, etcdAway, afterBoot)
	one, two := s.hosts[0], s.hosts[1]
	equipCLI(t, one)
	addIPv6(t, s.hosts...)
	installWith(t, one, "ETCD_ENDPOINTS="+etcd.Endpoint, "IPV6_NETWORK="+cidr6, "SYNC_NETWORKS=true")
	installWith(t, two, "ETCD_ENDPOINTS="+etcd.Endpoint, "IPV6_NETWORK="+cidr6)
	for _, name := range []string{"red", "green", "late", "grey", "olive", "off", "z1", "z2", "z3"} {
		for _, h := range s.hosts {
			unname(t, h, name)
		}
	}
	t.Run("setting off", func(t *testing.T) { s.syncOff(t, one, two) })
	t.Run("created on one", func(t *testing.T) { s.syncCreated(t, one, two) })
	t.Run("used", func(t *testing.T) { s.syncUsed(t, one, two) })
	t.Run("removed on one", func(t *testing.T) { s.syncRemoved(t, one, two) })
	t.Run("while disabled", func(t *testing.T) { s.syncLate(t, one, two) })
	t.Run("other options", func(t *testing.T) { s.syncClash(t, one, two) })
}

// share creates a Docker network on a flannel network of the same name.
func share(t *testing.T, h *netlab.Host, name string, options ...string) {
	t.Helper()
	docker(t, h, newNetwork(name, append([]string{"--ipam-opt", "network=" + name}, options...)...)...)
}

// has tells whether the engine has a network of that name.
func has(t *testing.T, h *netlab.Host, name string) bool {
	t.Helper()
	return slices.Contains(strings.Fields(docker(t, h, "network", "ls", "--format", "{{.Name}}")), name)
}

// appears awaits a network, and its end.
func appears(t *testing.T, h *netlab.Host, name string)  { await(t, h, name, true) }
func vanishes(t *testing.T, h *netlab.Host, name string) { await(t, h, name, false) }

func await(t *testing.T, h *netlab.Host, name string, want bool) {
	t.Helper()
	wait(t, fmt.Sprintf("network %s on %s: %v", name, h.Name(), want), func() error {
		if has(t, h, name) != want {
			return errors.New(docker(t, h, "network", "ls"))
		}
		return nil
	})
}

// about is what a network's user gave.
func about(t *testing.T, h *netlab.Host, name string) string {
	t.Helper()
	return docker(t, h, "network", "inspect", "-f", "{{.Driver}} {{.IPAM.Driver}} {{json .IPAM.Options}} {{json .Options}} {{json .Labels}} {{.Internal}} {{.Attachable}} {{.EnableIPv6}}", name)
}

// syncOff has the setting on one host alone.
func (s *scene) syncOff(t *testing.T, one, two *netlab.Host) {
	share(t, two, "off")
	share(t, one, "red", "--subnet", "10.77.0.0/16", "-o", "com.docker.network.driver.mtu=1400", "--attachable", "--label", "purpose=test")
	wait(t, "the entry of red", func() error {
		if keys := s.ctl(t, "get", "--prefix", "--keys-only", prefix+"/.docker/"); strings.TrimSpace(keys) != prefix+"/.docker/red" {
			return fmt.Errorf("entries: %s", keys)
		}
		return nil
	})
	if has(t, one, "off") || has(t, two, "red") {
		t.Error("networks were made although the setting is off")
	}
	docker(t, two, "plugin", "disable", "-f", pluginName)
	docker(t, two, "plugin", "set", pluginName, "SYNC_NETWORKS=true")
	docker(t, two, "plugin", "enable", pluginName)
	appears(t, one, "off")
	appears(t, two, "red")
}

func (s *scene) syncCreated(t *testing.T, one, two *netlab.Host) {
	if a, b := about(t, one, "red"), about(t, two, "red"); a != b || !strings.Contains(a, "1400") || !strings.Contains(a, "purpose") {
		t.Errorf("red on %s: %s; on %s: %s", one.Name(), a, two.Name(), b)
	}
	for _, h := range s.hosts {
		contains(t, "red's subnet", docker(t, h, "network", "inspect", "-f", "{{json .IPAM.Config}}", "red"), "10.77.0.0/16")
	}
	docker(t, two, greenNetwork()...)
	appears(t, one, "green")
	if a, b := about(t, one, "green"), about(t, two, "green"); a != b {
		t.Errorf("green on %s: %s; on %s: %s", one.Name(), a, two.Name(), b)
	}
	for _, h := range s.hosts {
		contains(t, "green's subnets", docker(t, h, "network", "inspect", "-f", "{{json .IPAM.Config}}", "green"), cidr, cidr6)
	}
	for _, c := range []struct {
		name     string
		from, to *netlab.Host
	}{{"red", one, two}, {"green", two, one}} {
		docker(t, c.to, "run", "-d", "--name", "there", "--network", c.name, "busybox", "sleep", "600")
		addr := docker(t, c.to, "inspect", "-f", "{{.NetworkSettings.Networks."+c.name+".IPAddress}}", "there")
		docker(t, c.from, "run", "--rm", "--network", c.name, "busybox", "ping", "-c", "3", "-i", "0.2", "-w", "10", addr)
		docker(t, c.to, "rm", "-f", "there")
	}
	contains(t, "network ls", flannel(t, one, 0, "network", "ls"), "DOCKER", "red", "off", "green")
}

// greenNetwork is on the default network, with all that it has.
func greenNetwork() []string {
	return newNetwork("green", "--ipv6", "--subnet", cidr, "--subnet", cidr6, "-o", "gateway=flannel")
}

// syncUsed removes everywhere what containers use, and what none do any more.
func (s *scene) syncUsed(t *testing.T, one, two *netlab.Host) {
	docker(t, two, "run", "-d", "--name", "user", "--network", "red", "busybox", "sleep", "600")
	note := prefix + "/.docker-use/red/" + two.Addr().String()
	wait(t, "the note", func() error {
		if keys := s.ctl(t, "get", "--prefix", "--keys-only", prefix+"/.docker-use/"); strings.TrimSpace(keys) != note {
			return fmt.Errorf("notes: %q", keys)
		}
		return nil
	})
	contains(t, "network rm", flannel(t, one, 1, "network", "rm", "red"), "containers use it on host "+two.Addr().String())
	docker(t, one, "run", "--rm", "--network", "red", "busybox", "true")
	docker(t, two, "rm", "-f", "user")
	wait(t, "the note's end", func() error {
		if keys := s.ctl(t, "get", "--prefix", "--keys-only", prefix+"/.docker-use/"); keys != "" {
			return errors.New(keys)
		}
		return nil
	})
	contains(t, "network rm", flannel(t, one, 0, "network", "rm", "red"), "Docker network red is removed on every host", "network red is removed")
	for _, h := range s.hosts {
		if has(t, h, "red") {
			t.Errorf("red is on %s", h.Name())
		}
	}
	if left := s.ctl(t, "get", "--prefix", "--keys-only", prefix+"/red/"); left != "" {
		t.Errorf("left of red: %s", left)
	}
	share(t, one, "red") // is another one, and appears
	appears(t, two, "red")
}

// syncRemoved removes a network here, and restarts whatever there is.
func (s *scene) syncRemoved(t *testing.T, one, two *netlab.Host) {
	docker(t, one, "network", "rm", "green")
	docker(t, two, "network", "rm", "red")
	// Networks are made in the order of their names: with the one that is made
	// last, all are as they will be.
	settled := func(name string) {
		t.Helper()
		share(t, two, name)
		appears(t, one, name)
		share(t, one, name+"b")
		unname(t, one, name+"b")
		unname(t, two, name+"b")
		appears(t, two, name+"b")
		if has(t, one, "green") || !has(t, two, "green") || !has(t, one, "red") || has(t, two, "red") {
			t.Errorf("%s has\n%s\n%s has\n%s", one.Name(), docker(t, one, "network", "ls"), two.Name(), docker(t, two, "network", "ls"))
		}
	}
	settled("z1")
	var restarts sync.WaitGroup
	for _, h := range s.hosts {
		restarts.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			if err := errors.Join(h.StopEngine(ctx), h.StartEngine(ctx)); err != nil {
				t.Error(err)
			}
		})
	}
	restarts.Wait()
	settled("z2")
	killPlugin(t, one) // an engine that is ended right after this waits 10 s
	killPlugin(t, two)
	s.wipe(t)
	settled("z3")
	docker(t, one, greenNetwork()...) // a person wants it again
	docker(t, two, "network", "rm", "green")
	if !has(t, one, "green") {
		t.Error("green is gone")
	}
}

// wipe empties etcd, and waits until the hosts have written again what they have.
func (s *scene) wipe(t *testing.T) {
	t.Helper()
	before := strings.Fields(s.ctl(t, "get", "--prefix", "--keys-only", prefix+"/"))
	s.ctl(t, "del", "--prefix", prefix)
	wait(t, "what the hosts have", func() error {
		now := strings.Fields(s.ctl(t, "get", "--prefix", "--keys-only", prefix+"/"))
		for _, key := range before {
			if !slices.Contains(now, key) && !strings.HasSuffix(key, "/.networks") {
				return fmt.Errorf("%s is missing", key)
			}
		}
		return nil
	})
}

// syncLate creates, and removes everywhere, while a host hears nothing.
func (s *scene) syncLate(t *testing.T, one, two *netlab.Host) {
	docker(t, two, "plugin", "disable", "-f", pluginName)
	share(t, one, "late")
	docker(t, two, "plugin", "enable", pluginName)
	appears(t, two, "late")
	docker(t, two, "plugin", "disable", "-f", pluginName)
	contains(t, "network rm", flannel(t, one, 1, "network", "rm", "late"), "host "+two.Addr().String(), "remove Docker network late by themselves")
	vanishes(t, one, "late")
	docker(t, two, "plugin", "enable", pluginName)
	vanishes(t, two, "late")
	flannel(t, one, 0, "network", "rm", "late")
}

// syncClash has networks of one name that are not the same.
func (s *scene) syncClash(t *testing.T, one, two *netlab.Host) {
	from := len(engineLog(t, two))
	docker(t, two, "network", "create", "olive")
	share(t, one, "olive")
	logged(t, two, from, `left alone.*network=olive.*driver is bridge here`)
	share(t, one, "grey", "-o", "com.docker.network.driver.mtu=1400")
	appears(t, two, "grey")
	docker(t, two, "network", "rm", "grey")
	share(t, two, "grey", "-o", "com.docker.network.driver.mtu=1300")
	logged(t, two, from, `left alone.*network=grey.*mtu is 1300 here and 1400 there`)
	contains(t, "grey", about(t, one, "grey"), "1400")
	contains(t, "grey", about(t, two, "grey"), "1300")
	if n := strings.Count(engineLog(t, two)[from:], "network=grey difference"); n != 1 {
		t.Errorf("said %d times", n)
	}
	docker(t, two, "network", "rm", "olive", "grey") // makes room
	appears(t, two, "olive")
	appears(t, two, "grey")
	contains(t, "grey", about(t, two, "grey"), "1400")
	// Removed by hand everywhere, it is forgotten, and may be made otherwise.
	for _, h := range s.hosts {
		docker(t, h, "network", "rm", "grey")
	}
	wait(t, "the end of grey's entry", func() error {
		if keys := s.ctl(t, "get", "--prefix", "--keys-only", prefix+"/.docker/grey"); keys != "" {
			return errors.New(keys)
		}
		return nil
	})
	share(t, two, "grey", "-o", "com.docker.network.driver.mtu=1350")
	appears(t, one, "grey")
	contains(t, "grey", about(t, one, "grey"), "1350")
}
