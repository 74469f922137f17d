package overlay

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/docker-flannel/docker-flannel/internal/statefile"
)

// load reads both state files.
func (o *Overlay) load() error {
	var records []record
	err := statefile.Load(o.file.Path(), &records)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("load networks: %w", err)
	}
	if err := checkRecords(records); err != nil {
		return fmt.Errorf("load networks: state file %s: %w; put a good copy in its place, or move it away to begin without it", o.file.Path(), err)
	}
	var leases map[string][]Lease
	if err := statefile.Load(o.seen.Path(), &leases); err != nil && !errors.Is(err, os.ErrNotExist) {
		o.opt.Log.Warn("peers are unknown until etcd answers", "error", err)
	}
	for _, r := range records {
		if r.Docker == nil {
			r.Held = false // the create that asked for it ended with the process
		}
		if r.Faulty.Release != o.opt.Release {
			r.Faulty = platform{}
		}
		if !r.Subnet.IsValid() {
			continue
		}
		n := newNetwork(r)
		n.peers = slices.DeleteFunc(leases[r.Name], func(l Lease) bool {
			return r.Config.Fits(l.Subnet) != nil || !l.PublicIP.Is4() || l.IPv6Subnet.IsValid() && r.Config.Fits(l.IPv6Subnet) != nil
		})
		o.nets[r.Name] = n
	}
	return nil
}

// checkRecords refuses what no process can have saved: plans are made of it
// before anything else could tell.
func checkRecords(records []record) error {
	known := map[string]bool{}
	for _, r := range records {
		if known[r.Name] {
			return fmt.Errorf("%s: listed twice", title(r.Name))
		}
		known[r.Name] = true
		if err := r.check(); err != nil {
			return fmt.Errorf("%s: %w", title(r.Name), err)
		}
	}
	return nil
}

func (r *record) check() error {
	if !r.Subnet.IsValid() && !r.Leased && !r.Held && r.Docker == nil && len(r.Ports) == 0 {
		return nil // known by name only
	}
	text, err := r.Config.Text()
	if err != nil {
		return err
	}
	if again, err := ParseConfig(text); err != nil || !again.Equal(r.Config) {
		return fmt.Errorf("config %s: not a network's", text)
	}
	if !r.Subnet.Addr().Is4() {
		return fmt.Errorf("subnet %s: not an IPv4 subnet", r.Subnet)
	}
	if err := r.Config.Fits(r.Subnet); err != nil {
		return err
	}
	if six := r.IPv6Subnet; six.IsValid() {
		if err := r.Config.Fits(six); err != nil || !six.Addr().Is6() {
			return fmt.Errorf("IPv6 subnet %s: not one of the network's: %w", six, err)
		}
	}
	if r.Docker == nil {
		if len(r.Ports)+len(r.Published) > 0 {
			return fmt.Errorf("%d endpoints and %d published ports without a Docker network", len(r.Ports), len(r.Published))
		}
		return nil
	}
	if len(r.Docker.ID) < shortID || r.Docker.Subnet != r.Subnet {
		return fmt.Errorf("network %q on subnet %s: not one of this host's, which is %s", r.Docker.ID, r.Docker.Subnet, r.Subnet)
	}
	if six := r.Docker.IPv6Subnet; six.IsValid() && six != r.IPv6Subnet {
		return fmt.Errorf("network %q on IPv6 subnet %s: not one of this host's, which is %s", r.Docker.ID, six, r.IPv6Subnet)
	}
	return r.checkPorts()
}

func (r *record) checkPorts() error {
	heads, addrs := map[string]bool{}, map[netip.Addr]bool{}
	for _, p := range r.Ports {
		if len(p.Endpoint) < shortID || p.Network != r.Docker.ID || !r.Subnet.Contains(p.Addr) {
			return fmt.Errorf("endpoint %q with address %s: not one of network %s on %s", p.Endpoint, p.Addr, head(r.Docker.ID), r.Subnet)
		}
		if p.IPv6.IsValid() && !r.Docker.IPv6Subnet.Contains(p.IPv6) {
			return fmt.Errorf("endpoint %s with address %s: not one of %s", head(p.Endpoint), p.IPv6, r.Docker.IPv6Subnet)
		}
		if heads[head(p.Endpoint)] || addrs[p.Addr] || p.IPv6.IsValid() && addrs[p.IPv6] {
			return fmt.Errorf("endpoint %s with address %s: listed twice", head(p.Endpoint), p.Addr)
		}
		heads[head(p.Endpoint)], addrs[p.Addr], addrs[p.IPv6] = true, true, true
	}
	return r.checkPublished()
}

func (r *record) checkPublished() error {
	for _, p := range r.Published {
		known := slices.ContainsFunc(r.Ports, func(port Port) bool { return port.Endpoint == p.Endpoint && port.has(p.To.Addr()) })
		if !known || !p.Host.IsValid() || p.Host.Addr().Is4() != p.To.Addr().Is4() || p.Host.Port() == 0 || p.To.Port() == 0 || !r.Docker.leadsOut() {
			return fmt.Errorf("published port %s to %s: not one of network %s", p.Host, p.To, head(r.Docker.ID))
		}
	}
	return nil
}
