//go:build lab

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// TestHeal takes away, under traffic, what the plugin has made in a host's
// kernel. Where that cuts the traffic, the beat is the control that shows it;
// it must be back within two seconds. What others may keep (firewalld's reload)
// comes back as well.
func TestHeal(t *testing.T) {
	expectErrors(t, cluster.hosts, repairs)
	s := setScene(t)
	peer := head(s.addrs[1]) + ".0"
	for _, c := range []struct {
		name, command string
		cuts          bool // the beat must notice
		back          string
	}{
		{"vxlan device deleted", "ip link del flannel.1", true, "ip link show flannel.1 up | grep -q UP"},
		{"vxlan device down", "ip link set flannel.1 down", true, "ip link show flannel.1 up | grep -q UP"},
		{"vxlan device down and up", "ip link set flannel.1 down; ip link set flannel.1 up", true, "ip route show " + peer + "/24 | grep -q flannel.1"},
		{"vxlan device with another MTU", "ip link set flannel.1 mtu 1000", false, "ip link show flannel.1 | grep -q 'mtu 1450'"},
		{"route deleted", "ip route del " + peer + "/24", true, "ip route show " + peer + "/24 | grep -q flannel.1"},
		{"route to nowhere", "ip route replace blackhole " + peer + "/24 metric 1 proto 117; ip route flush " + peer + "/24 dev flannel.1", true, "ip route show " + peer + "/24 | grep -q flannel.1"},
		{"neighbour deleted", "ip neigh del " + peer + " dev flannel.1", false, "ip neigh show " + peer + " dev flannel.1 | grep -q PERMANENT"},
		{"neighbours flushed", "ip neigh flush dev flannel.1 nud permanent", false, "ip neigh show " + peer + " dev flannel.1 | grep -q PERMANENT"},
		{"forwarding entry deleted", "bridge fdb show dev flannel.1 | while read mac rest; do bridge fdb del $mac dev flannel.1; done", true, "bridge fdb show dev flannel.1 | grep -q dst"},
		{"bridge down", "ip link set $(ip -br link | grep -o '^fl-[0-9a-f]*') down", true, "ip -br link | grep '^fl-' | grep -q UP"},
		{"bridge address removed", "ip addr flush dev $(ip -br link | grep -o '^fl-[0-9a-f]*')", true, "ip -br addr | grep '^fl-' | grep -q /24"},
		{"nft table deleted", "nft delete table inet docker-flannel", false, "nft list table inet docker-flannel"},
		{"all of nftables flushed, as firewalld does", "iptables-save >/rules; ip6tables-save >/rules6; nft flush ruleset", false, "nft list table inet docker-flannel"},
		{"the engine's rules back", "iptables-restore </rules; ip6tables-restore </rules6; nft flush table inet docker-flannel", false, "nft list table inet docker-flannel | grep -q fl-"},
		{"peers' addresses flushed", "nft flush set inet docker-flannel-doors door_8472_1_ip", true, "nft list set inet docker-flannel-doors door_8472_1_ip | grep -q elements"},
		{"rules in DOCKER-USER flushed", "iptables -F DOCKER-USER", true, "iptables -S DOCKER-USER | grep -q fl-"},
		{"ip_forward off", "sysctl -qw net.ipv4.ip_forward=0", true, "sysctl -n net.ipv4.ip_forward | grep -q 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := s.hosts[0]
			hearts := s.hearts(t)
			sh(t, h, c.command)
			wait(t, "repair", func() error {
				_, err := h.Exec(t.Context(), "sh", "-c", c.back)
				return err
			})
			act(t, h, echoes[0], "push", s.addrs[1])
			all := calm(t, hearts, int(2*time.Second/beatEvery))
			if cut := all[0].lost()+all[1].lost() > 0; cut != c.cuts {
				t.Errorf("traffic cut: %t, expected %t", cut, c.cuts)
			}
		})
	}
	s.sound(t)
}

// TestAddressChanges gives a host another address, as a DHCP server may: its
// lease, its device and its peers follow.
func TestAddressChanges(t *testing.T) {
	expectErrors(t, cluster.hosts, etcdAway) // a call may meet its connection's end
	s := setScene(t)
	h := s.hosts[1]
	old, now := h.Addr().String(), "192.0.2.77"
	move := func(from, to string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := h.Exec(ctx, "sh", "-ec", fmt.Sprintf(
			"sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1; ip addr add %[2]s/24 dev eth0; ip addr del %[1]s/24 dev eth0; ip route show default | grep -q .", from, to)); err != nil {
			t.Fatal(err)
		}
	}
	hearts := s.hearts(t)
	t.Cleanup(func() { move(now, old) })
	move(old, now)
	wait(t, "the peer's forwarding entry", func() error {
		_, err := s.hosts[0].Exec(t.Context(), "sh", "-c", "bridge fdb show dev flannel.1 | grep -q "+now)
		return err
	})
	contains(t, "lease", s.ctl(t, "get", prefix+"/subnets/"+head(s.addrs[1])+".0-24"), `"PublicIP":"`+now+`"`)
	wait(t, "the host's own device", func() error {
		_, err := h.Exec(t.Context(), "sh", "-c", "ip -d link show flannel.1 | grep -q 'local "+now+"'")
		return err
	})
	s.sound(t)
	calm(t, hearts, int(2*time.Second/beatEvery))
}

