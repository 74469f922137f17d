//go:build lab

package e2e

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

const (
	gateway6 = "fd00:c0::254" // the wire's address on the hosts' network
	outside6 = "fd00:beef::1" // one behind it
)

// leadOut6 gives the hosts IPv6 addresses and a way to a witness outside.
func leadOut6(t *testing.T, hosts []*netlab.Host) (addrs []string, witness string) {
	t.Helper()
	addrs = addIPv6(t, hosts...)
	for at, command := range map[*netlab.Host][2]string{
		cluster.lab.Wire(): {
			"ip addr add " + gateway6 + "/64 dev br0 nodad; ip addr add " + outside6 + "/128 dev lo nodad",
			"ip addr del " + gateway6 + "/64 dev br0; ip addr del " + outside6 + "/128 dev lo"},
		hosts[0]: {"ip route add " + outside6 + " via " + gateway6, "ip route del " + outside6},
		hosts[1]: {"ip route add " + outside6 + " via " + gateway6, "ip route del " + outside6},
	} {
		sh(t, at, command[0])
		t.Cleanup(func() {
			if _, err := at.Exec(context.Background(), "sh", "-c", command[1]); err != nil {
				t.Error(err)
			}
		})
	}
	return addrs, witnessAt(t, outside6)
}

// TestDualStackGateway has both families go out by the bridge of a dual-stack
// network, and ports published in both.
func TestDualStackGateway(t *testing.T) {
	hosts := cluster.hosts
	install(t, hosts, "IPV6_NETWORK="+cidr6)
	own, beyond := leadOut6(t, hosts)
	create(t, hosts, "--ipv6", "-o", "gateway=flannel")
	fours, sixes := make([]string, len(hosts)), make([]string, len(hosts))
	for i, h := range hosts {
		fours[i], sixes[i] = dual(t, h, "front", "-p", "8080:7008", "-p", "8080:7008/udp",
			"-p", "["+own[i]+"]:8090:7008", "-p", "[::]:8091:7008", "-p", "0.0.0.0:8092:7008", "-p", "7008", "busybox", "sleep", "600")
		dual(t, h, "side", "busybox", "sleep", "600")
		serve(t, h, "front", "witness")
	}
	for i, h := range hosts {
		o := 1 - i
		other := hosts[o]
		wait(t, "witness", func() error { _, err := asks(other, "tcp", "["+own[i]+"]:8080"); return err })
		t.Run("out of "+h.Name(), func(t *testing.T) {
			if got := strings.Join(strings.Fields(docker(t, h, "exec", "front", "ls", "/sys/class/net")), " "); got != "eth0 lo" {
				t.Errorf("interfaces %s", got)
			}
			contains(t, "routes", docker(t, h, "exec", "front", "ip", "-6", "route"), "default via "+bridge6(sixes[i]))
			for _, proto := range []string{"tcp", "udp"} {
				tells(t, "outside", h, "front", proto, beyond, own[i])
				tells(t, "another host's container", h, "front", proto, "["+sixes[o]+"]:7008", sixes[i])
				tells(t, "another host's container by IPv4", h, "front", proto, fours[o]+":7008", fours[i])
				tells(t, "another host's port", h, "front", proto, "["+own[o]+"]:8080", own[i])
			}
		})
		t.Run("into "+h.Name(), func(t *testing.T) { checkIn6(t, h, other, own[i], own[o], sixes[i]) })
		t.Run("taken on "+h.Name(), func(t *testing.T) {
			for _, c := range []struct{ port, says string }{
				{"[" + own[i] + "]:8080:80", "8080/tcp"},
				{"[fd00:77::1]:8100:80", "fd00:77::1"},
				{"[::1]:8100:80", "host address ::1"},
			} {
				err := try(t, h, "run", "--rm", "--network", network, "-p", c.port, "busybox", "true")
				if err == nil {
					t.Errorf("-p %s: not refused", c.port)
					continue
				}
				t.Log(err)
				contains(t, c.port, err.Error(), c.says)
			}
		})
	}
	t.Run("streams", func(t *testing.T) { checkStream(t, hosts[0], hosts[1], "["+own[0]+"]:8087") })
	for i, h := range hosts {
		other := hosts[1-i]
		t.Run("goes from "+h.Name(), func(t *testing.T) {
			docker(t, h, "stop", "-t", "0", "front")
			hidden(t, "the container is stopped", other, "tcp", "["+own[i]+"]:8080")
			docker(t, h, "start", "front")
			serve(t, h, "front", "witness")
			wait(t, "the container's return", func() error { _, err := asks(other, "udp", "["+own[i]+"]:8080"); return err })
		})
	}
}

