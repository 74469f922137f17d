package kernel

import (
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
	any4 := netip.IPv4Unspecified()
	return s[netip.AddrPortFrom(to, flow.Forward.DstPort)] || to.Is4() && s[netip.AddrPortFrom(any4, flow.Forward.DstPort)]
}

// forgetStreams deletes the entries of UDP ports that were published or withdrawn.
func (k *Kernel) forgetStreams(before, after string) error {
	changed := changedStreams(before, after)
	if len(changed) == 0 {
		return nil
	}
	return k.ns.run(func() error {
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, changed); err != nil {
			return fmt.Errorf("delete conntrack entries of published UDP ports: %w", err)
		}
		return nil
	})
}
