//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

const cidr6 = "fd00:5::/48"

// addIPv6 gives the hosts' interfaces IPv6 addresses for the length of a test.
func addIPv6(t *testing.T, hosts ...*netlab.Host) []string {
	t.Helper()
	addrs := make([]string, len(hosts))
	for i, h := range hosts {
		addrs[i] = fmt.Sprintf("fd00:c0::%d", i+1)
		sh(t, h, "ip addr add "+addrs[i]+"/64 dev eth0 nodad")
		t.Cleanup(func() {
			if _, err := h.Exec(context.Background(), "ip", "addr", "del", addrs[i]+"/64", "dev", "eth0"); err != nil {
				t.Error(err)
			}
		})
	}
	return addrs
}

// dual runs a container as start does and returns both its addresses.
func dual(t *testing.T, h *netlab.Host, name string, args ...string) (four, six string) {
	t.Helper()
	four = start(t, h, name, args...)
	six = docker(t, h, "inspect", "-f", `{{(index .NetworkSettings.Networks "`+network+`").GlobalIPv6Address}}`, name)
	if !strings.HasPrefix(six, "fd00:5:") {
		t.Fatalf("%s has IPv6 address %q", name, six)
	}
	return four, six
}

// TestDualStack carries both families between two hosts on one network.
func TestDualStack(t *testing.T) {
	one, two := cluster.hosts[0], cluster.hosts[1]
	for _, c := range []struct{ backend, device, mtu, narrowed string }{
		{"vxlan", "flannel-v6.1", "1430", "1330"},
		{"host-gw", "eth0", "1500", "1400"},
		{"udp", "flannel0", "1472", "1372"},
	} {
		t.Run(c.backend, func(t *testing.T) {
			if c.backend != "udp" { // which carries IPv6 over IPv4
				addIPv6(t, one, two)
			}
			install(t, cluster.hosts, "BACKEND="+c.backend, "IPV6_NETWORK="+cidr6)
			create(t, cluster.hosts, "--ipv6", "--subnet", cidr, "--subnet", cidr6)
			here4, here := dual(t, one, "here", "busybox", "sh", "-c", largeServer)
			there4, there := dual(t, two, "there", "busybox", "sh", "-c", largeServer)
			contains(t, "route", sh(t, one, "ip route get "+there), "dev "+c.device)
			contains(t, "MTU", docker(t, one, "exec", "here", "cat", "/sys/class/net/eth0/mtu"), c.mtu)
			for _, size := range []string{"1", "8972"} {
				for _, to := range []string{there4, there} {
					docker(t, one, "exec", "here", "ping", "-c", "3", "-i", "0.2", "-w", "10", "-s", size, to)
				}
				for _, to := range []string{here4, here} {
					docker(t, two, "exec", "there", "ping", "-c", "3", "-i", "0.2", "-w", "10", "-s", size, to)
				}
			}
			sh(t, one, "ping -c 1 -w 5 "+there)
			sh(t, two, "ping -c 1 -w 5 "+here)
			green(t, cluster.hosts)
			fetch(t, one, "here", "["+there+"]")
			fetch(t, two, "there", "["+here+"]")
			serve(t, one, "here", "echo")
			serve(t, two, "there", "echo")
			act(t, one, "here", "sweep", there)
			if got := act(t, one, "here", "pmtu", there); strings.TrimSpace(got) != c.mtu {
				t.Errorf("path MTU %s, want %s", got, c.mtu)
			}
			narrow(t, one, "here", there, c.narrowed)
		})
	}
}

