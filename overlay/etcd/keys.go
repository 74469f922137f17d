package etcd

import (
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// keys are the keys of one network.
type keys struct {
	base    string // prefix, and the network's name where it has one
	network string
}

// newKeys refuses names whose keys would mix with another network's.
func newKeys(prefix, network string) (keys, error) {
	if network == "" {
		return keys{base: path.Join(prefix)}, nil
	}
	if err := overlay.CheckName(network); err != nil {
		return keys{}, err
	}
	return keys{base: path.Join(prefix, network), network: network}, nil
}

// String names the network in messages.
func (k keys) String() string {
	if k.network == "" {
		return "the default network"
	}
	return fmt.Sprintf("network %q", k.network)
}

func (k keys) config() string { return path.Join(k.base, "config") }

// subnets is the beginning of all keys that flanneld takes for leases of this
// network. Leases have a slash behind it, but flanneld does not ask for it.
func (k keys) subnets() string { return path.Join(k.base, "subnets") }

// lease is the key of a subnet.
func (k keys) lease(subnet, ipv6 netip.Prefix) string {
	return k.subnets() + "/" + formatSubnet(subnet, ipv6)
}

// parseLease reads the subnets of a lease's key; ipv6 is zero without one.
func (k keys) parseLease(key string) (subnet, ipv6 netip.Prefix, err error) {
	text, ok := strings.CutPrefix(key, k.subnets()+"/")
	if !ok {
		return subnet, ipv6, fmt.Errorf("not below %s/, yet flanneld takes it for a lease", k.subnets())
	}
	return parseSubnet(text)
}

// free is true in a transaction while no lease's key names the subnet, alone or
// with an IPv6 subnet behind it.
func (k keys) free(subnet netip.Prefix) clientv3.Cmp {
	from := k.lease(subnet, netip.Prefix{})
	end := from + string(rune(ipv6Mark+1))
	return clientv3.Compare(clientv3.CreateRevision(from), "=", 0).WithRange(end)
}

// noneSince is true in a transaction while no lease's key has been made after
// the revision.
func (k keys) noneSince(revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(k.subnets()), "<", revision+1).WithPrefix()
}

// ipv6Mark stands between the IPv4 and the IPv6 subnet of a key.
const ipv6Mark = '&'

// formatSubnet writes subnets as flannel's keys do: 10.9.9.0-24, or, with an
// IPv6 subnet, 10.9.9.0-24&fd00:5:0:4b::-64.
func formatSubnet(subnet, ipv6 netip.Prefix) string {
	text := formatPrefix(subnet)
	if ipv6.IsValid() {
		text += string(ipv6Mark) + formatPrefix(ipv6)
	}
	return text
}

func formatPrefix(p netip.Prefix) string {
	return p.Addr().String() + "-" + strconv.Itoa(p.Bits())
}

// parseSubnet reads what formatSubnet writes, and nothing else: a subnet has
// one spelling, so that two keys cannot name the same one unseen.
func parseSubnet(text string) (subnet, ipv6 netip.Prefix, err error) {
	v4, v6, dual := strings.Cut(text, string(ipv6Mark))
	subnet, ok := parsePrefix(v4)
	if ok && subnet.Addr().Is4() {
		if !dual {
			return subnet, ipv6, nil
		}
		ipv6, ok = parsePrefix(v6)
		if ok && ipv6.Addr().Is6() && !ipv6.Addr().Is4In6() {
			return subnet, ipv6, nil
		}
	}
	return netip.Prefix{}, netip.Prefix{}, fmt.Errorf("%q is not a subnet in the form 10.5.34.0-24", text)
}

func parsePrefix(text string) (netip.Prefix, bool) {
	addr, bits, _ := strings.Cut(text, "-")
	p, err := netip.ParsePrefix(addr + "/" + bits)
	return p, err == nil && formatPrefix(p) == text
}
