package overlay

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
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
		network, taken := cfg.Network, others
		if req.Name == "" {
			if name, found := overlapping(network, others); found {
				return nil, fmt.Errorf("setting NETWORK=%s overlaps %s (%s): choose another", network, title(name), others[name].Network)
			}
		} else {
			// What the default network will have is not free either.
			taken = map[string]Config{"": preset}
			maps.Copy(taken, others)
			if network, err = o.cidr(req, cfg.SubnetLen, taken); err != nil {
				return nil, err
			}
		}
		raw, err := backend.Distinct(cfg.Backend.Raw, backendsOf(taken, kind))
		if err != nil {
			return nil, fmt.Errorf("backend %s: %w", kind, err)
		}
		text, err := NewConfig(network, cfg.SubnetLen, raw)
		if err == nil && cfg.EnableIPv6 && req.Name == "" {
			return DualStack(text, cfg.IPv6Network)
		}
		return text, err
	}, nil
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

// dockers are the pools from which an engine takes the subnets of its own
// networks, unless its daemon.json says otherwise.
var dockers = []netip.Prefix{
	netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("172.18.0.0/15"),
	netip.MustParsePrefix("172.20.0.0/14"), netip.MustParsePrefix("172.24.0.0/13"),
	netip.MustParsePrefix("192.168.0.0/16"),
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
	var why error
	for p := range pool.all() {
		if _, taken := overlapping(p, others); taken {
			continue
		}
		if why = o.free(p); why == nil {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.Join(fmt.Errorf("the setting NETWORK_POOL (%s) has no CIDR left for %s: give it one with --subnet", pool, title(req.Name)), why)
}

// free tells why a CIDR of the pool is not: this host or Docker has other plans.
func (o *Overlay) free(p netip.Prefix) error {
	for _, d := range dockers {
		if d.Overlaps(p) {
			return fmt.Errorf("%s overlaps %s, from which Docker takes subnets for networks of its own", p, d)
		}
	}
	return o.avoid(p)
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
