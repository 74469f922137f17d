//go:build lab

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// goal is a container at the end of one network's tunnel, and who may send there.
type goal struct {
	network string
	host    *netlab.Host // the container's
	peer    *netlab.Host
	shot    shot // that arrives if it comes from the peer's address
	heard   func() []string
}

// TestOnlyPeers sends packets in tunnels' wrapping to a host, each right in all but
// whom it comes from: what is no peer's arrives nowhere and is counted. The control
// is the same packet from the peer, and from the outsider with the peer's address.
func TestOnlyPeers(t *testing.T) {
	install(t, cluster.hosts, "METRICS_LISTEN="+metricsAddr)
	joins := map[string][]string{network: nil, "amber": {"--ipam-opt", "network=amber", "--ipam-opt", "backend=udp"}}
	for _, h := range cluster.hosts {
		equipCLI(t, h)
		for name, options := range joins {
			named(t, h, name, options...)
		}
	}
	for i, h := range cluster.hosts {
		t.Run(h.Name(), func(t *testing.T) {
			peer := cluster.hosts[1-i]
			goals := []goal{aim(t, h, peer, network, tunnel{Port: 8472, VNI: 1}), aim(t, h, peer, "amber", tunnel{Port: 8285})}
			for _, g := range goals {
				g.checkForeign(t)
			}
			for _, g := range goals {
				g.checkLeaving(t, joins[g.network])
			}
		})
	}
}

// aim starts a container on the host and a listener in it.
func aim(t *testing.T, h, peer *netlab.Host, net string, way tunnel) goal {
	t.Helper()
	name := "goal-" + net
	docker(t, h, "run", "-d", "--name", name, "--network", net, "busybox", "sleep", "600")
	undo(t, h, "rm", "-f", name)
	addr := netip.MustParseAddr(docker(t, h, "inspect", "-f", `{{(index .NetworkSettings.Networks "`+net+`").IPAddress}}`, name))
	inside := netip.MustParsePrefix(docker(t, peer, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", net))
	if way.VNI != 0 {
		way.MAC = sh(t, h, fmt.Sprintf("cat /sys/class/net/flannel.%d/address", way.VNI))
	}
	way.Dst = h.Addr()
	return goal{
		network: net, host: h, peer: peer,
		shot:  shot{Src: inside.Addr().Next().Next(), Dst: addr, Routed: true, Tunnel: way},
		heard: listener(t, h, "nsenter", "-t", docker(t, h, "inspect", "-f", "{{.State.Pid}}", name), "-n", "env", roleEnv+"=catch", tool),
	}
}

// from is the shot from an address.
func (g goal) from(addr netip.Addr, mark string) shot {
	s := g.shot
	s.Mark, s.Tunnel.Src = mark, addr
	return s
}

// fires shoots from a host, or from the wire beyond them.
func fires(t *testing.T, h *netlab.Host, shots ...shot) {
	t.Helper()
	order, err := json.Marshal(shots)
	if err != nil {
		t.Fatal(err)
	}
	with := tool
	if h == cluster.lab.Wire() {
		if with, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Exec(t.Context(), "env", roleEnv+"=shoot", with, string(order)); err != nil {
		t.Fatal(err)
	}
}

// hears waits for marks, in any order, and for nothing else.
func (g goal) hears(t *testing.T, marks ...string) {
	t.Helper()
	want := append([]string{ready}, marks...)
	slices.Sort(want)
	wait(t, "the controls in "+g.network, func() error {
		for _, mark := range want {
			if !slices.Contains(g.heard(), mark) {
				return fmt.Errorf("%s is missing in %q", mark, g.heard())
			}
		}
		return nil
	})
	got := g.heard()
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("in %s %q arrived, want %q", g.network, got, want)
	}
}

// foreign is what the host has counted at the goal's port.
func (g goal) foreign(t *testing.T) (count uint64) {
	t.Helper()
	var s struct {
		Foreign []struct {
			Port    int
			Packets uint64
		}
	}
	if err := json.Unmarshal([]byte(flannel(t, g.host, 0, "status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	for _, f := range s.Foreign {
		if f.Port == g.shot.Tunnel.Port {
			return f.Packets
		}
	}
	t.Fatalf("no count of port %d: %+v", g.shot.Tunnel.Port, s)
	return 0
}

// counts checks that so many packets more than before were dropped.
func (g goal) counts(t *testing.T, before, more uint64) {
	t.Helper()
	if now := g.foreign(t); now != before+more {
		t.Errorf("port %d of %s: %d foreign packets, before %d, want %d more", g.shot.Tunnel.Port, g.host.Name(), now, before, more)
	}
	shows(t, g.host, fmt.Sprintf(`flannel_foreign_packets_total{port="%d"} %d`, g.shot.Tunnel.Port, before+more))
}

func (g goal) checkForeign(t *testing.T) {
	wait(t, "the peer's admission", func() error { return g.admitted(t, true) })
	before := g.foreign(t)
	wire := cluster.lab.Wire()
	fires(t, wire,
		g.from(netip.MustParseAddr(netlab.Gateway), "outsider"),
		g.from(netip.MustParseAddr("192.0.2.99"), "neighbour"),
		g.from(netip.MustParseAddr("198.51.100.9"), "far"),
		g.from(g.peer.Addr(), "forged"))
	fires(t, g.peer, g.from(g.peer.Addr(), "peer"))
	g.hears(t, "forged", "peer")
	g.counts(t, before, 3*rounds)
}

// checkLeaving has the peer leave the network and come back. What it sends itself at
// these moments, such as a probe before its lease has come here, is foreign too: it is
// counted before the shots.
func (g goal) checkLeaving(t *testing.T, options []string) {
	docker(t, g.peer, "network", "rm", g.network)
	wait(t, "the peer's leave", func() error { return g.admitted(t, false) })
	before := g.foreign(t)
	fires(t, g.peer, g.from(g.peer.Addr(), "left"))
	g.counts(t, before, rounds)
	docker(t, g.peer, newNetwork(g.network, options...)...)
	wait(t, "the peer's return", func() error { return g.admitted(t, true) })
	before = g.foreign(t)
	fires(t, g.peer, g.from(g.peer.Addr(), "back"))
	g.hears(t, "forged", "peer", "back")
	g.counts(t, before, 0)
}

// admitted tells whether the host's door lets the peer in, or does not, as is
// wanted.
func (g goal) admitted(t *testing.T, want bool) error {
	t.Helper()
	set := fmt.Sprintf("door_%d_ip", g.shot.Tunnel.Port)
	if g.shot.Tunnel.VNI != 0 {
		set = fmt.Sprintf("door_%d_%d_ip", g.shot.Tunnel.Port, g.shot.Tunnel.VNI)
	}
	text := sh(t, g.host, "nft list set inet docker-flannel-doors "+set)
	if got := strings.Contains(text, g.peer.Addr().String()); got != want {
		return fmt.Errorf("%s admitted: %t, want %t:\n%s", g.peer.Name(), got, want, text)
	}
	return nil
}