// TestDualStackLife has a dual-stack network used as people do, killed and
// healed, and refused where it cannot be.
func TestDualStackLife(t *testing.T) {
	one, two := cluster.hosts[0], cluster.hosts[1]
	for _, h := range cluster.hosts {
		if left := sixes(t, h); left != "" {
			t.Fatalf("%s before:\n%s", h.Name(), left)
		}
	}
	expectErrors(t, cluster.hosts, etcdAway) // which starts with the first host's plugin
	install(t, cluster.hosts, "IPV6_NETWORK="+cidr6)
	refused := func(h *netlab.Host, says string, args ...string) {
		t.Helper()
		err := try(t, h, append([]string{"network", "create", "-d", "flannel", "--ipam-driver", "flannel", "--ipv6"}, args...)...)
		if err == nil {
			undo(t, h, "network", "rm", network)
			t.Errorf("not refused: %s", args)
			return
		}
		t.Log(err)
		contains(t, "refusal", err.Error(), says)
	}
	for _, h := range cluster.hosts {
		refused(h, "interface eth0 has no IPv6 address", "--subnet", cidr6, network)
		// Without --ipv6 it is a network of IPv4.
		docker(t, h, "network", "create", "-d", "flannel", "--ipam-driver", "flannel", network)
		docker(t, h, "network", "rm", network)
	}
	leasesLeft(t, 0)
	addIPv6(t, one, two)
	for _, h := range cluster.hosts {
		refused(h, "--subnet fd00:6::/48", "--subnet", "fd00:6::/48", network)
		refused(h, "the setting NETWORK_POOL has no ipv6-base", "--ipam-opt", "network=red", network)
		// Only --ip and --ip6 need --subnet.
		docker(t, h, "network", "create", "-d", "flannel", "--ipam-driver", "flannel", "--ipv6", network)
		contains(t, "network inspect", docker(t, h, "network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", network), "10.5.", "fd00:5:0:")
		docker(t, h, "network", "rm", network)
	}
	create(t, cluster.hosts, "--ipv6", "--subnet", cidr, "--subnet", cidr6)
	t.Run("tool", func(t *testing.T) { operateDual(t, one) })
	for _, key := range leases(t) {
		contains(t, "lease", key, "&fd00:5:0:", "::-64")
	}
	here4, here := dual(t, one, "here", "busybox", "sleep", "1000")
	_, there := dual(t, two, "there", "busybox", "sleep", "1000")

	t.Run("ip6", func(t *testing.T) {
		want := strings.TrimSuffix(here, "::2") + "::77"
		// Some engines give a restarted container another MAC address, which
		// its neighbours learn only when they find that the old one is silent.
		_, got := dual(t, one, "fixed", "--ip6", want, "--mac-address", "02:42:00:00:77:77", "busybox", "sleep", "600")
		if got != want {
			t.Errorf("--ip6 %s gives %s", want, got)
		}
		docker(t, two, "exec", "there", "ping", "-c", "3", "-i", "0.2", "-w", "10", want)
		docker(t, one, "restart", "-t", "0", "fixed")
		docker(t, two, "exec", "there", "ping", "-c", "3", "-i", "0.2", "-w", "10", want)
		err := try(t, one, "run", "--rm", "--network", network, "--ip6", want, "busybox", "true")
		if err == nil {
			t.Errorf("address %s given twice", want)
		} else {
			contains(t, "second --ip6", err.Error(), want)
		}
		undo(t, one, "container", "prune", "-f")
	})
	t.Run("killed", func(t *testing.T) {
		serve(t, two, "there", "echo")
		beat := pound(t, one, "here", there)
		for _, h := range cluster.hosts {
			killPlugin(t, h)
		}
		if p := beat.stop(t); p.lost() > 0 {
			t.Error(p)
		}
		docker(t, two, "exec", "there", "ping", "-c", "3", "-i", "0.2", "-w", "10", here4)
	})
	t.Run("healed", func(t *testing.T) {
		expectErrors(t, cluster.hosts, repairs)
		gateway := strings.TrimSuffix(here, "2") + "1"
		const bridge = "$(ls /sys/class/net | grep ^fl-)"
		for _, c := range []struct{ fault, back string }{
			{"ip link del flannel-v6.1", "ip link show flannel-v6.1 up | grep -q UP"},
			{"ip -6 route flush proto 117", "ip -6 route show proto 117 | grep -q flannel-v6.1"},
			{"ip -6 neigh flush dev flannel-v6.1 nud permanent", "ip -6 neigh show dev flannel-v6.1 nud permanent | grep -q PERMANENT"},
			{"ip addr del " + gateway + "/64 dev " + bridge, "ip addr show dev " + bridge + " | grep -q " + gateway + "/64"},
			{"nft delete table inet docker-flannel", "nft list table inet docker-flannel | grep -q fd00:5"},
		} {
			// It is there before, and gone in between: the fault fails otherwise.
			sh(t, one, c.back)
			from := len(engineLog(t, one))
			sh(t, one, c.fault)
			wait(t, c.fault, func() error {
				_, err := one.Exec(t.Context(), "sh", "-c", c.back)
				return err
			})
			docker(t, two, "exec", "there", "ping", "-c", "3", "-i", "0.2", "-w", "10", here)
			logged(t, one, from, repairs)
		}
	})
	t.Run("doctor", doctorDual)
	t.Run("isolated", func(t *testing.T) {
		// From outside the network nobody gets in: the wire has a route to
		// the container's subnet, as a router in the way would.
		sh(t, cluster.lab.Wire(), "ip addr add fd00:c0::254/64 dev br0 nodad")
		t.Cleanup(func() {
			if _, err := cluster.lab.Wire().Exec(context.Background(), "ip", "addr", "del", "fd00:c0::254/64", "dev", "br0"); err != nil {
				t.Error(err)
			}
		})
		leadTo(t, here+" via fd00:c0::1")
		sh(t, cluster.lab.Wire(), "ping -c 1 -W 5 fd00:c0::1")
		const dropped = `nft list table inet docker-flannel | grep 'guard out fl-' | grep -o 'packets [0-9]*'`
		before := sh(t, one, dropped)
		defer func() {
			if after := sh(t, one, dropped); after == before {
				t.Errorf("the probe did not come as far as the guard: %s", after)
			}
		}()
		if out, err := cluster.lab.Wire().Exec(t.Context(), "ping", "-c", "2", "-i", "0.2", "-W", "1", here); err == nil {
			t.Errorf("from outside: %s", out)
		}
	})
}

