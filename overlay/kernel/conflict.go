package kernel

import (
	"fmt"
	"net/netip"
	"slices"
)

// Conflict tells, in words, what on this host stands in the way of devices
// with these names and of the subnet p, where given; empty for nothing.
func (k *Kernel) Conflict(p netip.Prefix, devices ...string) (string, error) {
	links, err := k.readLinks()
	if err != nil {
		return "", err
	}
	for _, l := range links {
		if slices.Contains(devices, l.name) && l.alias != Alias {
			return fmt.Sprintf("the device %s, which another program made (stock flanneld?); stop that program and remove the device with: ip link del %s", l.name, l.name), nil
		}
	}
	if !p.IsValid() {
		return "", nil
	}
	route, err := k.Overlap(p)
	if err != nil {
		return "", err
	}
	if route != "" {
		return "this host's " + route, nil
	}
	addrs, err := k.readAddrs()
	if err != nil {
		return "", err
	}
	return within(p, addrs, links), nil
}

// within tells which address of the host lies in p, in words; empty for none. Not
// every one shows in the main table: the loopback device's do not.
func within(p netip.Prefix, addrs []addrInfo, links []linkInfo) string {
	for _, a := range addrs {
		i := slices.IndexFunc(links, func(l linkInfo) bool { return l.index == a.index })
		if i >= 0 && links[i].alias != Alias && p.Contains(a.prefix.Addr()) {
			return fmt.Sprintf("this host's address %s on %s", a.prefix.Addr(), links[i].name)
		}
	}
	return ""
}
