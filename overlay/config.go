package overlay

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"net/netip"
	"strings"
)

// Config is a network's configuration, the value of its config key, with
// flannel's defaults filled in. The fields of a family that is not enabled are
// zero.
type Config struct {
	EnableIPv4 bool
	EnableIPv6 bool

	Network     netip.Prefix // the whole network, masked
	IPv6Network netip.Prefix

	SubnetMin     netip.Addr // the first subnet that may be leased
	SubnetMax     netip.Addr // the last subnet that may be leased
	IPv6SubnetMin netip.Addr
	IPv6SubnetMax netip.Addr

	SubnetLen     int // of every host's subnet, in bits
	IPv6SubnetLen int

	Backend BackendConfig
}

// BackendConfig says which backend carries the network's packets.
type BackendConfig struct {
	Type string          // in lower case; "udp" where the config has no Backend
	Raw  json.RawMessage `json:",omitempty"` // the whole Backend object, nil where there is none
}

// configJSON is Config as it is written. encoding/json matches its keys
// without regard to case, as flannel's do.
type configJSON struct {
	EnableIPv4    *bool           `json:",omitempty"`
	EnableIPv6    bool            `json:",omitempty"`
	Network       string          `json:",omitempty"`
	IPv6Network   string          `json:",omitempty"`
	SubnetMin     string          `json:",omitempty"`
	SubnetMax     string          `json:",omitempty"`
	IPv6SubnetMin string          `json:",omitempty"`
	IPv6SubnetMax string          `json:",omitempty"`
	SubnetLen     int             `json:",omitempty"`
	IPv6SubnetLen int             `json:",omitempty"`
	Backend       json.RawMessage `json:",omitempty"`
}

// ParseConfig reads a network's config by flannel's rules (pkg/subnet/config.go
// of flannel 0.28). An error names the field, its value and what is accepted.
func ParseConfig(text []byte) (Config, error) {
	var raw configJSON
	if err := json.Unmarshal(text, &raw); err != nil {
		return Config{}, describeJSON(err)
	}
	c := Config{
		EnableIPv4: raw.EnableIPv4 == nil || *raw.EnableIPv4,
		EnableIPv6: raw.EnableIPv6,
	}
	if !c.EnableIPv4 && !c.EnableIPv6 {
		return Config{}, errors.New("EnableIPv4 and EnableIPv6 are both false: at least one must be true")
	}
	var err error
	if c.Backend, err = parseBackend(raw.Backend); err != nil {
		return Config{}, err
	}
	if c.EnableIPv4 {
		r, err := ipv4.parse(raw.Network, raw.SubnetLen, raw.SubnetMin, raw.SubnetMax)
		if err != nil {
			return Config{}, err
		}
		c.Network, c.SubnetLen, c.SubnetMin, c.SubnetMax = r.network, r.bits, r.min, r.max
	}
	if c.EnableIPv6 {
		r, err := ipv6.parse(raw.IPv6Network, raw.IPv6SubnetLen, raw.IPv6SubnetMin, raw.IPv6SubnetMax)
		if err != nil {
			return Config{}, err
		}
		c.IPv6Network, c.IPv6SubnetLen, c.IPv6SubnetMin, c.IPv6SubnetMax = r.network, r.bits, r.min, r.max
	}
	return c, nil
}

// NewConfig writes the config of a fresh network, in the form of
// {"Network":"10.5.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}. A
// subnetLen of 0 leaves the length to flannel's default, an empty backend
// means udp. What it returns has passed ParseConfig.
func NewConfig(network netip.Prefix, subnetLen int, backend json.RawMessage) ([]byte, error) {
	if !network.IsValid() {
		return nil, fmt.Errorf("%s is missing: %s is accepted", ipv4.field("Network"), ipv4.example)
	}
	text, err := json.Marshal(configJSON{
		Network:   network.Masked().String(),
		SubnetLen: subnetLen,
		Backend:   backend,
	})
	if err != nil {
		return nil, fmt.Errorf("Backend %s: %w", backend, err)
	}
	if _, err := ParseConfig(text); err != nil {
		return nil, err
	}
	return text, nil
}

