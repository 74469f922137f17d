//go:build lab

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// witnessOutside has a witness on the wire, beyond the hosts' own network.
func witnessOutside(t *testing.T) string {
	t.Helper()
	return witnessAt(t, netlab.Outside)
}

// witnessAt has a witness at one of the wire's addresses.
func witnessAt(t *testing.T, addr string) string {
	t.Helper()
	var tcp net.Listener
	var udp net.PacketConn
	err := cluster.lab.Wire().Do(func() (err error) {
		tcp, udp, err = openWitness(addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close(); udp.Close() })
	return net.JoinHostPort(addr, strconv.Itoa(witnessPort))
}

// leadTo gives the wire a route for the length of a test.
func leadTo(t *testing.T, route string) {
	t.Helper()
	sh(t, cluster.lab.Wire(), "ip route add "+route)
	t.Cleanup(func() {
		if _, err := cluster.lab.Wire().Exec(context.Background(), "sh", "-c", "ip route del "+route); err != nil {
			t.Error(err)
		}
	})
}

// at is a host's port.
func at(h *netlab.Host, port int) string { return fmt.Sprintf("%s:%d", h.Addr(), port) }

// tells has a container ask a witness; it must answer that it sees this address.
func tells(t *testing.T, what string, h *netlab.Host, container, proto, to, want string) {
	t.Helper()
	asking := inside(t, h, container, "ask", []string{proto, to})
	got, err := persist(func() (string, error) { return h.Exec(t.Context(), "nsenter", asking...) })
	if err != nil || got != want {
		t.Errorf("%s: %s %s from %s: sees %q, want %q; %v", what, proto, to, container, got, want, err)
	}
}

// silent has a container ask a witness that must not answer.
func silent(t *testing.T, what string, h *netlab.Host, container, proto, to string) {
	t.Helper()
	if got, err := h.Exec(t.Context(), "nsenter", inside(t, h, container, "ask", []string{proto, to})...); err == nil {
		t.Errorf("%s: %s %s from %s: sees %q, want no answer", what, proto, to, container, got)
	}
}

func TestGateway(t *testing.T) {
	expectErrors(t, cluster.hosts, etcdAway) // which starts with the first host's plugin
	install(t, cluster.hosts)
	create(t, cluster.hosts, "-o", "gateway=flannel")
	beyond := witnessOutside(t)
	addrs := map[*netlab.Host]string{}
	for _, h := range cluster.hosts {
		equipCLI(t, h)
		addrs[h] = start(t, h, "front", "-p", "8080:7008", "-p", "8080:7008/udp", "-p", "8080:7008/sctp",
			"-p", h.Addr().String()+":8090:7008", "-p", "127.0.0.1:8091:7008", "-p", "9000-9002:7008", "-p", "7008", "busybox", "sleep", "600")
		start(t, h, "side", "-p", "9000-9002:7008", "busybox", "sleep", "600")
		serve(t, h, "front", "witness")
		serve(t, h, "side", "witness")
	}
	for i, h := range cluster.hosts {
		other := cluster.hosts[1-i]
		t.Run(h.Name(), func(t *testing.T) {
			wait(t, "witnesses", func() error { _, err := asks(other, "tcp", at(h, 9001)); return err })
			t.Run("out", func(t *testing.T) { checkOut(t, h, other, beyond, addrs) })
			t.Run("in", func(t *testing.T) { checkIn(t, h, other, addrs[h]) })
			t.Run("taken", func(t *testing.T) { checkTaken(t, h, addrs[h]) })
		})
	}
	t.Run("streams", func(t *testing.T) { checkStream(t, cluster.hosts[0], cluster.hosts[1], at(cluster.hosts[0], 8087)) })
	for i, h := range cluster.hosts {
		t.Run("the plugin dies on "+h.Name(), func(t *testing.T) { checkDeath(t, h, cluster.hosts[1-i]) })
	}
}

// checkOut looks at what leaves the host and what stays in the network.
func checkOut(t *testing.T, h, other *netlab.Host, beyond string, addrs map[*netlab.Host]string) {
	links := docker(t, h, "exec", "front", "ls", "/sys/class/net")
	if got := strings.Join(strings.Fields(links), " "); got != "eth0 lo" {
		t.Errorf("interfaces %s", got)
	}
	contains(t, "routes", docker(t, h, "exec", "front", "ip", "route"), "default via "+head(addrs[h])+".1")
	for _, proto := range []string{"tcp", "udp"} {
		tells(t, "outside", h, "front", proto, beyond, h.Addr().String())
		tells(t, "another host's container", h, "front", proto, addrs[other]+":7008", addrs[h])
		tells(t, "the host's other container", h, "side", proto, addrs[h]+":7008", address(t, h, "side"))
		tells(t, "another host's port", h, "front", proto, at(other, 8080), h.Addr().String())
	}
	docker(t, h, "exec", "front", "nslookup", "side", "127.0.0.11")
}

// checkIn asks at published ports from everywhere, and past them.
func checkIn(t *testing.T, h, other *netlab.Host, addr string) {
	wire := cluster.lab.Wire()
	contains(t, "status", strings.Join(strings.Fields(flannel(t, h, 0, "status")), " "), "PUBLISHED LEADS TO ENDPOINT",
		"0.0.0.0:8080/sctp "+addr+":7008 ", "127.0.0.1:8091/tcp "+addr+":7008 ", at(h, 8090)+"/tcp "+addr+":7008 ")
	for _, proto := range []string{"tcp", "udp"} {
		sees(t, "another host", other, proto, at(h, 8080), other.Addr().String())
		sees(t, "beyond", wire, proto, at(h, 8080), netlab.Gateway)
		sees(t, "the host itself", h, proto, at(h, 8080), h.Addr().String())
		sees(t, "loopback", h, proto, "127.0.0.1:8080", head(addr)+".1")
		tells(t, "the container itself", h, "front", proto, at(h, 8080), head(addr)+".1")
		tells(t, "its neighbour", h, "side", proto, at(h, 8080), head(addr)+".1")
	}
	sees(t, "sctp", other, "sctp", at(h, 8080), "answered")
	hidden(t, "sctp control", other, "sctp", at(h, 8081))
	sees(t, "host address", other, "tcp", at(h, 8090), other.Addr().String())
	hidden(t, "host address", h, "tcp", "127.0.0.1:8090")
	sees(t, "loopback address", h, "tcp", "127.0.0.1:8091", head(addr)+".1")
	hidden(t, "loopback address", other, "tcp", at(h, 8091))
	sees(t, "the range's first", other, "tcp", at(h, 9000), other.Addr().String())
	sees(t, "the range's second", other, "tcp", at(h, 9001), other.Addr().String())
	hidden(t, "the range's third", other, "tcp", at(h, 9002))

	free := sh(t, h, `nft list chain inet docker-flannel prerouting | sed -n 's/.* tcp 0.0.0.0:\([3-6][0-9]\{4\}\) to `+addr+`.*/\1/p'`)
	sees(t, "a free port", other, "tcp", h.Addr().String()+":"+free, other.Addr().String())

	// Past the ports: whoever routes to the containers reaches none. That the
	// route leads there is shown by the host's own answer.
	route := fmt.Sprintf("%s.0/24 via %s", head(addr), h.Addr())
	leadTo(t, route)
	sh(t, wire, "ping -c 1 -W 5 "+head(addr)+".1")
	hidden(t, "past the ports", wire, "tcp", addr+":7008")

	// Containers of a bridge network: by the ports only.
	docker(t, h, "run", "-d", "--name", "stranger", "-p", "8070:7008", "busybox", "sleep", "600")
	undo(t, h, "rm", "-f", "stranger")
	serve(t, h, "stranger", "witness")
	theirs := docker(t, h, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "stranger")
	wait(t, "the stranger's witness", func() error { _, err := asks(h, "tcp", theirs+":7008"); return err })
	tells(t, "a bridge network's container", h, "stranger", "tcp", at(h, 8080), head(addr)+".1")
	silent(t, "a bridge network's container", h, "stranger", "tcp", addr+":7008")
	tells(t, "to a bridge network's port", h, "front", "tcp", at(h, 8070), head(theirs)+".1")
	silent(t, "to a bridge network's container", h, "front", "tcp", theirs+":7008")
}

// checkTaken wants ports that are taken.
func checkTaken(t *testing.T, h *netlab.Host, addr string) {
	refused := func(port string, says ...string) {
		t.Helper()
		err := try(t, h, "run", "--rm", "--network", network, "-p", port, "busybox", "true")
		if err == nil {
			t.Errorf("-p %s: not refused", port)
			return
		}
		t.Log(err)
		contains(t, "-p "+port, err.Error(), says...)
	}
	var own net.Listener
	err := h.Do(func() (err error) {
		own, err = net.Listen("tcp4", ":8099")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	refused("8099:80", "8099/tcp", "a program of this host", "ss -lnp")
	own.Close()
	docker(t, h, "run", "--rm", "--network", network, "-p", "8099:80", "busybox", "true")
	refused("8080:80", "8080/tcp", addr)
	refused(h.Addr().String()+":8080:80", "8080/tcp", addr)
	refused("9000-9001:80", "9000-9001")
	refused("198.51.100.77:8100:80", "198.51.100.77")
	notFree(t, h)
	if err := try(t, h, "run", "--rm", "-p", "8080:80", "busybox", "true"); err == nil {
		t.Error("a bridge network's container has the port too")
	}
}

// notFree wants a published port for a program of the host.
func notFree(t *testing.T, h *netlab.Host) {
	t.Helper()
	err := h.Do(func() error {
		l, err := net.Listen("tcp4", ":8080")
		if err == nil {
			l.Close()
		}
		return err
	})
	if err == nil {
		t.Error("a program of the host has the port too")
	}
}

// checkStream sends from one socket all the time, before the port is published and
// while it goes from one container to another: h's port 8087, as other knows it.
func checkStream(t *testing.T, h, other *netlab.Host, to string) {
	var c net.Conn
	err := other.Do(func() (err error) {
		c, err = net.Dial("udp", to)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := askOn(c, "udp"); err == nil {
		t.Fatalf("answered %q before the port is published", got)
	}
	for _, name := range []string{"stream1", "stream2"} {
		start(t, h, name, "-p", "8087:7008/udp", "busybox", "sleep", "600")
		serve(t, h, name, "witness")
		wait(t, name+"'s answer", func() error { _, err := askOn(c, "udp"); return err })
		docker(t, h, "stop", "-t", "0", name)
	}
}

// checkDeath kills the plugin, and then stops the container.
func checkDeath(t *testing.T, h, other *netlab.Host) {
	pid := sh(t, h, "pidof flannel")
	sh(t, h, "kill -9 "+pid)
	sees(t, "the plugin is dead", other, "tcp", at(h, 8080), other.Addr().String())
	wait(t, "the plugin's return", func() error {
		if again, err := h.Exec(t.Context(), "pidof", "flannel"); err != nil || again == pid {
			return fmt.Errorf("process %q, %w", again, err)
		}
		_, err := os.Stat(legacySocket(h))
		return err
	})
	wait(t, "the port held again", func() error {
		_, err := h.Exec(t.Context(), "sh", "-c", "ss -Hltn 'sport = :8080' | grep -q .")
		return err
	})
	notFree(t, h)
	sees(t, "the plugin is back", other, "tcp", at(h, 8080), other.Addr().String())
	docker(t, h, "stop", "-t", "0", "front")
	hidden(t, "the container is stopped", other, "tcp", at(h, 8080))
	docker(t, h, "start", "front")
	serve(t, h, "front", "witness")
	wait(t, "the container's return", func() error { _, err := asks(other, "udp", at(h, 8080)); return err })
}

// TestGatewayFaults takes engines and hosts away, after which the ports lead to
// the containers that come back.
func TestGatewayFaults(t *testing.T) {
	expectErrors(t, cluster.hosts, etcdAway, afterBoot)
	etcd, err := cluster.lab.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{hosts: cluster.hosts, etcd: etcd}
	for _, h := range s.hosts {
		installWith(t, h, "ETCD_ENDPOINTS="+etcd.Endpoint)
	}
	t.Cleanup(func() { s.ctl(t, "del", "--prefix", prefix) })
	create(t, s.hosts, "-o", "gateway=flannel")
	for _, h := range s.hosts {
		start(t, h, "front", "--restart", "always", "--stop-timeout", "1", "-p", "8080:80", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
	}
	for _, c := range []struct {
		name  string
		fault func(h *netlab.Host) error
	}{
		{"engine killed", func(h *netlab.Host) error { h.KillEngine(); return nil }},
		{"power lost", (*netlab.Host).PowerOff},
	} {
		for i, h := range s.hosts {
			t.Run(c.name+", "+h.Name(), func(t *testing.T) {
				if err := c.fault(h); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				if err := h.StartEngine(ctx); err != nil {
					t.Fatal(err)
				}
				other := s.hosts[1-i]
				wait(t, "the port", func() error {
					conn, err := other.DialContext(t.Context(), "tcp4", at(h, 8080))
					if err != nil {
						return err
					}
					return conn.Close()
				})
				contains(t, "the page", get(t, other, "http://"+at(h, 8080)+"/passwd"), "root")
				docker(t, h, "exec", "front", "ping", "-c", "3", "-i", "0.2", "-w", "10", netlab.Outside)
			})
		}
	}
}

// TestGatewayKeepsAddresses: without masquerading the outside sees containers'
// own addresses.
func TestGatewayKeepsAddresses(t *testing.T) {
	install(t, cluster.hosts)
	create(t, cluster.hosts, "-o", "gateway=flannel", "-o", "ip-masq=false")
	beyond := witnessOutside(t)
	wire := cluster.lab.Wire()
	for _, h := range cluster.hosts {
		addr := start(t, h, "front", "-p", "8080:7008", "busybox", "sleep", "600")
		serve(t, h, "front", "witness")
		silent(t, "no way back", h, "front", "udp", beyond)
		route := fmt.Sprintf("%s.0/24 via %s", head(addr), h.Addr())
		leadTo(t, route)
		tells(t, "outside", h, "front", "tcp", beyond, addr)
		wait(t, "witness", func() error { _, err := asks(wire, "tcp", at(h, 8080)); return err })
		hidden(t, "past the port", wire, "tcp", addr+":7008")
		tells(t, "hairpin", h, "front", "tcp", at(h, 8080), head(addr)+".1")
	}
}

// TestGatewayInternal: an internal network has no way out in this mode either.
func TestGatewayInternal(t *testing.T) {
	install(t, cluster.hosts)
	create(t, cluster.hosts, "--internal", "-o", "gateway=flannel")
	beyond := witnessOutside(t)
	addrs := map[*netlab.Host]string{}
	for _, h := range cluster.hosts {
		addrs[h] = start(t, h, "front", "-p", "8080:7008", "busybox", "sleep", "600")
		serve(t, h, "front", "witness")
	}
	for i, h := range cluster.hosts {
		other := cluster.hosts[1-i]
		if routes := docker(t, h, "exec", "front", "ip", "route"); strings.Contains(routes, "default") {
			t.Errorf("routes of an internal network:\n%s", routes)
		}
		wait(t, "witness", func() error { _, err := asks(h, "tcp", addrs[h]+":7008"); return err })
		tells(t, "the other host's container", h, "front", "tcp", addrs[other]+":7008", addrs[h])
		silent(t, "outside", h, "front", "tcp", beyond)
		hidden(t, "published", other, "tcp", at(h, 8080))
		if rules := sh(t, h, "nft list table inet docker-flannel"); strings.Contains(rules, "nat") {
			t.Errorf("rules of an internal network:\n%s", rules)
		}
		// A way out made inside the container ends at the host.
		sh(t, h, "nsenter -t "+docker(t, h, "inspect", "-f", "{{.State.Pid}}", "front")+" -n ip route add default via "+head(addrs[h])+".1")
		silent(t, "outside by a route of one's own", h, "front", "tcp", beyond)
	}
}