// TestLeaseFaults puts into etcd what a host must not fall for. Every peer that
// is in order stays reachable all the time, and the log names each fault.
func TestLeaseFaults(t *testing.T) {
	expectErrors(t, cluster.hosts, etcdAway, "lease not renewed, trying on.*is leased to host 192.0.2.200 while containers of this host use it")
	s := setScene(t, "LEASE_TTL=10s")
	h := s.hosts[0]
	mine := head(s.addrs[0]) + ".0-24"
	fine := `{"PublicIP":"192.0.2.200","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:c8"}}`
	for _, c := range []struct {
		name, key, value string
		says             []string
	}{
		{"junk key", "junk", fine, []string{"junk"}},
		{"junk JSON", "10.5.201.0-24", "{", []string{"10.5.201.0-24"}},
		{"out of range", "10.66.1.0-24", fine, []string{"10.66.1.0"}},
		{"another length", "10.5.201.0-25", fine, []string{"10.5.201.0"}},
		{"wrong MAC", "10.5.201.0-24", strings.Replace(fine, "02:00:00:00:00:c8", "nonsense", 1), []string{"nonsense"}},
		{"unknown backend", "10.5.201.0-24", strings.Replace(fine, "vxlan", "warp", 1), []string{`uses backend \\\"warp`}},
		{"our own PublicIP", "10.5.201.0-24", strings.Replace(fine, "192.0.2.200", h.Addr().String(), 1), []string{"10.5.201.0", "names this host's PublicIP"}},
		{"another VNI", "10.5.201.0-24", strings.Replace(fine, `"VNI":1`, `"VNI":7`, 1), []string{"uses VNI 7"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			hearts := s.hearts(t)
			before := len(engineLog(t, h))
			s.ctl(t, "put", prefix+"/subnets/"+c.key, c.value)
			wait(t, "a word in the log", func() error {
				text := engineLog(t, h)[before:]
				for _, part := range c.says {
					if !strings.Contains(text, part) {
						return fmt.Errorf("%q is not in %s", part, text)
					}
				}
				return nil
			})
			s.ctl(t, "del", prefix+"/subnets/"+c.key)
			calm(t, hearts, 0)
		})
	}
	t.Run("a peer that moves", func(t *testing.T) {
		key := prefix + "/subnets/10.5.201.0-24"
		for _, to := range []string{"192.0.2.200", "192.0.2.201"} {
			s.ctl(t, "put", key, strings.Replace(fine, "192.0.2.200", to, 1))
			began := time.Now()
			wait(t, "the forwarding entry", func() error {
				_, err := h.Exec(t.Context(), "sh", "-c", "bridge fdb show dev flannel.1 | grep -q 'dst "+to+" '")
				return err
			})
			took := time.Since(began)
			t.Logf("followed after %s", took.Round(time.Millisecond))
			if took > 3*time.Second { // a second, and what the machine takes to look
				t.Errorf("followed only after %s", took)
			}
		}
		s.ctl(t, "del", key)
	})
	t.Run("subnet taken by another", func(t *testing.T) {
		hearts := s.hearts(t)
		before := len(engineLog(t, h))
		sh(t, h, "kill -STOP $(pidof flannel)")
		t.Cleanup(func() { resume(t, h) })
		wait(t, "the end of the paused host's lease", func() error {
			if got := s.ctl(t, "get", prefix+"/subnets/"+mine); got != "" {
				return fmt.Errorf("it says %s", got)
			}
			return nil
		})
		s.ctl(t, "put", prefix+"/subnets/"+mine, fine)
		resume(t, h)
		wait(t, "the alarm", func() error {
			if text := engineLog(t, h)[before:]; !strings.Contains(text, "192.0.2.200") || !strings.Contains(text, "while containers of this host use it") {
				return fmt.Errorf("not in %s", text)
			}
			return nil
		})
		contains(t, "the container's address", docker(t, h, "inspect", "-f", "{{json .NetworkSettings.Networks}}", echoes[0]), s.addrs[0])
		s.ctl(t, "del", prefix+"/subnets/"+mine)
		wait(t, "the lease", func() error {
			if got := s.ctl(t, "get", prefix+"/subnets/"+mine); !strings.Contains(got, h.Addr().String()) {
				return fmt.Errorf("it says %s", got)
			}
			return nil
		})
		s.sound(t)
		// Meanwhile the peer sent nothing, or to whom the lease named.
		for _, p := range hearts {
			t.Logf("from %s: %s", p.from, p.stop(t))
		}
	})
}

// resume lets a host's plugin go on.
func resume(t testing.TB, h *netlab.Host) {
	t.Helper()
	if _, err := h.Exec(context.Background(), "sh", "-c", "kill -CONT $(pidof flannel)"); err != nil {
		t.Error(err)
	}
}

// engineLog is the log of a host's engine and plugin.
func engineLog(t testing.TB, h *netlab.Host) string {
	t.Helper()
	text, err := os.ReadFile(h.EngineLog())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