// DualStack adds an IPv6 network, with subnets of flannel's default length, to a
// config that NewConfig made. What it returns has passed ParseConfig.
func DualStack(config []byte, network netip.Prefix) ([]byte, error) {
	var raw configJSON
	if err := json.Unmarshal(config, &raw); err != nil {
		return nil, describeJSON(err)
	}
	raw.EnableIPv6, raw.IPv6Network = true, network.Masked().String()
	text, err := json.Marshal(raw)
	if err != nil {
		return nil, fmt.Errorf("write config with %s: %w", network, err)
	}
	if _, err := ParseConfig(text); err != nil {
		return nil, err
	}
	return text, nil
}

// Equal reports whether both configs say the same, the Backend object byte by
// byte.
func (c Config) Equal(o Config) bool {
	if c.Backend.Type != o.Backend.Type || !bytes.Equal(c.Backend.Raw, o.Backend.Raw) {
		return false
	}
	return c.SameSubnets(o)
}

// SameSubnets reports whether both configs have the same leasable subnets.
func (c Config) SameSubnets(o Config) bool {
	return c.EnableIPv4 == o.EnableIPv4 && c.EnableIPv6 == o.EnableIPv6 &&
		c.ipv4Range() == o.ipv4Range() && c.ipv6Range() == o.ipv6Range()
}

// Text is a config that ParseConfig reads as c.
func (c Config) Text() ([]byte, error) {
	raw := configJSON{EnableIPv4: &c.EnableIPv4, EnableIPv6: c.EnableIPv6, Backend: c.Backend.Raw}
	if c.EnableIPv4 {
		raw.Network, raw.SubnetLen = c.Network.String(), c.SubnetLen
		raw.SubnetMin, raw.SubnetMax = c.SubnetMin.String(), c.SubnetMax.String()
	}
	if c.EnableIPv6 {
		raw.IPv6Network, raw.IPv6SubnetLen = c.IPv6Network.String(), c.IPv6SubnetLen
		raw.IPv6SubnetMin, raw.IPv6SubnetMax = c.IPv6SubnetMin.String(), c.IPv6SubnetMax.String()
	}
	text, err := json.Marshal(raw)
	if err != nil {
		return nil, fmt.Errorf("write config of %s: %w", c.Network, err)
	}
	return text, nil
}

// Fits returns nil if subnet can be a lease of this network: of the right
// length, on a boundary and between the first and the last subnet. Its family
// decides which fields it is held against.
func (c Config) Fits(subnet netip.Prefix) error {
	fam, r, enabled := ipv4, c.ipv4Range(), c.EnableIPv4
	if subnet.Addr().Is6() {
		fam, r, enabled = ipv6, c.ipv6Range(), c.EnableIPv6
	}
	switch {
	case !subnet.IsValid() || subnet.Addr().Is4In6():
		return fmt.Errorf("%s is not a subnet", subnet)
	case !enabled:
		return fmt.Errorf("subnet %s: the network does not use %s", subnet, fam.name)
	case subnet.Bits() != r.bits:
		return fmt.Errorf("subnet %s: %s is %d", subnet, fam.field("SubnetLen"), r.bits)
	case subnet.Masked() != subnet:
		return fmt.Errorf("subnet %s is not on a /%d boundary", subnet, r.bits)
	case subnet.Addr().Less(r.min) || r.max.Less(subnet.Addr()):
		return fmt.Errorf("subnet %s is outside of %s %s to %s %s",
			subnet, fam.field("SubnetMin"), r.min, fam.field("SubnetMax"), r.max)
	}
	return nil
}

// Count returns how many IPv4 subnets the network can lease.
func (c Config) Count() int {
	if !c.EnableIPv4 {
		return 0
	}
	return int((addrBits(c.SubnetMax)-addrBits(c.SubnetMin))>>(32-c.SubnetLen)) + 1
}

