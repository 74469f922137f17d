//go:build lab

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// egress is a way for containers to the outside: an axis of the matrix.
type egress struct {
	name    string
	options []string // docker network create's
	// gwbridge is true where containers have a second interface, on
	// docker_gwbridge.
	gwbridge bool
}

var egresses = []egress{
	{name: "docker_gwbridge", gwbridge: true},
	{name: "gateway=flannel", options: []string{"-o", "gateway=flannel"}},
}

// plan is a network of the matrix: an axis. The first is the default network.
type plan struct {
	name    string
	backend string
	options []string // docker network create's
	maker   int      // the host that is the first to create it
	port    int      // of its tunnel; 0 for none
	vni     int      // 0 for none
}

// backends of the hosts, by the setting BACKEND.
var preset = []string{`{"Type":"vxlan","DirectRouting":true}`, "vxlan"}

var plans = []plan{
	{network, "vxlan, DirectRouting", nil, 0, 8472, 1},
	{"red", "vxlan", []string{"--ipam-opt", "network=red"}, 1, 8472, 2},
	{"green", "host-gw", []string{"--ipam-opt", "network=green", "--ipam-opt", "backend=host-gw"}, 0, 0, 0},
	{"amber", "udp", []string{"--ipam-opt", "network=amber", "--ipam-opt", "backend=udp"}, 0, 8285, 0},
	{"grey", "udp", []string{"--ipam-opt", "network=grey", "--ipam-opt", "backend=udp"}, 1, 8286, 0},
}

// place is a container of the matrix. Every host has two of every network; the
// first one shoots, both are shot at.
type place struct {
	host, net, nth int
	name, pid      string
	addr           netip.Addr // on the network
	bridge         netip.Addr // on docker_gwbridge
	gateway        netip.Addr // docker_gwbridge's own
}

// matrix is the places of one egress mode, and what came where.
type matrix struct {
	egress egress
	hosts  []*netlab.Host
	places []place
	heard  map[string]func() []string // marks, by the name of a place
	vteps  [2][]string                // MAC addresses, by host and network
}

// direction is a way to send to a place: an axis of the matrix.
type direction struct {
	name string
	// aim makes the shot; false where there is no such way.
	aim func(m *matrix, from, to place) (shot, bool)
	// control is where the same shot must get through.
	control control
}

type control int

const (
	within  control = iota // containers of one network
	outside                // an address outside all hosts
	byHost                 // the target, sent by a host
)

var directions = []direction{
	{"through its network's gateway", func(_ *matrix, from, to place) (shot, bool) {
		return shot{Dev: from.addr, Via: first(from.addr), Src: from.addr, Dst: to.addr}, true
	}, within},
	{"through its network's gateway, source forged", func(m *matrix, from, to place) (shot, bool) {
		return shot{Dev: from.addr, Via: first(from.addr), Src: m.friend(from, to), Dst: to.addr}, true
	}, within},
	{"through the other network's gateway on its host", func(m *matrix, from, to place) (shot, bool) {
		return shot{Dev: from.addr, Via: m.door(from, to), Src: from.addr, Dst: to.addr}, true
	}, within},
	{"through the other network's gateway on its host, source forged", func(m *matrix, from, to place) (shot, bool) {
		return shot{Dev: from.addr, Via: m.door(from, to), Src: m.friend(from, to), Dst: to.addr}, true
	}, within},
	{"straight to the bridge, without a router", func(m *matrix, from, to place) (shot, bool) {
		return shot{Dev: from.addr, Src: m.friend(from, to), Dst: to.addr}, from.net != to.net || from.host == to.host
	}, within},
	{"through docker_gwbridge", func(m *matrix, from, to place) (shot, bool) {
		return shot{Dev: from.bridge, Via: from.gateway, Src: from.bridge, Dst: to.addr}, m.egress.gwbridge
	}, outside},
	{"through docker_gwbridge, source forged", func(m *matrix, from, to place) (shot, bool) {
		return shot{Dev: from.bridge, Via: from.gateway, Src: m.friend(from, to), Dst: to.addr}, m.egress.gwbridge
	}, outside},
	{"to its address on docker_gwbridge", func(m *matrix, from, to place) (shot, bool) {
		return shot{Dev: from.bridge, Src: from.bridge, Dst: to.bridge}, m.egress.gwbridge && from.host == to.host
	}, byHost},
	{"by its address on docker_gwbridge as next hop, source forged", func(m *matrix, from, to place) (shot, bool) {
		return shot{Dev: from.bridge, Via: to.bridge, Src: m.friend(from, to), Dst: to.addr}, m.egress.gwbridge && from.host == to.host
	}, byHost},
	{"in a forged tunnel packet to its host", func(m *matrix, from, to place) (shot, bool) {
		s := shot{Dev: from.addr, Via: first(from.addr), Src: m.friend(from, to), Dst: to.addr, Tunnel: m.tunnel(from.addr, to)}
		if m.egress.gwbridge {
			s.Dev, s.Via, s.Tunnel.Src = from.bridge, from.gateway, from.bridge
		}
		return s, from.net != to.net && s.Tunnel.Port != 0
	}, byHost},
}

// tunnel is the way of the target's network to its host.
func (m *matrix) tunnel(from netip.Addr, to place) tunnel {
	p := plans[to.net]
	return tunnel{Src: from, Dst: m.hosts[to.host].Addr(), Port: p.port, VNI: p.vni, MAC: m.vteps[to.host][to.net]}
}

// first is the address of a subnet's gateway.
func first(addr netip.Addr) netip.Addr {
	return netip.PrefixFrom(addr, 24).Masked().Addr().Next()
}

// door is the address, on the shooter's host, of the target's network's gateway.
func (m *matrix) door(from, to place) netip.Addr {
	return first(m.at(from.host, to.net, 0).addr)
}

