package netlab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
)

const (
	bridge    = "br0"
	wireMAC   = "02:00:c0:00:02:fe"
	firstMTU  = 1500
	sysctlNet = "/proc/sys/net/ipv4/"
)

var (
	subnet    = netip.MustParsePrefix("192.0.2.0/24")
	hostNames = regexp.MustCompile(`^[a-z][a-z0-9-]{0,13}$`)
)

func (l *Lab) layWire() error {
	l.wire = &Host{lab: l, spec: HostSpec{Name: "wire"}}
	ns, err := newNetns(l.id + "-wire")
	if err != nil {
		return err
	}
	l.wire.ns = ns
	if err := ns.do(routeBetweenHosts); err != nil {
		return fmt.Errorf("make the wire a router: %w", err)
	}
	return l.ipBatch(ns,
		"link set lo up",
		"address add "+Outside+"/32 dev lo",
		"link add "+bridge+" address "+wireMAC+" type bridge",
		"address add "+Gateway+"/24 dev "+bridge,
		"link set "+bridge+" up")
}

// Hosts of two subnets meet only through the router, so it must not tell them
// that they share a wire.
func routeBetweenHosts() error {
	for _, set := range [][2]string{
		{"ip_forward", "1"},
		{"conf/all/send_redirects", "0"},
		{"conf/default/send_redirects", "0"},
	} {
		if err := os.WriteFile(sysctlNet+set[0], []byte(set[1]), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// plug connects the host's namespace to the wire. The hardware address follows
// from the host's, as a real card keeps its own over a reboot.
func (l *Lab) plug(spec HostSpec, ns *netns) error {
	gateway := lastHost(spec.Addr)
	mac := spec.Addr.Addr().As4()
	err := l.ipBatch(l.wire.ns,
		fmt.Sprintf("address replace %s/%d dev %s", gateway, spec.Addr.Bits(), bridge),
		fmt.Sprintf("link add %s mtu %d type veth peer name eth0 mtu %d address 02:00:%02x:%02x:%02x:%02x netns %s",
			spec.Name, spec.MTU, spec.MTU, mac[0], mac[1], mac[2], mac[3], ns.name),
		fmt.Sprintf("link set %s master %s up", spec.Name, bridge))
	if err != nil {
		return err
	}
	return l.ipBatch(ns,
		"link set lo up",
		fmt.Sprintf("address add %s dev eth0", spec.Addr),
		"link set eth0 up",
		"route add default via "+gateway.String())
}

func (l *Lab) ipBatch(ns *netns, lines ...string) error {
	ctx, cancel := withPatience(context.Background())
	defer cancel()
	_, err := l.run(ctx, job{
		space: ns.space(),
		argv:  []string{"ip", "-batch", "-"},
		stdin: strings.NewReader(strings.Join(lines, "\n") + "\n"),
	})
	if err != nil {
		return fmt.Errorf("in %s: %w", ns.name, err)
	}
	return nil
}

// admit completes the spec and enters the host into the lab.
func (l *Lab) admit(spec HostSpec) (*Host, error) {
	if !hostNames.MatchString(spec.Name) || spec.Name == "lo" || spec.Name == bridge || spec.Name == "wire" {
		return nil, fmt.Errorf("host name %q: want a lower-case letter, then up to 13 letters, digits or dashes, not lo, %s or wire", spec.Name, bridge)
	}
	if spec.MTU == 0 {
		spec.MTU = firstMTU
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	if l.hosts[spec.Name] != nil {
		return nil, fmt.Errorf("host %s exists", spec.Name)
	}
	if err := l.address(&spec); err != nil {
		return nil, fmt.Errorf("host %s: %w", spec.Name, err)
	}
	h := &Host{lab: l, spec: spec}
	l.hosts[spec.Name] = h
	return h, nil
}

// address gives the spec a free address, or marks the one it has.
func (l *Lab) address(spec *HostSpec) error {
	if spec.Addr.IsValid() {
		if !spec.Addr.Addr().Is4() || spec.Addr.Bits() > 30 {
			return fmt.Errorf("address %s: want IPv4 with room for a gateway", spec.Addr)
		}
		if spec.Addr.Addr() == lastHost(spec.Addr) {
			return fmt.Errorf("address %s is the gateway's", spec.Addr)
		}
		if subnet.Contains(spec.Addr.Addr()) {
			l.octets[spec.Addr.Addr().As4()[3]] = true
		}
		return nil
	}
	octets := subnet.Addr().As4()
	for n := 1; n < len(l.octets)-1; n++ {
		if l.octets[n] {
			continue
		}
		l.octets[n] = true
		octets[3] = byte(n)
		spec.Addr = netip.PrefixFrom(netip.AddrFrom4(octets), subnet.Bits())
		return nil
	}
	return errors.New("no address is free on the wire")
}

// lastHost is the subnet's last address before its broadcast address.
func lastHost(p netip.Prefix) netip.Addr {
	base := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(base[:]) | (1<<(32-p.Bits()) - 1)
	binary.BigEndian.PutUint32(base[:], n-1)
	return netip.AddrFrom4(base)
}

// Unplug pulls the host's cable: its own interface stays, without a carrier.
func (h *Host) Unplug() error {
	return h.lab.ipBatch(h.lab.wire.ns, "link set "+h.spec.Name+" down")
}

// Replug puts the host's cable back.
func (h *Host) Replug() error {
	return h.lab.ipBatch(h.lab.wire.ns, "link set "+h.spec.Name+" up")
}

// pull takes the host's interface off the wire, if it is there. The wire of a
// closed lab goes as a whole.
func (l *Lab) pull(h *Host) error {
	if h == l.wire || l.isClosed() {
		return nil
	}
	plugged := false
	err := l.wire.Do(func() error {
		links, err := net.Interfaces()
		plugged = slices.ContainsFunc(links, func(i net.Interface) bool { return i.Name == h.spec.Name })
		return err
	})
	if err != nil || !plugged {
		return err
	}
	return l.ipBatch(l.wire.ns, "link del "+h.spec.Name)
}
