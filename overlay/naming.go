package overlay

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// networkName is what a network may be called: one element of a key's path.
var networkName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// CheckName refuses a network's name whose keys would mix with another network's.
// Above all none may begin with subnets: flanneld takes every key that does for a
// lease, and drops all its routes over one it cannot read.
func CheckName(name string) error {
	if networkName.MatchString(name) && name != "config" && !strings.HasPrefix(name, "subnets") {
		return nil
	}
	return fmt.Errorf("network name %q: up to 64 letters, digits, dots, dashes and underscores are accepted, beginning with a letter or digit, but not config and not subnets…", name)
}

// resolve finds the network that a request without a name is for: the one whose
// CIDR --subnet is, and the default network otherwise.
func (o *Overlay) resolve(ctx context.Context, req Request) (Request, error) {
	if req.Name != "" || !req.Subnet.IsValid() {
		return req, nil
	}
	known, err := o.opt.Store.Networks(ctx)
	if err != nil {
		return req, fmt.Errorf("find the network of --subnet %s: %w", req.Subnet, err)
	}
	name, found := overlapping(req.Subnet, known)
	switch {
	case !found || name == "":
	case known[name].Network == req.Subnet:
		req.Name = name
	default:
		return req, fmt.Errorf("--subnet %s overlaps %s (%s): give --ipam-opt network=%s, or another subnet",
			req.Subnet, title(name), known[name].Network, name)
	}
	return req, nil
}

// overlapping returns the name of a network whose CIDR overlaps p.
func overlapping(p netip.Prefix, others map[string]Config) (name string, found bool) {
	for _, name := range slices.Sorted(maps.Keys(others)) {
		if others[name].Network.Overlaps(p) || others[name].IPv6Network.Overlaps(p) {
			return name, true
		}
	}
	return "", false
}
