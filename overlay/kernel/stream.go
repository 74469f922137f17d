package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A UDP client that goes on sending keeps its entry in conntrack, and with it the
// way that its first packet took: past a port that is published later, or to a
// container that is gone. So entries go when their ports change; TCP and SCTP
// have associations that end.

// streams are the ports whose entries are out of date. It matches them.
type streams map[netip.AddrPort]bool

// changedStreams are the UDP ports that one of two tables publishes differently.
func changedStreams(before, after string) streams {
	changed := streams{}
	seen := map[string]int{}
	for i, text := range []string{before, after} {
		for l := range strings.Lines(text) {
			seen[l] |= 1 << i
		}
	}
	for l, in := range seen {
		// As Publish.String writes it.
		words := strings.Fields(l)
		if in == 3 || len(words) != 6 || words[0] != "publish" || words[2] != UDP.String() {
			continue
		}
		if host, err := netip.ParseAddrPort(words[3]); err == nil {
			changed[host] = true
		}
	}
	return changed
}

// MatchConntrackFlow tells whether an entry began at one of the ports.
func (s streams) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	to, ok := netip.AddrFromSlice(flow.Forward.DstIP)
	if !ok || flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to = to.Unmap()
	whole := netip.IPv4Unspecified()
	if to.Is6() {
		whole = netip.IPv6Unspecified()
	}
	return s[netip.AddrPortFrom(to, flow.Forward.DstPort)] || s[netip.AddrPortFrom(whole, flow.Forward.DstPort)]
}

// families are those of the ports, as conntrack is asked for them.
func (s streams) families() map[netlink.InetFamily]bool {
	all := map[netlink.InetFamily]bool{}
	for host := range s {
		if host.Addr().Is4() {
			all[unix.AF_INET] = true
		} else {
			all[unix.AF_INET6] = true
		}
	}
	return all
}

// forgetStreams deletes the entries of UDP ports that were published or withdrawn.
func (k *Kernel) forgetStreams(before, after string) error {
	changed := changedStreams(before, after)
	if len(changed) == 0 {
		return nil
	}
	return k.ns.run(func() error {
		var errs []error
		for family := range changed.families() {
			if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, changed); err != nil {
				errs = append(errs, fmt.Errorf("delete conntrack entries of published UDP ports: %w", err))
			}
		}
		return errors.Join(errs...)
	})
}
