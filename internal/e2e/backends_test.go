//go:build lab

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// largeServer is server with ten megabytes.
const largeServer = `mkdir /www && head -c 10000000 /dev/urandom >/www/blob && cd /www && sha256sum blob >sum && exec httpd -f -p 80`

// narrow lowers the MTU of a host's underlay under running containers, which
// must learn of it from the router's answers.
func narrow(t *testing.T, h *netlab.Host, container, to, want string) {
	t.Helper()
	sh(t, h, "ip link set eth0 mtu 1400")
	t.Cleanup(func() {
		if _, err := h.Exec(context.Background(), "ip", "link", "set", "eth0", "mtu", "1500"); err != nil {
			t.Error(err)
		}
	})
	deadline := time.Now().Add(time.Minute)
	for got := ""; got != want; got = act(t, h, container, "pmtu", to) {
		if time.Now().After(deadline) {
			t.Fatalf("path MTU %s, want %s", got, want)
		}
	}
	act(t, h, container, "push", to)
}

// TestBackends carries the same traffic over every backend.
func TestBackends(t *testing.T) {
	one, two := cluster.hosts[0], cluster.hosts[1]
	for _, c := range []struct{ name, backend, route, mtu, narrowed string }{
		{"vxlan", "vxlan", "dev flannel.1", "1450", "1350"},
		{"direct routing", `{"Type":"vxlan","DirectRouting":true}`, fmt.Sprintf("via %s dev eth0", two.Addr()), "1450", "1400"},
		{"host-gw", "", fmt.Sprintf("via %s dev eth0", two.Addr()), "1500", "1400"},
		{"udp", "", "dev flannel0", "1472", "1372"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.backend != "" {
				install(t, cluster.hosts, "BACKEND="+c.backend)
				create(t, cluster.hosts)
			} else {
				install(t, cluster.hosts)
				create(t, cluster.hosts, "--ipam-opt", "backend="+c.name)
			}
			here := start(t, one, "here", "busybox", "sh", "-c", largeServer)
			there := start(t, two, "there", "busybox", "sh", "-c", largeServer)
			wait(t, "the route", func() error {
				got, err := one.Exec(t.Context(), "ip", "route", "get", there)
				if err == nil && !strings.Contains(got, c.route) {
					err = fmt.Errorf("%s, want %s", got, c.route)
				}
				return err
			})
			contains(t, "MTU", docker(t, one, "exec", "here", "cat", "/sys/class/net/eth0/mtu"), c.mtu)
			for _, size := range []string{"1", "1400", "2000", "8972"} {
				docker(t, one, "exec", "here", "ping", "-c", "2", "-i", "0.2", "-w", "5", "-s", size, there)
				docker(t, two, "exec", "there", "ping", "-c", "2", "-i", "0.2", "-w", "5", "-s", size, here)
			}
			for h, to := range map[*netlab.Host]string{one: there, two: here} {
				sh(t, h, "ping -c 2 -i 0.2 -w 5 "+to)
			}
			fetch(t, one, "here", there)
			fetch(t, two, "there", here)
			serve(t, one, "here", "echo")
			serve(t, two, "there", "echo")
			act(t, one, "here", "sweep", there)
			act(t, two, "there", "sweep", here)
			narrow(t, one, "here", there, c.narrowed)
		})
	}
}
