// Package blueprint describes Docker networks so that every host of a cluster can
// make the same: plain values that the store keeps and the plugin compares.
package blueprint

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Network is a Docker network on a flannel network, without what is one host's
// alone.
type Network struct {
	Name    string // Docker's name for it
	Flannel string // flannel's name of its network, empty for the default one
	// Subnets are the flannel network's CIDRs where somebody gave them with
	// --subnet, never a host's own subnet.
	Subnets    []netip.Prefix    `json:",omitempty"`
	IPAM       map[string]string `json:",omitempty"` // given with --ipam-opt
	Options    map[string]string `json:",omitempty"` // given with -o
	Labels     map[string]string `json:",omitempty"`
	Internal   bool              `json:",omitempty"`
	Attachable bool              `json:",omitempty"`
	IPv6       bool              `json:",omitempty"`
}

// Entry is a Network that all hosts share.
type Entry struct {
	Network
	ID string // of this network; one made later under the same name has another
	// Removed says that it was removed everywhere: hosts that still have it
	// remove it.
	Removed bool `json:",omitempty"`
	// Revision is the store's, by which it knows whether the entry is still as
	// it was read; 0 for one that it does not hold.
	Revision int64 `json:"-"`
}

// Differs says in what here works otherwise than there; empty for nothing. How
// the flannel network was named, with --subnet or --ipam-opt, and the labels make
// no difference to packets.
func Differs(here, there Network) string {
	var all []string
	note := func(what, here, there string) {
		if here != there {
			all = append(all, fmt.Sprintf("%s is %s here and %s there", what, here, there))
		}
	}
	note("flannel network", cmp.Or(here.Flannel, "the default one"), cmp.Or(there.Flannel, "the default one"))
	for _, key := range slices.Sorted(maps.Keys(union(here.Options, there.Options))) {
		note("-o "+key, cmp.Or(here.Options[key], "absent"), cmp.Or(there.Options[key], "absent"))
	}
	note("--internal", fmt.Sprint(here.Internal), fmt.Sprint(there.Internal))
	note("--attachable", fmt.Sprint(here.Attachable), fmt.Sprint(there.Attachable))
	note("--ipv6", fmt.Sprint(here.IPv6), fmt.Sprint(there.IPv6))
	return strings.Join(all, "; ")
}

func union(a, b map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

// Presence is how a host stands to a Network.
type Presence int

// The ways to stand to a Network.
const (
	Gone Presence = iota // the host does not have it
	Here                 // it has it
	Used                 // and containers that run use it
)
