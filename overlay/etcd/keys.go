package etcd

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Keys are stock flannel's. Nothing else may be written below subnets: a
// watching flanneld drops every route at a key that it cannot read.
const (
	configKey  = "config"
	subnetsDir = "subnets/"
)

// dir is where a network's keys are, with a slash at its end.
func dir(prefix, network string) string {
	if network == "" {
		return prefix + "/"
	}
	return prefix + "/" + network + "/"
}

// formatKey is the last part of a lease's key: 10.5.7.0-24, and with IPv6
// 10.5.7.0-24&fd00:5:0:4b::-64.
func formatKey(subnet, subnet6 netip.Prefix) string {
	key := fmt.Sprintf("%s-%d", subnet.Addr(), subnet.Bits())
	if subnet6.IsValid() {
		key += fmt.Sprintf("&%s-%d", subnet6.Addr(), subnet6.Bits())
	}
	return key
}

// parseKey reads the last part of a lease's key.
func parseKey(key string) (subnet, subnet6 netip.Prefix, err error) {
	four, six, dual := strings.Cut(key, "&")
	subnet, err = parsePart(four)
	if err == nil && !subnet.Addr().Is4() {
		err = fmt.Errorf("%q is not IPv4", four)
	}
	if err == nil && dual {
		subnet6, err = parsePart(six)
		if err == nil && (!subnet6.Addr().Is6() || subnet6.Addr().Is4In6()) {
			err = fmt.Errorf("%q is not IPv6", six)
		}
	}
	if err != nil {
		return netip.Prefix{}, netip.Prefix{}, fmt.Errorf("key %q is not a subnet such as 10.5.7.0-24: %w", key, err)
	}
	return subnet, subnet6, nil
}

// parsePart reads address-length.
func parsePart(text string) (netip.Prefix, error) {
	address, length, found := strings.Cut(text, "-")
	if !found {
		return netip.Prefix{}, fmt.Errorf("%q has no length", text)
	}
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, err
	}
	if ip.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q has a zone", text)
	}
	bits, err := strconv.ParseUint(length, 10, 8)
	if err != nil {
		return netip.Prefix{}, err
	}
	prefix := netip.PrefixFrom(ip, int(bits))
	if !prefix.IsValid() || prefix.Masked() != prefix {
		return netip.Prefix{}, fmt.Errorf("%q is not on a boundary of its length", text)
	}
	return prefix, nil
}