// Subnet returns the i-th IPv4 subnet that can be leased, i from 0 to Count-1.
func (c Config) Subnet(i int) netip.Prefix {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], addrBits(c.SubnetMin)+uint32(i)<<(32-c.SubnetLen))
	return netip.PrefixFrom(netip.AddrFrom4(b), c.SubnetLen)
}

// Subnets yields all IPv4 subnets that can be leased, in order.
func (c Config) Subnets() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for i := range c.Count() {
			if !yield(c.Subnet(i)) {
				return
			}
		}
	}
}

// CountIPv6 returns how many IPv6 subnets the network can lease, of a very large
// network the first 2^30.
func (c Config) CountIPv6() int {
	if !c.EnableIPv6 {
		return 0
	}
	minHi, minLo := words(c.IPv6SubnetMin)
	maxHi, maxLo := words(c.IPv6SubnetMax)
	lo, borrow := bits.Sub64(maxLo, minLo, 0)
	hi, _ := bits.Sub64(maxHi, minHi, borrow)
	const most = 1 << 30
	switch shift := 128 - c.IPv6SubnetLen; {
	case shift >= 64:
		lo, hi = hi>>(shift-64), 0
	default:
		lo, hi = lo>>shift|hi<<(64-shift), hi>>shift
	}
	if hi > 0 || lo >= most {
		return most
	}
	return int(lo) + 1
}

// IPv6Subnet returns the i-th IPv6 subnet that can be leased, i from 0 to
// CountIPv6-1.
func (c Config) IPv6Subnet(i int) netip.Prefix {
	baseHi, baseLo := words(c.IPv6SubnetMin)
	var hi, lo uint64
	if shift := 128 - c.IPv6SubnetLen; shift < 64 {
		hi, lo = uint64(i)>>(64-shift), uint64(i)<<shift
	} else {
		hi = uint64(i) << (shift - 64)
	}
	lo, carry := bits.Add64(baseLo, lo, 0)
	hi, _ = bits.Add64(baseHi, hi, carry)
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.PrefixFrom(netip.AddrFrom16(b), c.IPv6SubnetLen)
}

// words are the two halves of an IPv6 address.
func words(ip netip.Addr) (hi, lo uint64) {
	b := ip.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

func (c Config) ipv4Range() subnetRange {
	return subnetRange{c.Network, c.SubnetLen, c.SubnetMin, c.SubnetMax}
}

func (c Config) ipv6Range() subnetRange {
	return subnetRange{c.IPv6Network, c.IPv6SubnetLen, c.IPv6SubnetMin, c.IPv6SubnetMax}
}

func addrBits(ip netip.Addr) uint32 {
	b := ip.As4()
	return binary.BigEndian.Uint32(b[:])
}

// parseBackend reads the Backend object. flannel itself takes a config without
// one as udp, although its documentation says vxlan.
func parseBackend(raw json.RawMessage) (BackendConfig, error) {
	if len(raw) == 0 {
		return BackendConfig{Type: "udp"}, nil
	}
	var b struct{ Type string }
	if err := json.Unmarshal(raw, &b); err != nil || b.Type == "" {
		return BackendConfig{}, fmt.Errorf(`Backend %s: an object that names its Type is accepted, as in {"Type":"vxlan"}`, raw)
	}
	return BackendConfig{Type: strings.ToLower(b.Type), Raw: raw}, nil
}

// describeJSON says in a user's words what is wrong with a config's JSON.
func describeJSON(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return fmt.Errorf("config is not JSON: %w", err)
	}
	if wrong.Field == "" {
		return fmt.Errorf("config is a JSON %s: an object is accepted", wrong.Value)
	}
	accepted := map[string]string{
		"bool": "true or false", "int": "a whole number", "string": "a string",
	}[wrong.Type.Kind().String()]
	return fmt.Errorf("%s is a JSON %s: %s is accepted", wrong.Field, wrong.Value, accepted)
}
