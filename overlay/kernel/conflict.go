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
	if err != nil || route == "" {
		return "", err
	}
	return "this host's route " + route, nil
}
