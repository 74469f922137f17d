package ipam

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	api "github.com/docker/go-plugins-helpers/ipam"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// AddressSpace is the one address space there is, local and global alike:
// engines from 27 on then leave the check for overlapping routes to us.
const AddressSpace = "flannel"

// internalOption begins the options that the engine adds by itself.
const internalOption = "com.docker.network."

// poolOptions is what --ipam-opt asks for.
type poolOptions struct {
	network string // flannel's name for it, empty for the default one
	backend string // empty for any
}

// poolOptionParsers are the accepted --ipam-opt keys, each with what reads its
// value.
var poolOptionParsers = map[string]func(value string, into *poolOptions) error{
	"network": func(value string, into *poolOptions) error {
		if value == "" {
			return errors.New("give the flannel network's name, or leave it out for the default network")
		}
		if err := overlay.CheckName(value); err != nil {
			return err
		}
		into.network = value
		return nil
	},
	"backend": func(value string, into *poolOptions) error {
		if value == "" {
			return errors.New("give a backend's name, such as vxlan")
		}
		into.backend = value
		return nil
	},
}

// parsePoolOptions reads --ipam-opt. The error names the option, its value and
// what is accepted.
func parsePoolOptions(options map[string]string) (poolOptions, error) {
	var out poolOptions
	for _, key := range slices.Sorted(maps.Keys(options)) {
		if strings.HasPrefix(key, internalOption) {
			continue
		}
		parse := poolOptionParsers[key]
		if parse == nil {
			accepted := strings.Join(slices.Sorted(maps.Keys(poolOptionParsers)), ", ")
			return poolOptions{}, fmt.Errorf("--ipam-opt %s=%s: unknown option; accepted: %s; leave it out", key, options[key], accepted)
		}
		if err := parse(options[key], &out); err != nil {
			return poolOptions{}, fmt.Errorf("--ipam-opt %s=%s: %w", key, options[key], err)
		}
	}
	return out, nil
}

// parsePoolRequest reads what docker network create asks for. Each error names
// the flag, its value and what to do.
func parsePoolRequest(req *api.RequestPoolRequest) (overlay.Request, error) {
	var none overlay.Request
	if req.AddressSpace != "" && req.AddressSpace != AddressSpace {
		return none, fmt.Errorf("address space %q: accepted: %q; create the network with --ipam-driver flannel", req.AddressSpace, AddressSpace)
	}
	if req.SubPool != "" {
		return none, fmt.Errorf("--ip-range %s: not supported; every address of the host's subnet is handed out; leave it out", req.SubPool)
	}
	options, err := parsePoolOptions(req.Options)
	if err != nil {
		return none, err
	}
	subnet, err := parseSubnet(req.Pool, req.V6)
	if err != nil {
		return none, err
	}
	return overlay.Request{Name: options.network, Backend: options.backend, Subnet: subnet, IPv6: req.V6}, nil
}

// parseSubnet reads --subnet; empty text is the zero prefix.
func parseSubnet(text string, v6 bool) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	subnet, err := netip.ParsePrefix(text)
	if v6 && (err != nil || !subnet.Addr().Is6() || subnet.Addr().Is4In6()) {
		return netip.Prefix{}, fmt.Errorf("--subnet %s: not an IPv6 subnet such as fd00:5::/48; correct it or leave it out", text)
	}
	if !v6 && (err != nil || !subnet.Addr().Is4()) {
		return netip.Prefix{}, fmt.Errorf("--subnet %s: not an IPv4 subnet such as 10.5.0.0/16; correct it or leave it out", text)
	}
	if subnet != subnet.Masked() {
		return netip.Prefix{}, fmt.Errorf("--subnet %s: an address inside a subnet; give the subnet, %s, or leave it out", text, subnet.Masked())
	}
	return subnet, nil
}