// doctorDual closes the tunnel of IPv6 alone, has that found on both hosts, and mends
// it as the doctor says.
func doctorDual(t *testing.T) {
	one, two := cluster.hosts[0], cluster.hosts[1]
	green(t, cluster.hosts)
	sh(t, two, "nft 'table ip6 fw { chain in { type filter hook input priority 10; udp dport 8472 drop; }; }'")
	t.Cleanup(func() {
		if _, err := two.Exec(context.Background(), "nft", "delete", "table", "ip6", "fw"); err != nil {
			t.Error(err)
		}
	})
	wait(t, "the first host's word", func() error {
		for _, v := range diagnose(t, one) {
			if v.Check == "tunnel" && v.State == "warn" && strings.Contains(v.Found, "IPv6 does not") && strings.Contains(v.Mend, "ip6tables-nft -I INPUT") && strings.Contains(v.On, two.Addr().String()) {
				return nil
			}
		}
		return errors.New("the tunnel of IPv6 is not in it")
	})
	near := find(t, two, symptom{1, "firewall", "table ip6 fw", "nft insert rule ip6 fw in udp dport 8472 accept"})
	sh(t, two, near.Mend)
	green(t, cluster.hosts)
}

// sixes is what a host's kernel has of IPv6 on flannel networks.
func sixes(t testing.TB, h *netlab.Host) string {
	t.Helper()
	return sh(t, h, `ip -o link | grep flannel-v6; ip -o addr | grep fd00:5; ip -6 route show table all | grep -v "^fd00:5:.*metric 0" | grep fd00:5; true`)
}

