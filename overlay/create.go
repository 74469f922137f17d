package overlay

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
)

// initial makes the config to create where the store has none: that of the
// settings for the default network, and for a name one with a CIDR, and what
// else its backend needs, of its own. Nil where there is nothing to begin with.
func (o *Overlay) initial(req Request) (Initial, error) {
	if len(o.opt.Initial) == 0 {
		return nil, nil
	}
	cfg, err := ParseConfig(o.opt.Initial)
	if err != nil {
		return nil, fmt.Errorf("config to begin with: %w", err)
	}
	preset, kind := cfg, cfg.Backend.Type
	if req.Backend != "" && req.Backend != kind {
		kind = req.Backend
		if cfg.Backend.Raw, err = json.Marshal(map[string]string{"Type": kind}); err != nil {
			return nil, fmt.Errorf("--ipam-opt backend=%s: %w", kind, err)
		}
	}
	backend, err := o.backend(kind)
	if err != nil {
		return nil, fmt.Errorf("--ipam-opt backend=%s: %w", kind, err)
	}
	return func(others map[string]Config) ([]byte, error) {
		taken := others
		if req.Name != "" {
			// What the default network will have is not free either.
			taken = map[string]Config{"": preset}
			maps.Copy(taken, others)
		}
		network, six, err := o.networks(req, cfg, taken)
		if err != nil {
			return nil, err
		}
		raw, err := backend.Distinct(cfg.Backend.Raw, backendsOf(taken, kind))
		if err != nil {
			return nil, fmt.Errorf("backend %s: %w", kind, err)
		}
		text, err := NewConfig(network, cfg.SubnetLen, raw)
		if err == nil && six.IsValid() {
			return DualStack(text, six)
		}
		return text, err
	}, nil
}

// networks are a new network's CIDRs, that of IPv6 zero for none: the default
// network's of the settings, and for a name free ones.
func (o *Overlay) networks(req Request, preset Config, others map[string]Config) (four, six netip.Prefix, err error) {
	if req.Name == "" {
		if name, found := overlapping(preset.Network, others); found {
			return four, six, fmt.Errorf("setting NETWORK=%s overlaps %s (%s): choose another", preset.Network, title(name), others[name].Network)
		}
		if name, found := overlapping(preset.IPv6Network, others); found {
			return four, six, fmt.Errorf("setting IPV6_NETWORK=%s overlaps %s (%s): choose another", preset.IPv6Network, title(name), others[name].IPv6Network)
		}
		return preset.Network, preset.IPv6Network, nil
	}
	if four, err = o.cidr(req, preset.SubnetLen, others); err == nil && o.opt.Pool.IPv6Base.IsValid() {
		six, err = o.ipv6(req.Name, others)
	}
	return four, six, err
}

// backendsOf lists the Backend objects of one kind.
func backendsOf(networks map[string]Config, kind string) (all []json.RawMessage) {
	for _, c := range networks {
		if c.Backend.Type == kind {
			all = append(all, c.Backend.Raw)
		}
	}
	return all
}

// roomy is by how many bits at least a host's subnet is longer than its network's
// CIDR: flannel's configs hold four subnets or more.
const roomy = 2

// cidr is a new network's: the one that --subnet names, or the pool's first that
// is free.
func (o *Overlay) cidr(req Request, subnetLen int, others map[string]Config) (netip.Prefix, error) {
	if asked := req.Subnet; asked.IsValid() {
		if asked.Bits()+roomy > subnetLen {
			return asked, fmt.Errorf("--subnet %s: %s does not exist yet, and every host will have a subnet of %d bits in it: give a larger CIDR, such as %s, or leave --subnet out",
				asked, title(req.Name), subnetLen, netip.PrefixFrom(asked.Addr(), max(subnetLen-8, 8)).Masked())
		}
		if name, taken := overlapping(asked, others); taken {
			return asked, fmt.Errorf("--subnet %s overlaps %s (%s): choose another, or leave it out", asked, title(name), others[name].Network)
		}
		return asked, o.avoid(asked)
	}
	pool := o.opt.Pool
	if !pool.Base.IsValid() || pool.Bits+roomy > subnetLen {
		return netip.Prefix{}, fmt.Errorf("%s does not exist yet, and the CIDRs of the setting NETWORK_POOL (%s) have no room for subnets of %d bits: give it one with --subnet", title(req.Name), pool, subnetLen)
	}
	return o.firstFree(pool.Base, pool.Bits, req.Name, others)
}
