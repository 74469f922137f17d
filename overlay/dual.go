package overlay

import (
	"errors"
	"fmt"
	"net/netip"
)

// NoIPv6 tells what keeps IPv6 packets from travelling over IPv6; nil for nothing.
func (s Self) NoIPv6() error {
	if s.Underlay.IPv6.Addr.IsValid() {
		return nil
	}
	return fmt.Errorf("interface %s has no IPv6 address that other hosts could reach, and IPv6 packets travel over IPv6: give it one, use the backend udp, or leave --ipv6 out", s.Underlay.Name)
}

// ipv4 is a claim without the IPv6 half.
func (c Claim) ipv4() Claim {
	c.IPv6, c.PublicIPv6, c.BackendV6Data = false, netip.Addr{}, nil
	return c
}

// minIPv6MTU is what every link with IPv6 carries, RFC 8200, in bytes.
const minIPv6MTU = 1280

// acquireIPv6 returns what Acquire has just claimed where that has an IPv6
// subnet, and else why it has none. The engine asks for both families apart.
func (o *Overlay) acquireIPv6(req Request) (Network, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.halfMade(req.Name)
	if n == nil {
		return Network{}, fmt.Errorf("--ipv6: an IPv6 subnet comes with an IPv4 one: leave --ipv4=false out")
	}
	if !n.IPv6Subnet.IsValid() {
		return Network{}, fmt.Errorf("--ipv6: %s has no IPv6 on this host: %w", title(n.Name), o.whyNoIPv6(n.record))
	}
	if p := req.Subnet; p.IsValid() && p != n.Config.IPv6Network && p != n.IPv6Subnet {
		return Network{}, fmt.Errorf("--subnet %s: the flannel network's IPv6 is %s, of which this host has %s; give one of these, or leave it out",
			p, n.Config.IPv6Network, n.IPv6Subnet)
	}
	return n.view(), nil
}

// halfMade finds the network that Acquire returned and that no Docker network
// uses yet; the caller holds mu. Where it is asked for without a name, its CIDR
// may have named it: then it is the one that was returned last.
func (o *Overlay) halfMade(name string) *network {
	waits := func(n *network) bool { return n != nil && n.Held && n.Docker == nil }
	if n := o.nets[name]; waits(n) || name != "" {
		if !waits(n) {
			return nil
		}
		return n
	}
	var last *network
	for _, n := range o.sorted() {
		if waits(n) && (last == nil || n.handed.After(last.handed)) {
			last = n
		}
	}
	return last
}

// whyNoIPv6 is the reason why a host's lease is of IPv4 alone.
func (o *Overlay) whyNoIPv6(r record) error {
	if err := o.lacksIPv6(r); err != nil {
		return err
	}
	return errors.New("its lease was made without; remove the network and create it anew")
}

// lacksIPv6 tells what is missing for a lease with an IPv6 subnet; nil for nothing.
func (o *Overlay) lacksIPv6(r record) error {
	backend, err := o.backend(r.Config.Backend.Type)
	if err != nil {
		return err
	}
	n := network{record: r}
	pub, err := backend.Publish(n.self())
	switch {
	case err != nil:
		return err
	case !r.Config.EnableIPv6 && r.Name != "":
		return fmt.Errorf("it was made with IPv4 alone, where the setting NETWORK_POOL has no ipv6-base: leave --ipv6 out, or set NETWORK_POOL such as %s,ipv6-base=fd00:80::/40,ipv6-size=56 on every host, remove the network with docker flannel network rm %s and create it anew",
			o.opt.Pool.fours(), r.Name)
	case !r.Config.EnableIPv6:
		return errors.New("the network's config says nothing of IPv6; it was made without the setting IPV6_NETWORK: leave --ipv6 out, or put EnableIPv6 true and an IPv6Network such as fd00:5::/48 into the config in etcd and create the Docker network anew on every host")
	case pub.NoIPv6 != nil:
		return pub.NoIPv6
	case r.MTU < minIPv6MTU:
		return fmt.Errorf("containers' MTU is %d here, and IPv6 needs %d: raise that of interface %s or the setting MTU, or leave --ipv6 out", r.MTU, minIPv6MTU, r.Underlay.Name)
	}
	return nil
}
