//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// scene is the two hosts on an etcd of their own, and on each a container with a
// fixed address that echoes, always restarted by the engine.
type scene struct {
	hosts []*netlab.Host
	etcd  *netlab.Etcd
	addrs []string // of the containers, one a host
}

// echoes are the names of the scene's containers.
var echoes = []string{"echo1", "echo2"}

// setScene makes the scene for the length of a test. Every host has the same
// settings.
func setScene(t *testing.T, settings ...string) *scene {
	t.Helper()
	etcd, err := cluster.lab.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{hosts: cluster.hosts, etcd: etcd}
	for _, h := range s.hosts {
		installWith(t, h, append([]string{"ETCD_ENDPOINTS=" + etcd.Endpoint}, settings...)...)
	}
	t.Cleanup(func() { s.ctl(t, "del", "--prefix", prefix) })
	spare(t, s.ctl, func() { s.furnish(t) })
	return s
}

// furnish makes the scene's networks and containers.
func (s *scene) furnish(t *testing.T) {
	t.Helper()
	create(t, s.hosts, "--subnet", cidr)
	for i, h := range s.hosts {
		gateway := sh(t, h, "ip -o -4 addr | sed -n 's/.* fl-[^ ]* *inet \\([^/]*\\).*/\\1/p'")
		s.addrs = append(s.addrs, start(t, h, echoes[i], echoArgs("--restart", "always", "--ip", head(gateway)+".77")...))
	}
}

// prefix is where the leases are in etcd.
const prefix = "/coreos.com/network"

// ctl runs etcdctl, also when the test has ended.
func (s *scene) ctl(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := cluster.lab.Etcdctl(ctx, s.etcd.Endpoint, args...)
	if err != nil {
		t.Error(err)
	}
	return out
}

// echoArgs are docker run's for a container that echoes.
func echoArgs(options ...string) []string {
	return append(options, "-v", tool+":"+tool+":ro", "-e", roleEnv+"=echo", "busybox", tool)
}

// hearts beat both ways between the scene's containers.
func (s *scene) hearts(t *testing.T) []*heart {
	t.Helper()
	return []*heart{pound(t, s.hosts[0], echoes[0], s.addrs[1]), pound(t, s.hosts[1], echoes[1], s.addrs[0])}
}

// calm ends the beats; none may have lost more than allowed in a row.
func calm(t *testing.T, hearts []*heart, allowed int) (all []pulse) {
	t.Helper()
	for _, h := range hearts {
		p := h.stop(t)
		t.Logf("from %s: %s", h.from, p)
		if p.gap > allowed {
			t.Errorf("from %s: %s; allowed are %d", h.from, p, allowed)
		}
		all = append(all, p)
	}
	return all
}

// sound checks that containers start and reach the other host, that those of
// the scene run with the addresses they had, and that the books hold what the
// containers have and no more.
func (s *scene) sound(t *testing.T) {
	t.Helper()
	for i, h := range s.hosts {
		wait(t, echoes[i]+" on "+h.Name(), func() error {
			out, err := h.Docker(t.Context(), "inspect", "-f", "{{.State.Running}} {{.NetworkSettings.Networks."+network+".IPAddress}}", echoes[i])
			if want := "true " + s.addrs[i]; err == nil && out != want {
				err = fmt.Errorf("%s, want %s", out, want)
			}
			return err
		})
	}
	for i, h := range s.hosts {
		for _, to := range s.addrs {
			docker(t, h, "run", "--rm", "--name", "probe", "--network", network, "busybox", "ping", "-c", "2", "-i", "0.2", "-w", "10", to)
		}
		act(t, h, echoes[i], "push", s.addrs[1-i])
		account(t, h)
	}
}

// books is what the plugin of a host has on disk.
type books struct {
	Addresses []string // in use, sorted
	Endpoints []string // heads of endpoint ids, sorted
}

func readBooks(t testing.TB, h *netlab.Host) (b books, err error) {
	t.Helper()
	const dir = "/var/lib/docker/plugins/*/propagated-mount/"
	var addrs struct {
		Pools []struct{ Held []struct{ Addr string } }
	}
	text, err := h.Exec(t.Context(), "sh", "-c", "cat "+dir+"addresses.json")
	if err == nil {
		err = json.Unmarshal([]byte(text), &addrs)
	}
	if err != nil {
		return b, err
	}
	var nets []struct{ Ports []struct{ Endpoint string } }
	if text, err = h.Exec(t.Context(), "sh", "-c", "cat "+dir+"networks.json"); err == nil {
		err = json.Unmarshal([]byte(text), &nets)
	}
	for _, p := range addrs.Pools {
		for _, held := range p.Held {
			b.Addresses = append(b.Addresses, held.Addr)
		}
	}
	for _, n := range nets {
		for _, p := range n.Ports {
			b.Endpoints = append(b.Endpoints, p.Endpoint[:12])
		}
	}
	slices.Sort(b.Addresses)
	slices.Sort(b.Endpoints)
	return b, err
}

