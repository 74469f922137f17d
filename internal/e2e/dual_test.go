//go:build lab

package e2e

import (
	"context"
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
	addIPv6(t, one, two)
	for _, c := range []struct{ backend, device, mtu, narrowed string }{
		{"vxlan", "flannel-v6.1", "1430", "1330"},
		{"host-gw", "eth0", "1500", "1400"},
	} {
		t.Run(c.backend, func(t *testing.T) {
			install(t, cluster.hosts, "BACKEND="+c.backend, "IPV6_NETWORK="+cidr6)
			create(t, cluster.hosts, "--ipv6", "--subnet", cidr, "--subnet", cidr6)
			here4, here := dual(t, one, "here", "busybox", "sh", "-c", largeServer)
			there4, there := dual(t, two, "there", "busybox", "sh", "-c", largeServer)
			contains(t, "route", sh(t, one, "ip route get "+there), "dev "+c.device)
			contains(t, "MTU", docker(t, one, "exec", "here", "cat", "/sys/class/net/eth0/mtu"), c.mtu)
			for _, size := range []string{"1", "1382", "2000", "8972"} {
				for _, to := range []string{there4, there} {
					docker(t, one, "exec", "here", "ping", "-c", "2", "-i", "0.2", "-w", "5", "-s", size, to)
				}
				for _, to := range []string{here4, here} {
					docker(t, two, "exec", "there", "ping", "-c", "2", "-i", "0.2", "-w", "5", "-s", size, to)
				}
			}
			sh(t, one, "ping -c 2 -i 0.2 -w 5 "+there)
			sh(t, two, "ping -c 2 -i 0.2 -w 5 "+here)
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
