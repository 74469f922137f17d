package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
	"github.com/docker-flannel/docker-flannel/overlay/hostgw"
	"github.com/docker-flannel/docker-flannel/overlay/udp"
	"github.com/docker-flannel/docker-flannel/overlay/vxlan"
)

// path is a way from one namespace to another.
type path struct {
	name     string
	host     *netlab.Host // that the traffic leaves from
	from, to *netlab.Host
	addr     netip.Addr // of to
}

// scene is the hosts and containers that are measured.
type scene struct {
	ctx   context.Context
	lab   *netlab.Lab
	hosts []*netlab.Host
	hands []*netlab.Host // the two with what is made by hand, once there
	ends  []func() error // undo, the last first
}

func (s *scene) close() error {
	var errs []error
	for i := len(s.ends) - 1; i >= 0; i-- {
		errs = append(errs, s.ends[i]())
	}
	return errors.Join(errs...)
}

// The paths, by the names that the tables show.
const (
	limitPath  = "host to host (the limit)"
	routedPath = "routed by hand"
	vxlanPath  = "kernel VXLAN by hand"
	naivePath  = "naive udp, one packet a system call"
	ourVXLAN   = "our vxlan"
	ourHostGW  = "our host-gw"
	ourUDP     = "our udp"

	mostPaths = 7
)

// build makes the paths whose names hold one of the words: a pair of hosts for
// what is made by hand and one for each of our backends, so that none is in
// another's way. At the end of each path a server waits.
func (s *scene) build(words string) ([]path, error) {
	var paths []path
	for _, b := range []struct {
		name  string
		build func() (path, error)
	}{
		{limitPath, s.direct},
		{routedPath, s.routed},
		{vxlanPath, s.vxlan},
		{naivePath, s.naive},
		{ourVXLAN, func() (path, error) { return s.ours(vxlan.Type) }},
		{ourHostGW, func() (path, error) { return s.ours(hostgw.Type) }},
		{ourUDP, func() (path, error) { return s.ours(udp.Type) }},
	} {
		if !chosen(b.name, words) {
			continue
		}
		p, err := b.build()
		if err == nil {
			_, err = s.play(p.to, "server", p.addr.String())
		}
		if err == nil { // the hosts know each other
			_, err = p.from.Exec(s.ctx, "ping", "-q", "-c", "1", "-i", "0.1", "-w", "10", p.addr.String())
		}
		if err != nil {
			return nil, fmt.Errorf("make the path %s: %w", b.name, err)
		}
		p.name = b.name
		paths = append(paths, p)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("-only %s names no path", words)
	}
	return paths, nil
}

// byHand gives the two hosts for what is made by hand.
func (s *scene) byHand() (a, b *netlab.Host, err error) {
	for len(s.hands) < 2 {
		h, err := s.lab.AddHost(netlab.HostSpec{Name: fmt.Sprintf("hand%d", len(s.hands)+1)})
		if err != nil {
			return nil, nil, err
		}
		s.hands = append(s.hands, h)
		s.hosts = append(s.hosts, h)
	}
	return s.hands[0], s.hands[1], nil
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

// dress gives a container's eth0 its address and a way out.
func (s *scene) dress(c *netlab.Host, addr, gateway string) error {
	return s.run(c, fmt.Sprintf("ip addr add %s dev eth0\nip link set eth0 up\nip route add default via %s", addr, gateway))
}
