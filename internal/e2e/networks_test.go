//go:build lab

package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// long is the longest name that a network can have.
const long = "Longest.name_of-all.networks-" + "12345678901234567890123456789012345"

// named creates a Docker network for the length of a test.
func named(t *testing.T, h *netlab.Host, name string, options ...string) {
	t.Helper()
	unname(t, h, name)
	docker(t, h, newNetwork(name, options...)...)
}

// unname removes a Docker network when the test ends, if it is there.
func unname(t *testing.T, h *netlab.Host, name string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := h.Exec(ctx, "sh", "-c", "docker network inspect "+name+" >/dev/null 2>&1 || exit 0; docker network rm "+name); err != nil {
			t.Error(err)
		}
	})
}

func newNetwork(name string, options ...string) []string {
	args := append([]string{"network", "create", "-d", "flannel", "--ipam-driver", "flannel"}, options...)
	return append(args, name)
}

// TestNetworks has several networks on both hosts: how they are made and joined,
// what is refused, what is left of them.
func TestNetworks(t *testing.T) {
	expectErrors(t, cluster.hosts, etcdAway) // which starts with the first host's plugin
	install(t, cluster.hosts)
	one, two := cluster.hosts[0], cluster.hosts[1]

	// Both make the first one at once.
	var makers sync.WaitGroup
	for _, h := range cluster.hosts {
		unname(t, h, "red")
		makers.Go(func() {
			if err := try(t, h, newNetwork("red", "--ipam-opt", "network=red")...); err != nil {
				t.Error(err)
			}
		})
	}
	makers.Wait()
	named(t, one, "green", "--ipam-opt", "network=green", "--ipam-opt", "backend=udp", "--subnet", "10.77.0.0/16")
	named(t, two, "green", "--subnet", "10.77.0.0/16")
	for _, h := range cluster.hosts {
		named(t, h, "grey", "--ipam-opt", "network="+long, "--ipam-opt", "backend=udp")
		named(t, h, network)
	}
	named(t, one, "olive", "--ipam-opt", "network=olive", "--ipam-opt", "backend=host-gw")
	all := []string{network, "red", "green", "grey"}

	t.Run("talk", func(t *testing.T) {
		addrs := map[string]string{}
		for _, net := range all {
			docker(t, two, "run", "-d", "--name", "there-"+net, "--network", net, "busybox", "sleep", "600")
			addrs[net] = docker(t, two, "inspect", "-f", "{{.NetworkSettings.Networks."+net+".IPAddress}}", "there-"+net)
			docker(t, one, "run", "--rm", "--network", net, "busybox", "ping", "-c", "3", "-i", "0.2", "-w", "10", addrs[net])
		}
		killPlugin(t, one)
		killPlugin(t, two)
		for net, to := range addrs {
			docker(t, one, "run", "--rm", "--network", net, "busybox", "ping", "-c", "3", "-i", "0.2", "-w", "10", to)
		}
		removeAll(t, two)
	})
	t.Run("of their own", func(t *testing.T) {
		for key, want := range map[string]string{
			"/config":              `{"Network":"10.5.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}`,
			"/red/config":          `{"Network":"10.128.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan","VNI":2}}`,
			"/green/config":        `{"Network":"10.77.0.0/16","SubnetLen":24,"Backend":{"Type":"udp"}}`,
			"/" + long + "/config": `{"Network":"10.129.0.0/16","SubnetLen":24,"Backend":{"Port":8286,"Type":"udp"}}`,
		} {
			if got := strings.Join(etcdLines(t, prefix+key), " "); got != prefix+key+" "+want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		for _, h := range cluster.hosts {
			contains(t, "devices of "+h.Name(), sh(t, h, "ip -d -o link"), "vxlan id 1 ", "vxlan id 2 ", "flannel0:", "flannel8286:")
		}
	})
	t.Run("refused", func(t *testing.T) { refused(t, two) })
	t.Run("removed", func(t *testing.T) {
		docker(t, one, "network", "rm", "olive")
		if got := len(etcdLines(t, prefix+"/red/subnets/")); got != 4 {
			t.Errorf("%d lines of leases", got)
		}
		for _, net := range all {
			for _, h := range cluster.hosts {
				docker(t, h, "network", "rm", net)
			}
		}
		wait(t, "the leases' end", func() error {
			for _, line := range etcdLines(t, prefix) {
				if strings.Contains(line, "/subnets/") {
					return fmt.Errorf("%s is there", line)
				}
			}
			return nil
		})
		// The network itself stays, and is joined again.
		named(t, one, "red", "--ipam-opt", "network=red", "--subnet", "10.128.0.0/16")
	})
}

// TestNetworksDualStack has two networks with IPv6 CIDRs of their own out of the
// pool, one of which a host joins by its IPv4 CIDR.
func TestNetworksDualStack(t *testing.T) {
	one, two := cluster.hosts[0], cluster.hosts[1]
	addIPv6(t, one, two)
	install(t, cluster.hosts, "NETWORK_POOL=base=10.128.0.0/9,size=16,ipv6-base=fd00:80::/40,ipv6-size=56")
	named(t, one, "red", "--ipv6", "--ipam-opt", "network=red")
	named(t, two, "red", "--ipv6", "--ipam-opt", "network=red")
	named(t, one, "green", "--ipv6", "--ipam-opt", "network=green", "--subnet", "10.77.0.0/16")
	named(t, two, "green", "--ipv6", "--subnet", "10.77.0.0/16", "--subnet", "fd00:80:0:100::/56")
	for key, want := range map[string]string{
		"/red/config":   `{"EnableIPv6":true,"Network":"10.128.0.0/16","IPv6Network":"fd00:80::/56","SubnetLen":24,"Backend":{"Type":"vxlan","VNI":2}}`,
		"/green/config": `{"EnableIPv6":true,"Network":"10.77.0.0/16","IPv6Network":"fd00:80:0:100::/56","SubnetLen":24,"Backend":{"Type":"vxlan","VNI":3}}`,
	} {
		if got := strings.Join(etcdLines(t, prefix+key), " "); got != prefix+key+" "+want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	six := map[string]string{}
	for _, net := range []string{"red", "green"} {
		docker(t, two, "run", "-d", "--name", "there-"+net, "--network", net, "busybox", "sleep", "600")
		undo(t, two, "rm", "-f", "there-"+net)
		docker(t, one, "run", "-d", "--name", "here-"+net, "--network", net, "busybox", "sleep", "600")
		undo(t, one, "rm", "-f", "here-"+net)
		for _, field := range []string{"IPAddress", "GlobalIPv6Address"} {
			six[net] = docker(t, two, "inspect", "-f", "{{.NetworkSettings.Networks."+net+"."+field+"}}", "there-"+net)
			docker(t, one, "exec", "here-"+net, "ping", "-c", "3", "-i", "0.2", "-w", "10", six[net])
		}
	}
	for net, other := range map[string]string{"red": "green", "green": "red"} {
		if out, err := one.Docker(t.Context(), "exec", "here-"+net, "ping", "-c", "1", "-W", "1", six[other]); err == nil {
			t.Errorf("from %s to %s: %s", net, other, out)
		}
	}
}

// refused asks for what cannot be.
func refused(t *testing.T, h *netlab.Host) {
	sh(t, h, "ip addr add 10.201.3.1/32 dev lo")
	t.Cleanup(func() {
		if _, err := h.Exec(context.Background(), "ip", "addr", "del", "10.201.3.1/32", "dev", "lo"); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct{ options, says string }{
		{"network=new --subnet 10.128.128.0/18", "--subnet 10.128.128.0/18 overlaps network red (10.128.0.0/16)"},
		{"network=new --subnet 10.0.0.0/9", "--subnet 10.0.0.0/9 overlaps the default network (10.5.0.0/16)"},
		{"network=new --subnet 10.200.0.0/23", "every host will have a subnet of 24 bits in it: give a larger CIDR, such as 10.200.0.0/16"},
		{"network=new --subnet 10.201.0.0/16", "this host's address 10.201.3.1 on lo"},
		{"network=new --subnet 192.0.0.0/16", "this host's route 192.0.2.0/24"},
		{"network=olive --subnet 10.200.0.0/16", "--subnet 10.200.0.0/16 does not lie in the flannel network 10.130.0.0/16"},
		{"network=olive --ipam-opt backend=udp", "backend=udp: the network was made with host-gw"},
		{"network=new --ipam-opt backend=warp", "supported: host-gw, udp, vxlan"},
		{"network=red", "one Docker network per host and flannel network"},
		{"network=a/b", `--ipam-opt network=a/b: network name "a/b": up to 64 letters, digits, dots, dashes and underscores are accepted`},
		{"network=subnets", "but not config and not subnets"},
		{"network=" + long + "x", "up to 64 letters"},
		{"network=", "give the flannel network's name"},
	} {
		err := try(t, h, newNetwork("new", append([]string{"--ipam-opt"}, strings.Fields(c.options)...)...)...)
		if err == nil {
			docker(t, h, "network", "rm", "new")
			t.Errorf("%s is accepted", c.options)
			continue
		}
		t.Log(err)
		contains(t, c.options, err.Error(), c.says)
	}
	if got := etcdLines(t, prefix+"/new"); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}

// etcdLines are the keys and values below a prefix in the embedded etcd.
func etcdLines(t *testing.T, under string) []string {
	t.Helper()
	out, err := cluster.lab.Etcdctl(t.Context(), fmt.Sprintf("http://%s:2379", cluster.hosts[0].Addr()), "get", "--prefix", under)
	if err != nil {
		t.Fatal(err)
	}
	return strings.FieldsFunc(out, func(r rune) bool { return r == '\n' })
}

// TestContainerOnTwoNetworks: a container on two flannel networks reaches both over
// the hosts, and is no bridge between them.
func TestContainerOnTwoNetworks(t *testing.T) {
	one, two := cluster.hosts[0], cluster.hosts[1]
	install(t, cluster.hosts)
	create(t, cluster.hosts)
	for _, h := range cluster.hosts {
		named(t, h, "red", "--ipam-opt", "network=red")
	}
	onRed := func(name string) string {
		docker(t, two, "run", "-d", "--name", name, "--network", "red", "busybox", "sleep", "600")
		undo(t, two, "rm", "-f", name)
		return docker(t, two, "inspect", "-f", "{{.NetworkSettings.Networks.red.IPAddress}}", name)
	}
	blue, red := start(t, two, "blue", "busybox", "sleep", "600"), onRed("red")
	start(t, one, "both", "busybox", "sleep", "600")
	docker(t, one, "network", "connect", "red", "both")
	for _, addr := range []string{blue, red} {
		docker(t, one, "exec", "both", "ping", "-c", "3", "-i", "0.2", "-w", "10", addr)
	}
	if try(t, two, "exec", "blue", "ping", "-c", "1", "-w", "1", red) == nil {
		t.Errorf("from blue to red %s: arrives", red)
	}
	docker(t, one, "network", "disconnect", "red", "both")
	if try(t, one, "exec", "both", "ping", "-c", "1", "-w", "1", red) == nil {
		t.Errorf("from a container that has left red to %s: arrives", red)
	}
	docker(t, one, "exec", "both", "ping", "-c", "3", "-i", "0.2", "-w", "10", blue)
}