// account waits until the plugin's books and the host's veth pairs are what the
// engine's containers have.
func account(t testing.TB, h *netlab.Host) {
	t.Helper()
	wait(t, "the books of "+h.Name(), func() error {
		addrs, endpoints, err := engineBooks(t, h)
		if err != nil {
			return err
		}
		have, err := readBooks(t, h)
		if err != nil {
			return err
		}
		if !slices.Equal(have.Addresses, addrs) {
			return fmt.Errorf("addresses in use %v, of containers %v", have.Addresses, addrs)
		}
		if !slices.Equal(have.Endpoints, endpoints) {
			return fmt.Errorf("endpoints %v, of containers %v", have.Endpoints, endpoints)
		}
		out, err := h.Exec(t.Context(), "sh", "-c", "ip -o link | grep -o 'flv[0-9a-f]*\\|flp[0-9a-f]*' | sort -u")
		veths := strings.Fields(strings.ReplaceAll(out, "flv", ""))
		if err == nil && !slices.Equal(veths, endpoints) {
			err = fmt.Errorf("veths %v, of containers %v", veths, endpoints)
		}
		return err
	})
}

// engineBooks is what the engine says its containers have.
func engineBooks(t testing.TB, h *netlab.Host) (addrs, endpoints []string, err error) {
	t.Helper()
	text, err := h.Docker(t.Context(), "network", "inspect", "-f", "{{json .Containers}}", network)
	if err != nil {
		return nil, nil, err
	}
	var containers map[string]struct{ EndpointID, IPv4Address string }
	if err := json.Unmarshal([]byte(text), &containers); err != nil {
		return nil, nil, err
	}
	for c := range maps.Values(containers) {
		addr, _, _ := strings.Cut(c.IPv4Address, "/")
		addrs = append(addrs, addr)
		endpoints = append(endpoints, c.EndpointID[:12])
	}
	slices.Sort(addrs)
	slices.Sort(endpoints)
	return addrs, endpoints, nil
}

// TestFaultsUnderTraffic does to running containers what they must not notice.
func TestFaultsUnderTraffic(t *testing.T) {
	expectErrors(t, cluster.hosts, etcdAway)
	s := setScene(t)
	for _, c := range []struct {
		name  string
		fault func(t *testing.T)
	}{
		{"plugin killed", func(t *testing.T) {
			for _, h := range s.hosts {
				killPlugin(t, h)
			}
		}},
		{"etcd killed and started", func(t *testing.T) {
			if err := s.etcd.Kill(); err != nil {
				t.Fatal(err)
			}
			for i, h := range s.hosts {
				docker(t, h, "run", "--rm", "--network", network, "busybox", "ping", "-c", "2", "-i", "0.2", "-w", "10", s.addrs[1-i])
			}
			if err := s.etcd.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"etcd and plugins killed", func(t *testing.T) {
			if err := s.etcd.Kill(); err != nil {
				t.Fatal(err)
			}
			for i, h := range s.hosts {
				killPlugin(t, h)
				docker(t, h, "run", "--rm", "--network", network, "busybox", "ping", "-c", "2", "-i", "0.2", "-w", "10", s.addrs[1-i])
			}
			if err := s.etcd.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"etcd wiped", func(t *testing.T) {
			before := s.ctl(t, "get", "--prefix", prefix+"/subnets/")
			s.ctl(t, "del", "--prefix", prefix)
			wait(t, "the leases", func() error {
				if after := s.ctl(t, "get", "--prefix", prefix+"/subnets/"); after != before {
					return fmt.Errorf("before:\n%s\nnow:\n%s", before, after)
				}
				return nil
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			hearts := s.hearts(t)
			c.fault(t)
			s.sound(t)
			calm(t, hearts, 0)
		})
	}
}

// killPlugin ends a host's plugin as a crash does, and waits for the engine to
// have started it again.
func killPlugin(t testing.TB, h *netlab.Host) {
	t.Helper()
	before := sh(t, h, "pidof flannel")
	sh(t, h, "kill -9 "+before)
	wait(t, "the plugin's return on "+h.Name(), func() error {
		now, err := h.Exec(t.Context(), "pidof", "flannel")
		if err == nil && now == before {
			err = fmt.Errorf("process %s has not ended", before)
		}
		if err != nil {
			return err
		}
		c, err := net.Dial("unix", h.Root()+"/run/docker/plugins/flannel.sock")
		if err == nil {
			err = c.Close()
		}
		return err
	})
}
