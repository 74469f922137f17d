package overlay

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
)

// Pool is where new networks take their CIDR from.
type Pool struct {
	Base netip.Prefix
	Bits int // of every network's CIDR
}

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
	kind := cfg.Backend.Type
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
		if req.Name == "" {
			return defaultConfig(cfg, others)
		}
		network, err := o.cidr(req, cfg.SubnetLen, others)
		if err != nil {
			return nil, err
		}
		var taken []json.RawMessage
		for _, c := range others {
			if c.Backend.Type == kind {
				taken = append(taken, c.Backend.Raw)
			}
		}
		raw, err := backend.Distinct(cfg.Backend.Raw, taken)
		if err != nil {
			return nil, fmt.Errorf("backend %s: %w", kind, err)
		}
		return NewConfig(network, cfg.SubnetLen, raw)
	}, nil
}

// defaultConfig refuses a CIDR that another network has.
func defaultConfig(cfg Config, others map[string]Config) ([]byte, error) {
	if name, taken := overlapping(cfg.Network, others); taken {
		return nil, fmt.Errorf("setting NETWORK=%s overlaps %s (%s): choose another", cfg.Network, title(name), others[name].Network)
	}
	return NewConfig(cfg.Network, cfg.SubnetLen, cfg.Backend.Raw)
}

// cidr is a new network's: the one that --subnet names, or the pool's first that
// overlaps neither another network's nor a route of this host.
func (o *Overlay) cidr(req Request, subnetLen int, others map[string]Config) (netip.Prefix, error) {
	if asked := req.Subnet; asked.IsValid() {
		if asked.Bits() >= subnetLen {
			return asked, fmt.Errorf("--subnet %s: %s does not exist yet, and every host will have a subnet of %d bits in it: give a larger CIDR, such as %s, or leave --subnet out",
				asked, title(req.Name), subnetLen, netip.PrefixFrom(asked.Addr(), max(subnetLen-8, 8)).Masked())
		}
		if name, taken := overlapping(asked, others); taken {
			return asked, fmt.Errorf("--subnet %s overlaps %s (%s): choose another, or leave it out", asked, title(name), others[name].Network)
		}
		return asked, nil
	}
	pool := o.opt.Pool
	if !pool.Base.IsValid() || pool.Bits >= subnetLen {
		return netip.Prefix{}, fmt.Errorf("%s does not exist yet, and the CIDRs of the setting NETWORK_POOL (%s) have no room for subnets of %d bits: give it one with --subnet", title(req.Name), pool, subnetLen)
	}
	var why error
	for p := range pool.all() {
		if _, taken := overlapping(p, others); taken {
			continue
		}
		if why = o.avoid(p); why == nil {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.Join(fmt.Errorf("the setting NETWORK_POOL (%s) has no CIDR left for %s: give it one with --subnet", pool, title(req.Name)), why)
}

// overlapping returns the name of a network whose CIDR overlaps p.
func overlapping(p netip.Prefix, others map[string]Config) (name string, found bool) {
	for _, name := range slices.Sorted(maps.Keys(others)) {
		if others[name].Network.Overlaps(p) {
			return name, true
		}
	}
	return "", false
}

// String is the pool as Docker writes its own.
func (p Pool) String() string { return fmt.Sprintf("base=%s,size=%d", p.Base, p.Bits) }

// all yields the pool's CIDRs in order.
func (p Pool) all() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		four := p.Base.Masked().Addr().As4()
		first := uint64(binary.BigEndian.Uint32(four[:]))
		for n := range uint64(1) << (p.Bits - p.Base.Bits()) {
			binary.BigEndian.PutUint32(four[:], uint32(first+n<<(32-p.Bits)))
			if !yield(netip.PrefixFrom(netip.AddrFrom4(four), p.Bits)) {
				return
			}
		}
	}
}