// TestDualStackGoes leaves nothing of IPv6 behind, and keeps what the host hears
// of its routers while it forwards.
func TestDualStackGoes(t *testing.T) {
	addIPv6(t, cluster.hosts...)
	install(t, cluster.hosts, "IPV6_NETWORK="+cidr6)
	for _, h := range cluster.hosts {
		docker(t, h, "network", "create", "-d", "flannel", "--ipam-driver", "flannel", "--ipv6", "--subnet", cidr6, network)
		docker(t, h, "run", "--rm", "--network", network, "busybox", "true")
		if during := sixes(t, h); !strings.Contains(during, "flannel-v6.1") {
			t.Errorf("the probe does not see the network on %s:\n%s", h.Name(), during)
		}
		for setting, want := range map[string]string{"all/forwarding": "1", "eth0/accept_ra": "2"} {
			if got := sh(t, h, "cat /proc/sys/net/ipv6/conf/"+setting); got != want {
				t.Errorf("%s: %s is %s, want %s", h.Name(), setting, got, want)
			}
		}
	}
	for _, h := range cluster.hosts {
		docker(t, h, "network", "rm", network)
		if after := sixes(t, h); after != "" {
			t.Errorf("%s after:\n%s", h.Name(), after)
		}
	}
	leasesLeft(t, 0)
}

// operateDual looks at a dual-stack network as an operator does, and has a lease
// of both families that an earlier life of the host has left given back.
func operateDual(t *testing.T, h *netlab.Host) {
	equipCLI(t, h)
	gateway := sh(t, h, "ip -o -6 addr show scope global | grep -o 'fd00:5:[^ ]*::1/64'")
	six := strings.TrimSuffix(gateway, "1/64") + "/64"
	out := flannel(t, h, 0, "status")
	t.Log("\n" + out)
	contains(t, "status", out, "ipv6     "+six+"  of "+cidr6+", PublicIPv6 fd00:c0::1", "IPV6 PEER", "fd00:c0::2", "all is well")
	contains(t, "leases", flannel(t, h, 0, "leases"), cidr+" "+cidr6, six, "fd00:c0::1", "fd00:c0::2")
	contains(t, "network ls", flannel(t, h, 0, "network", "ls"), cidr+" "+cidr6)
	contains(t, "env", flannel(t, h, 0, "env"), "FLANNEL_IPV6_NETWORK="+cidr6+"\nFLANNEL_IPV6_SUBNET="+gateway+"\nFLANNEL_MTU=1430")

	other := prefix + "/old"
	etcdctl := func(args ...string) string {
		t.Helper()
		out, err := cluster.lab.Etcdctl(t.Context(), fmt.Sprintf("http://%s:2379", cluster.hosts[0].Addr()), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	etcdctl("put", other+"/config", `{"EnableIPv6":true,"Network":"10.88.0.0/16","IPv6Network":"fd00:88::/48","Backend":{"Type":"host-gw"}}`)
	lease := strings.Fields(etcdctl("lease", "grant", "600"))[1]
	etcdctl("put", "--lease="+lease, other+"/subnets/10.88.7.0-24&fd00:88:0:7::-64", fmt.Sprintf(`{"PublicIP":"%s","PublicIPv6":"fd00:c0::1","BackendType":"host-gw"}`, h.Addr()))
	contains(t, "leases", flannel(t, h, 0, "leases", "old"), "10.88.7.0/24", "fd00:88:0:7::/64", "this host")
	contains(t, "leave", flannel(t, h, 0, "leave", "--network", "old"), "10.88.7.0/24 of network old is given back")
	if left := strings.TrimSpace(etcdctl("get", "--prefix", "--keys-only", other+"/subnets")); left != "" {
		t.Errorf("leases after leave: %s", left)
	}
	flannel(t, h, 0, "network", "rm", "old")
}
