package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/etcd"
	"github.com/docker-flannel/docker-flannel/overlay/hostgw"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
	"github.com/docker-flannel/docker-flannel/overlay/udp"
	"github.com/docker-flannel/docker-flannel/overlay/vxlan"
)

// ours is one of our backends between two hosts, each with a process of its
// own that holds the rooms as the plugin wires them together.
func (s *scene) ours(backend string) (path, error) {
	store, err := s.lab.Etcd(s.ctx)
	if err != nil {
		return path{}, err
	}
	var hosts, ends [2]*netlab.Host
	var addrs [2]netip.Addr
	for i := range hosts {
		if hosts[i], err = s.lab.AddHost(netlab.HostSpec{Name: fmt.Sprintf("%s%d", backend, i+1)}); err != nil {
			return path{}, err
		}
		if ends[i], addrs[i], err = s.member(hosts[i], backend, store.Endpoint); err != nil {
			return path{}, err
		}
	}
	s.hosts = append(s.hosts, hosts[:]...)
	return path{host: hosts[0], from: ends[0], to: ends[1], addr: addrs[1]}, nil
}

// member makes a host take part in a network and puts a container on it.
func (s *scene) member(h *netlab.Host, backend, endpoint string) (c *netlab.Host, addr netip.Addr, err error) {
	dir, err := os.MkdirTemp("", "bench-state-")
	if err != nil {
		return nil, addr, fmt.Errorf("make a folder for the state of %s: %w", h.Name(), err)
	}
	s.ends = append(s.ends, func() error { return os.RemoveAll(dir) })
	said, err := s.play(h, "member", backend, endpoint, dir)
	if err != nil {
		return nil, addr, err
	}
	var device, prefix, gateway string
	if _, err := fmt.Sscan(said, &device, &prefix, &gateway); err != nil {
		return nil, addr, fmt.Errorf("%s: a member says %q: %w", h.Name(), said, err)
	}
	if c, err = s.container(h.Name() + "c"); err != nil {
		return nil, addr, err
	}
	if err := s.run(h, fmt.Sprintf("ip link set %s netns %s name eth0", device, c.Netns())); err != nil {
		return nil, addr, err
	}
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return nil, addr, err
	}
	return c, p.Addr(), s.dress(c, prefix, gateway)
}

// memberRole BACKEND ENDPOINT DIR is a host's part of a network: it joins it
// with one port, says the port's interface, address and gateway, and stays.
func memberRole(args []string) (err error) {
	backend, endpoint, dir := args[0], args[1], args[2]
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	client, err := etcd.Dial(etcd.Options{Endpoints: []string{endpoint}})
	if err != nil {
		return err
	}
	kern, err := kernel.Open(kernel.Options{Log: log})
	if err != nil {
		return errors.Join(err, client.Close())
	}
	defer func() { err = errors.Join(err, kern.Close(), client.Close()) }()
	initial, err := overlay.NewConfig(netip.MustParsePrefix("10.63.0.0/16"), 24, fmt.Appendf(nil, `{"Type":%q}`, backend))
	if err != nil {
		return err
	}
	o, err := overlay.New(overlay.Options{
		Dir: dir, Store: etcd.New(client, "/"+backend), Kernel: kern, Initial: initial, TTL: time.Hour, Log: log,
		Backends: map[string]overlay.Backend{vxlan.Type: vxlan.Backend{}, hostgw.Type: hostgw.Backend{}, udp.Type: udp.Backend{}},
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(context.Background())
	g.Go(func() error { return o.Run(ctx) })
	g.Go(func() error { return join(ctx, o) })
	return g.Wait()
}

// join plugs one port into the network, as the engine would.
func join(ctx context.Context, o *overlay.Overlay) error {
	const id = "0123456789abcdef"
	n, err := o.Acquire(ctx, overlay.Request{})
	if err != nil {
		return err
	}
	if err := o.Attach(ctx, overlay.Bridge{ID: id, Subnet: n.Subnet}); err != nil {
		return err
	}
	addr := n.Gateway.Next()
	port := overlay.Port{Network: id, Endpoint: id, Addr: addr, MAC: kernel.MAC{2, 0, 0, 0, 0, 1}}
	if err := o.AddPort(ctx, port); err != nil {
		return err
	}
	joined, err := o.Join(ctx, id, id)
	if err != nil {
		return err
	}
	_, err = fmt.Println(ready, joined.Interface, netip.PrefixFrom(addr, n.Subnet.Bits()), n.Gateway)
	return err
}