// bridge6 is the address of the bridge that a container's IPv6 address is behind.
func bridge6(addr string) string { return addr[:strings.LastIndex(addr, ":")+1] + "1" }

// checkIn6 asks at a host's published ports over IPv6, and past them.
func checkIn6(t *testing.T, h, other *netlab.Host, at, from, addr string) {
	for _, proto := range []string{"tcp", "udp"} {
		sees(t, "another host", other, proto, "["+at+"]:8080", from)
		sees(t, "beyond", cluster.lab.Wire(), proto, "["+at+"]:8080", gateway6)
		sees(t, "the host itself", h, proto, "["+at+"]:8080", at)
		tells(t, "the container itself", h, "front", proto, "["+at+"]:8080", bridge6(addr))
		tells(t, "its neighbour", h, "side", proto, "["+at+"]:8080", bridge6(addr))
	}
	// The host's ::1 refuses at once, and programs go on to 127.0.0.1.
	if got, err := asks(h, "tcp", "[::1]:8080"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("::1 sees %q, %v", got, err)
	}
	sees(t, "127.0.0.1", h, "tcp", "127.0.0.1:8080", docker(t, h, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", network))
	for port, families := range map[string]struct{ four, six bool }{
		"8090": {six: true}, "8091": {six: true}, "8092": {four: true}, "8093": {},
	} {
		for to, answers := range map[string]bool{h.Addr().String() + ":" + port: families.four, "[" + at + "]:" + port: families.six} {
			ask := func() (string, error) { return asks(other, "tcp", to) }
			if answers {
				if _, err := persist(ask); err != nil {
					t.Errorf("%s does not answer: %v", to, err)
				}
			} else if said, err := ask(); err == nil {
				t.Errorf("%s answers %q", to, said)
			}
		}
	}
	free := sh(t, h, `nft list chain inet docker-flannel prerouting | sed -n 's/.* tcp \[::\]:\([3-6][0-9]\{4\}\) to .`+addr+`.*/\1/p'`)
	sees(t, "a free port", other, "tcp", "["+at+"]:"+free, from)
	if got, err := persist(func() (string, error) { return asks(other, "tcp", h.Addr().String()+":"+free) }); err != nil {
		t.Errorf("the same free port by IPv4: %q, %v", got, err)
	}
	// Past the ports, by a route that leads there: nobody gets in.
	leadTo(t, addr+" via "+at)
	leadTo(t, bridge6(addr)+" via "+at)
	sh(t, cluster.lab.Wire(), "ping -c 1 -W 5 "+bridge6(addr))
	hidden(t, "past the ports", cluster.lab.Wire(), "tcp", "["+addr+"]:7008")
}

// TestDualStackGatewayKeepsAddresses: without masquerading the outside sees
// containers' own IPv6 addresses.
func TestDualStackGatewayKeepsAddresses(t *testing.T) {
	install(t, cluster.hosts, "IPV6_NETWORK="+cidr6)
	own, beyond := leadOut6(t, cluster.hosts)
	create(t, cluster.hosts, "--ipv6", "-o", "gateway=flannel", "-o", "ip-masq=false")
	for i, h := range cluster.hosts {
		_, addr := dual(t, h, "front", "busybox", "sleep", "600")
		silent(t, "no way back", h, "front", "udp", beyond)
		leadTo(t, addr+" via "+own[i])
		tells(t, "outside", h, "front", "tcp", beyond, addr)
	}
}