// friend is an address that the target should trust: of its network, and on the
// other host than its own where the shooter is on that.
func (m *matrix) friend(from, to place) netip.Addr {
	host := from.host
	if host == to.host {
		host = 1 - host
	}
	return m.at(host, to.net, 1).addr
}

// id names a place among all hosts'.
func (m *matrix) id(p place) string { return p.name + " on " + m.hosts[p.host].Name() }

func (m *matrix) at(host, net, nth int) place {
	return m.places[slices.IndexFunc(m.places, func(p place) bool { return p.host == host && p.net == net && p.nth == nth })]
}

// TestIsolation shoots from containers of every network at those of every other,
// in every way that a container has, and holds the outcome against the table in
// docs/networks.md. With E2E_WRITE=1 it writes the table.
func TestIsolation(t *testing.T) {
	url := fmt.Sprintf("http://%s:2379", cluster.hosts[0].Addr())
	installWith(t, cluster.hosts[0], "ETCD_LISTEN="+url, "BACKEND="+preset[0])
	installWith(t, cluster.hosts[1], "ETCD_ENDPOINTS="+url, "BACKEND="+preset[1])
	var report strings.Builder
	for _, e := range egresses {
		t.Run(e.name, func(t *testing.T) {
			m := settle(t, e)
			checks := m.checks()
			m.fire(t, checks)
			m.await(t, checks)
			// What comes later than this did not come.
			fence := controls(checks)
			m.fire(t, fence)
			m.await(t, fence)
			report.WriteString(m.report(t, checks))
		})
	}
	golden(t, "isolation", report.String())
}

// settle makes networks and containers.
func settle(t *testing.T, e egress) *matrix {
	t.Helper()
	m := &matrix{egress: e, hosts: cluster.hosts, heard: map[string]func() []string{}}
	for _, p := range plans {
		for i := range m.hosts {
			h := m.hosts[(p.maker+i)%len(m.hosts)]
			args := slices.Concat([]string{"network", "create", "-d", "flannel", "--ipam-driver", "flannel"}, p.options, e.options)
			docker(t, h, append(args, p.name)...)
			undo(t, h, "network", "rm", p.name)
		}
	}
	for h := range m.hosts {
		for n := range plans {
			for nth := range 2 {
				m.places = append(m.places, place{host: h, net: n, nth: nth, name: fmt.Sprintf("%s%d", plans[n].name, nth)})
			}
		}
	}
	var starts sync.WaitGroup
	for h := range m.hosts {
		t.Cleanup(func() { removeAll(t, m.hosts[h]) })
		starts.Go(func() { m.populate(t, h) })
	}
	starts.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, p := range m.places {
		m.heard[m.id(p)] = listener(t, m.hosts[p.host], "nsenter", "-t", p.pid, "-n", "env", roleEnv+"=catch", tool)
	}
	for i, h := range m.hosts {
		for _, p := range plans {
			mac := ""
			if p.vni != 0 {
				mac = sh(t, h, fmt.Sprintf("cat /sys/class/net/flannel.%d/address", p.vni))
			}
			m.vteps[i] = append(m.vteps[i], mac)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m.heard["outside"] = listener(t, cluster.lab.Wire(), "env", roleEnv+"=catch", exe)
	return m
}

// populate starts a host's containers and learns their addresses.
func (m *matrix) populate(t *testing.T, host int) {
	h := m.hosts[host]
	for i := range m.places {
		p := &m.places[i]
		if p.host != host {
			continue
		}
		if err := m.place(t, h, p); err != nil {
			t.Error(err)
			return
		}
	}
}

func (m *matrix) place(t *testing.T, h *netlab.Host, p *place) error {
	net := plans[p.net].name
	if _, err := h.Docker(t.Context(), "run", "-d", "--name", p.name, "--network", net, "busybox", "sleep", "1000"); err != nil {
		return err
	}
	out, err := h.Docker(t.Context(), "inspect", "-f", `{{.State.Pid}} {{(index .NetworkSettings.Networks "`+net+`").IPAddress}}`, p.name)
	if err != nil {
		return err
	}
	pid, addr, _ := strings.Cut(out, " ")
	p.pid = pid
	if p.addr, err = netip.ParseAddr(addr); err != nil || !m.egress.gwbridge {
		return err
	}
	out, err = h.Exec(t.Context(), "nsenter", "-t", pid, "-n", "sh", "-c", "ip route show default; ip -o -4 addr show scope global")
	if err != nil {
		return err
	}
	if _, err := fmt.Sscanf(out, "default via %s", &addr); err != nil {
		return fmt.Errorf("%s: no gateway in %q", p.name, out)
	}
	if p.gateway, err = netip.ParseAddr(addr); err != nil {
		return err
	}
	for _, found := range regexp.MustCompile(`inet ([0-9.]+)/`).FindAllStringSubmatch(out, -1) {
		if a, err := netip.ParseAddr(found[1]); err == nil && a != p.addr {
			p.bridge = a
		}
	}
	if !p.bridge.IsValid() {
		return fmt.Errorf("%s: no address on docker_gwbridge in %q", p.name, out)
	}
	return nil
}

// listener runs catch until the test ends, and returns what tells its marks.
func listener(t *testing.T, h *netlab.Host, name string, args ...string) func() []string {
	t.Helper()
	p, err := h.Start(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	marks := func() []string {
		text, err := os.ReadFile(p.Log())
		if err != nil {
			t.Error(err)
		}
		return strings.Fields(string(text))
	}
	wait(t, "the listener on "+h.Name(), func() error {
		if got := marks(); !slices.Equal(got, []string{ready}) {
			return fmt.Errorf("it says %q", got)
		}
		return nil
	})
	return marks
}
