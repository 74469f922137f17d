package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// direct is the limit: two hosts without containers.
func (s *scene) direct() (path, error) {
	a, b, err := s.byHand()
	if err != nil {
		return path{}, err
	}
	return path{host: a, from: a, to: b, addr: b.Addr()}, nil
}

// between puts a container behind each of the hosts: net is the first two
// octets of the subnets, of which the first host holds .1 and the other .2.
func (s *scene) between(id, net string, mtu int) (p path, a, b *netlab.Host, err error) {
	if a, b, err = s.byHand(); err != nil {
		return p, nil, nil, err
	}
	p = path{host: a, addr: netip.MustParseAddr(net + ".2.2")}
	if p.from, err = s.behind(a, id, net+".1", mtu); err != nil {
		return p, nil, nil, err
	}
	p.to, err = s.behind(b, id, net+".2", mtu)
	return p, a, b, err
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

// routed is what host-gw amounts to.
func (s *scene) routed() (path, error) {
	p, a, b, err := s.between("r", "10.61", 1500)
	if err != nil {
		return path{}, err
	}
	return p, errors.Join(
		s.run(a, "ip route add 10.61.2.0/24 via "+b.Addr().String()),
		s.run(b, "ip route add 10.61.1.0/24 via "+a.Addr().String()))
}

// vxlan is a kernel VXLAN device as stock flannel and Docker's overlay use it.
func (s *scene) vxlan() (path, error) {
	p, a, b, err := s.between("x", "10.62", 1450)
	if err != nil {
		return path{}, err
	}
	const device = `ip link add tunnel type vxlan id 62 dstport 8472 local %[1]s dev eth0 nolearning
ip link set tunnel address 02:00:00:00:00:0%[3]d mtu 1450 up
ip addr add 10.62.%[3]d.0/32 dev tunnel
ip neigh add 10.62.%[4]d.0 lladdr 02:00:00:00:00:0%[4]d dev tunnel nud permanent
bridge fdb add 02:00:00:00:00:0%[4]d dev tunnel dst %[2]s self permanent
ip route add 10.62.%[4]d.0/24 via 10.62.%[4]d.0 dev tunnel onlink`
	return p, errors.Join(
		s.run(a, fmt.Sprintf(device, a.Addr(), b.Addr(), 1, 2)),
		s.run(b, fmt.Sprintf(device, b.Addr(), a.Addr(), 2, 1)))
}

// naive is an encapsulator that moves one packet a system call.
func (s *scene) naive() (path, error) {
	p, a, b, err := s.between("n", "10.64", 1472)
	if err != nil {
		return path{}, err
	}
	const device = `ip tuntap add naive mode tun
ip link set naive mtu 1472 txqueuelen 1000 up
ip addr add 10.64.%[1]d.0/32 dev naive
ip route add 10.64.%[2]d.0/24 dev naive`
	for i, h := range []*netlab.Host{a, b} {
		other := []*netlab.Host{b, a}[i]
		if err := s.run(h, fmt.Sprintf(device, i+1, 2-i)); err != nil {
			return path{}, err
		}
		if _, err := s.play(h, "naive", "naive", h.Addr().String()+":8285", other.Addr().String()+":8285"); err != nil {
			return path{}, err
		}
	}
	return p, nil
}
