package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/embedded"
	"github.com/docker-flannel/docker-flannel/overlay/etcd"
	"github.com/docker-flannel/docker-flannel/overlay/hostgw"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
	"github.com/docker-flannel/docker-flannel/overlay/udp"
	"github.com/docker-flannel/docker-flannel/overlay/vxlan"
)

// path is a way from one namespace to another.
type path struct {
	name     string
	from, to *netlab.Host
	addr     netip.Addr // of to
}

// scene is the hosts and containers that are measured.
type scene struct {
	ctx   context.Context
	lab   *netlab.Lab
	hosts []*netlab.Host
	ends  []func() error // undo, the last first
}

func (s *scene) close() error {
	var errs []error
	for i := len(s.ends) - 1; i >= 0; i-- {
		errs = append(errs, s.ends[i]())
	}
	return errors.Join(errs...)
}

// build makes a pair of hosts for what is made by hand and one for each of our
// backends, so that none is in another's way.
func (s *scene) build() ([]path, error) {
	a, b, err := s.pair("hand")
	if err != nil {
		return nil, err
	}
	paths := []path{{"host to host (the limit)", a, b, b.Addr()}}
	for _, build := range []func(a, b *netlab.Host) (path, error){s.routed, s.vxlan} {
		p, err := build(a, b)
		if err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	client, err := s.etcd()
	if err != nil {
		return nil, err
	}
	for _, c := range []struct{ name, backend string }{
		{"vxlan", `{"Type":"vxlan"}`},
		{"host-gw", `{"Type":"host-gw"}`},
	} {
		store := client(c.name)
		p, err := s.ours(c.name, c.backend, store)
		if err != nil {
			return nil, fmt.Errorf("our %s: %w", c.name, err)
		}
		paths = append(paths, p)
	}
	return paths, nil
}

// pair adds two hosts to the wire.
func (s *scene) pair(name string) (a, b *netlab.Host, err error) {
	var both [2]*netlab.Host
	for i := range both {
		if both[i], err = s.lab.AddHost(netlab.HostSpec{Name: fmt.Sprintf("%s%d", name, i+1)}); err != nil {
			return nil, nil, err
		}
	}
	s.hosts = append(s.hosts, both[:]...)
	return both[0], both[1], nil
}

// container is a namespace without an interface.
func (s *scene) container(name string) (*netlab.Host, error) {
	c, err := s.lab.AddHost(netlab.HostSpec{Name: name})
	if err != nil {
		return nil, err
	}
	return c, s.run(c, "ip link del eth0")
}

// run runs the lines of a script, each with its errors.
func (s *scene) run(h *netlab.Host, script string) error {
	_, err := h.Exec(s.ctx, "sh", "-ec", script)
	return err
}

// behind puts a container behind a bridge of a host, with the address .2 of a
// subnet whose .1 is the bridge's.
func (s *scene) behind(h *netlab.Host, id, subnet string, mtu int) (*netlab.Host, error) {
	c, err := s.container(h.Name() + id)
	if err != nil {
		return nil, err
	}
	if err := s.run(h, fmt.Sprintf(`sysctl -qw net.ipv4.ip_forward=1
ip link add br%[1]s mtu %[3]d type bridge
ip addr add %[2]s.1/24 dev br%[1]s
ip link set br%[1]s up
ip link add v%[1]s mtu %[3]d type veth peer name eth0 mtu %[3]d netns %[4]s
ip link set v%[1]s master br%[1]s up`, id, subnet, mtu, c.Netns())); err != nil {
		return nil, err
	}
	return c, s.dress(c, subnet+".2/24", subnet+".1")
}

// dress gives a container's eth0 its address and a way out.
func (s *scene) dress(c *netlab.Host, addr, gateway string) error {
	return s.run(c, fmt.Sprintf("ip addr add %s dev eth0\nip link set eth0 up\nip route add default via %s", addr, gateway))
}

// routed is what host-gw amounts to, by hand.
func (s *scene) routed(a, b *netlab.Host) (path, error) {
	from, err := s.behind(a, "r", "10.61.1", 1500)
	if err != nil {
		return path{}, err
	}
	to, err := s.behind(b, "r", "10.61.2", 1500)
	if err != nil {
		return path{}, err
	}
	err = errors.Join(
		s.run(a, "ip route add 10.61.2.0/24 via "+b.Addr().String()),
		s.run(b, "ip route add 10.61.1.0/24 via "+a.Addr().String()))
	return path{"routed by hand", from, to, netip.MustParseAddr("10.61.2.2")}, err
}

// vxlan is a kernel VXLAN device as stock flannel and Docker's overlay use it,
// by hand.
func (s *scene) vxlan(a, b *netlab.Host) (path, error) {
	from, err := s.behind(a, "x", "10.62.1", 1450)
	if err != nil {
		return path{}, err
	}
	to, err := s.behind(b, "x", "10.62.2", 1450)
	if err != nil {
		return path{}, err
	}
	const device = `ip link add tunnel type vxlan id 62 dstport 8472 local %[1]s dev eth0 nolearning
ip link set tunnel address 02:00:00:00:00:%[3]s mtu 1450 up
ip addr add 10.62.%[5]s.0/32 dev tunnel
ip neigh add 10.62.%[6]s.0 lladdr 02:00:00:00:00:%[4]s dev tunnel nud permanent
bridge fdb add 02:00:00:00:00:%[4]s dev tunnel dst %[2]s self permanent
ip route add 10.62.%[6]s.0/24 via 10.62.%[6]s.0 dev tunnel onlink`
	err = errors.Join(
		s.run(a, fmt.Sprintf(device, a.Addr(), b.Addr(), "0a", "0b", "1", "2")),
		s.run(b, fmt.Sprintf(device, b.Addr(), a.Addr(), "0b", "0a", "2", "1")))
	return path{"kernel VXLAN by hand", from, to, netip.MustParseAddr("10.62.2.2")}, err
}

// etcd runs the store of our networks; each has a prefix of its own.
func (s *scene) etcd() (func(name string) overlay.Store, error) {
	dir, err := os.MkdirTemp("", "bench-etcd-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for etcd: %w", err)
	}
	s.ends = append(s.ends, func() error { return os.RemoveAll(dir) })
	server := embedded.New(embedded.Options{Dir: dir, Listen: "http://127.0.0.1:0", Log: quiet()})
	s.background(server.Run)
	select {
	case <-server.Ready():
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
	client, err := etcd.Dial(etcd.Options{Endpoints: []string{server.Endpoint()}})
	if err != nil {
		return nil, err
	}
	s.ends = append(s.ends, client.Close)
	return func(name string) overlay.Store { return etcd.New(client, "/"+name) }, nil
}

// background runs something until the scene ends.
func (s *scene) background(f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	s.ends = append(s.ends, func() error {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
}

func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

// ours is one of our backends between two hosts, with the rooms that the plugin
// wires together.
func (s *scene) ours(name, backend string, store overlay.Store) (path, error) {
	a, b, err := s.pair(strings.ReplaceAll(name, "-", ""))
	if err != nil {
		return path{}, err
	}
	var ends [2]*netlab.Host
	var addrs [2]netip.Addr
	for i, h := range []*netlab.Host{a, b} {
		if ends[i], addrs[i], err = s.member(h, backend, store); err != nil {
			return path{}, err
		}
	}
	return path{"our " + name, ends[0], ends[1], addrs[1]}, s.reach(ends[0], addrs[1])
}

// member makes a host take part in a network and puts a container on it.
func (s *scene) member(h *netlab.Host, backend string, store overlay.Store) (c *netlab.Host, addr netip.Addr, err error) {
	o, err := s.overlay(h, backend, store)
	if err != nil {
		return nil, addr, err
	}
	const id = "0123456789abcdef"
	n, err := o.Acquire(s.ctx, overlay.Request{})
	if err != nil {
		return nil, addr, err
	}
	if err := o.Attach(s.ctx, overlay.Bridge{ID: id, Subnet: n.Subnet}); err != nil {
		return nil, addr, err
	}
	addr = n.Gateway.Next()
	port := overlay.Port{Network: id, Endpoint: id, Addr: addr, MAC: kernel.MAC{2, 0, 0, 0, 0, 1}}
	if err := o.AddPort(s.ctx, port); err != nil {
		return nil, addr, err
	}
	joined, err := o.Join(s.ctx, id, id)
	if err != nil {
		return nil, addr, err
	}
	if c, err = s.container(h.Name() + "c"); err != nil {
		return nil, addr, err
	}
	if err := s.run(h, fmt.Sprintf("ip link set %s netns %s name eth0", joined.Interface, c.Netns())); err != nil {
		return nil, addr, err
	}
	return c, addr, s.dress(c, netip.PrefixFrom(addr, n.Subnet.Bits()).String(), n.Gateway.String())
}

func (s *scene) overlay(h *netlab.Host, backend string, store overlay.Store) (*overlay.Overlay, error) {
	dir, err := os.MkdirTemp("", "bench-state-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the state: %w", err)
	}
	s.ends = append(s.ends, func() error { return os.RemoveAll(dir) })
	var kern *kernel.Kernel
	if err := h.Do(func() (err error) {
		kern, err = kernel.Open(kernel.Options{Log: quiet()})
		return err
	}); err != nil {
		return nil, err
	}
	s.ends = append(s.ends, kern.Close)
	initial, err := overlay.NewConfig(netip.MustParsePrefix("10.63.0.0/16"), 24, []byte(backend))
	if err != nil {
		return nil, err
	}
	o, err := overlay.New(overlay.Options{
		Dir: dir, Store: store, Kernel: kern, Initial: initial, TTL: time.Hour, Log: quiet(),
		Backends: map[string]overlay.Backend{vxlan.Type: vxlan.Backend{}, hostgw.Type: hostgw.Backend{}, udp.Type: udp.Backend{}},
	})
	if err != nil {
		return nil, err
	}
	s.background(o.Run)
	return o, nil
}

// reach waits until the hosts know each other.
func (s *scene) reach(from *netlab.Host, to netip.Addr) error {
	return s.run(from, fmt.Sprintf("ping -q -c 50 -i 0.1 -w 5 %[1]s >/dev/null || ping -q -c 1 -w 5 %[1]s", to))
}
