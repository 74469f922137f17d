//go:build lab

package e2e

import (
	"fmt"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// TestNetworks has two networks on both hosts, of every backend: within each
// containers talk, between them nothing passes, whatever the address.
func TestNetworks(t *testing.T) {
	for _, backend := range []string{"vxlan", "host-gw", "udp"} {
		t.Run(backend, func(t *testing.T) {
			install(t, cluster.hosts, "BACKEND="+backend)
			create(t, cluster.hosts)
			type place struct {
				host       *netlab.Host
				name, addr string
				net        string
			}
			var all []place
			for i, h := range cluster.hosts {
				docker(t, h, "network", "create", "-d", "flannel", "--ipam-driver", "flannel", "--ipam-opt", "network=red", "red")
				undo(t, h, "network", "rm", "red")
				for _, net := range []string{network, "red"} {
					name := fmt.Sprintf("c%s%d", net, i+1)
					docker(t, h, "run", "-d", "--name", name, "--network", net, "--cap-add", "NET_ADMIN", "busybox", "sleep", "1000")
					undo(t, h, "rm", "-f", name)
					addr := docker(t, h, "inspect", "-f", `{{(index .NetworkSettings.Networks "`+net+`").IPAddress}}`, name)
					all = append(all, place{h, name, addr, net})
				}
			}
			reach := func(from place, addr string, options ...string) error {
				args := append([]string{"exec", from.name, "ping", "-c", "2", "-i", "0.2", "-w", "2"}, options...)
				return try(t, from.host, append(args, addr)...)
			}
			for _, from := range all {
				for _, to := range all {
					if from == to {
						continue
					}
					err := reach(from, to.addr)
					if got, want := err == nil, from.net == to.net; got != want {
						t.Errorf("%s reaches %s: %t, want %t (%v)", from.name, to.name, got, want, err)
					}
					if from.net == to.net {
						continue
					}
					// With an address of the other network, and past the
					// gateway of the own one.
					spoof := head(to.addr) + ".200"
					docker(t, from.host, "exec", from.name, "sh", "-c", fmt.Sprintf("ip addr add %s/32 dev eth0; ip route replace %s/32 via %s.1", spoof, to.addr, head(from.addr)))
					if reach(from, to.addr, "-I", spoof) == nil || reach(from, to.addr) == nil {
						t.Errorf("%s reaches %s as %s", from.name, to.name, spoof)
					}
					docker(t, from.host, "exec", from.name, "sh", "-c", fmt.Sprintf("ip addr del %s/32 dev eth0; ip route del %s/32", spoof, to.addr))
				}
			}
		})
	}
}
