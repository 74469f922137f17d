package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// UnderlaySpec says which interface carries the encapsulated packets.
type UnderlaySpec struct {
	// Iface is an interface's exact name, or else a regular expression that
	// matches a name or an address; the first match counts. Empty means the
	// owner of PublicIP or, without one, the default route's interface.
	Iface string
	// PublicIP is the address under which other hosts reach this one. It may
	// be that of a NAT, and then needs Iface.
	PublicIP netip.Addr
	// PublicIPv6 is the same for IPv6; empty means the interface's own.
	PublicIPv6 netip.Addr
}

// Underlay is the interface that carries the encapsulated packets.
type Underlay struct {
	Name       string
	Index, MTU int        // MTU in bytes
	Addr       netip.Addr // of the interface, of PublicIP's family
	PublicIP   netip.Addr // as given, or else Addr
	// Net is the subnet of Addr: hosts in it are on the same layer-2 network.
	Net netip.Prefix
	// IPv6 is the interface's place in the IPv6 underlay; zero without one.
	IPv6 Place
}

// Place is where an interface is to be found in one address family.
type Place struct {
	Addr     netip.Addr // of the interface
	PublicIP netip.Addr // as given, or else Addr
	Net      netip.Prefix
}

// Underlay finds the interface that spec describes. Its errors tell what there
// is to choose from. Watch wakes when what was found changes.
func (k *Kernel) Underlay(spec UnderlaySpec) (Underlay, error) {
	links, err := k.readLinks()
	if err != nil {
		return Underlay{}, err
	}
	addrs, err := k.readAddrs()
	if err != nil {
		return Underlay{}, err
	}
	var routes []routeInfo
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		found, err := k.readRoutes(family)
		if err != nil {
			return Underlay{}, err
		}
		routes = append(routes, found...)
	}
	found, err := chooseUnderlay(spec, links, addrs, routes)
	if err == nil {
		k.under.Store(&found.Name)
	}
	return found, err
}

// chooseUnderlay is the pure part of Underlay.
func chooseUnderlay(spec UnderlaySpec, links []linkInfo, addrs []addrInfo, routes []routeInfo) (Underlay, error) {
	of := map[int][]addrInfo{}
	for _, a := range addrs {
		of[a.index] = append(of[a.index], a)
	}
	link, err := chooseLink(spec, links, of, routes)
	if err != nil {
		return Underlay{}, fmt.Errorf("%w; there are %s", err, inventory(links, of))
	}
	v6 := spec.PublicIP.IsValid() && spec.PublicIP.Is6()
	chosen := chooseAddr(v6, spec.PublicIP, of[link.index])
	addr := chosen.Addr()
	if !addr.IsValid() {
		return Underlay{}, fmt.Errorf("interface %s has no address that other hosts could reach; there are %s", link.name, inventory(links, of))
	}
	found := Underlay{Name: link.name, Index: link.index, MTU: link.mtu, Addr: addr, PublicIP: spec.PublicIP, Net: chosen.Masked()}
	if !found.PublicIP.IsValid() {
		found.PublicIP = addr
	}
	if six := chooseAddr(true, spec.PublicIPv6, of[link.index]); six.IsValid() && !v6 {
		found.IPv6 = Place{Addr: six.Addr(), PublicIP: spec.PublicIPv6, Net: six.Masked()}
		if !spec.PublicIPv6.IsValid() {
			found.IPv6.PublicIP = six.Addr()
		}
	}
	return found, nil
}

func chooseLink(spec UnderlaySpec, links []linkInfo, of map[int][]addrInfo, routes []routeInfo) (linkInfo, error) {
	if spec.Iface != "" {
		return matchLink(spec.Iface, links, of)
	}
	if spec.PublicIP.IsValid() {
		for _, l := range links {
			if slices.ContainsFunc(of[l.index], func(a addrInfo) bool { return a.prefix.Addr() == spec.PublicIP }) {
				return l, nil
			}
		}
		return linkInfo{}, fmt.Errorf("no interface has the address %s; behind a NAT the interface must be named", spec.PublicIP)
	}
	return defaultLink(links, routes)
}

// matchLink finds the interface of that exact name, or else the first one
// whose name or address matches it as a regular expression.
func matchLink(pattern string, links []linkInfo, of map[int][]addrInfo) (linkInfo, error) {
	for _, l := range links {
		if l.name == pattern {
			return l, nil
		}
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return linkInfo{}, fmt.Errorf("no interface is named %q, which is no regular expression either: %w", pattern, err)
	}
	for _, l := range links {
		if l.loopback || l.alias == Alias {
			continue
		}
		if re.MatchString(l.name) || slices.ContainsFunc(of[l.index], func(a addrInfo) bool { return re.MatchString(a.prefix.Addr().String()) }) {
			return l, nil
		}
	}
	return linkInfo{}, fmt.Errorf("no interface has a name or an address that matches %q", pattern)
}

// defaultLink is the interface of the best default route, an IPv4 one if
// there is any.
func defaultLink(links []linkInfo, routes []routeInfo) (linkInfo, error) {
	defaults := slices.DeleteFunc(slices.Clone(routes), func(r routeInfo) bool {
		return r.dst.Bits() != 0 || r.kind != unix.RTN_UNICAST || r.index == 0
	})
	if len(defaults) == 0 {
		return linkInfo{}, errors.New("there is no default route to choose the interface by, so it must be named")
	}
	best := slices.MinFunc(defaults, func(a, b routeInfo) int {
		return cmp.Or(cmp.Compare(a.dst.Addr().BitLen(), b.dst.Addr().BitLen()), cmp.Compare(a.metric, b.metric))
	})
	for _, l := range links {
		if l.index == best.index {
			return l, nil
		}
	}
	return linkInfo{}, fmt.Errorf("the default route's interface %d has gone", best.index)
}

// chooseAddr picks an interface's address of one family: public itself if it is
// there, or else the first, preferring what is global, permanent and primary.
func chooseAddr(v6 bool, public netip.Addr, addrs []addrInfo) netip.Prefix {
	rank := func(a addrInfo) int {
		n := 0
		for bit, bad := range []bool{
			a.flags&unix.IFA_F_SECONDARY != 0,
			a.flags&unix.IFA_F_PERMANENT == 0,
			a.flags&(unix.IFA_F_DEPRECATED|unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0,
			a.scope != unix.RT_SCOPE_UNIVERSE,
		} {
			if bad {
				n |= 1 << bit
			}
		}
		if a.prefix.Addr() == public {
			return -1
		}
		return n
	}
	usable := slices.DeleteFunc(slices.Clone(addrs), func(a addrInfo) bool {
		addr := a.prefix.Addr()
		return addr.Is6() != v6 || addr.IsLoopback() || addr.Is6() && addr.IsLinkLocalUnicast()
	})
	if len(usable) == 0 {
		return netip.Prefix{}
	}
	return slices.MinFunc(usable, func(a, b addrInfo) int { return cmp.Compare(rank(a), rank(b)) }).prefix
}

// inventory lists the interfaces that could be meant.
func inventory(links []linkInfo, of map[int][]addrInfo) string {
	var texts []string
	for _, l := range links {
		if l.loopback || l.alias == Alias || len(of[l.index]) == 0 {
			continue
		}
		text := l.name
		for _, a := range of[l.index] {
			if !a.prefix.Addr().IsLinkLocalUnicast() {
				text += " " + a.prefix.Addr().String()
			}
		}
		texts = append(texts, text)
	}
	if len(texts) == 0 {
		return "no interfaces with an address"
	}
	return strings.Join(texts, ", ")
}

// Overlap tells which route of the main table overlaps p, in words; empty for
// none. Default routes do not count, nor do our own and those on our links.
func (k *Kernel) Overlap(p netip.Prefix) (string, error) {
	routes, err := k.readRoutes(family(p.Addr()))
	if err != nil {
		return "", err
	}
	links, err := k.readLinks()
	if err != nil {
		return "", err
	}
	return overlap(p, routes, links), nil
}

// overlap is the pure part of Overlap.
func overlap(p netip.Prefix, routes []routeInfo, links []linkInfo) string {
	byIndex := map[int]linkInfo{}
	for _, l := range links {
		byIndex[l.index] = l
	}
	for _, r := range routes {
		link := byIndex[r.index]
		if r.dst.Bits() == 0 || !r.dst.Overlaps(p) || r.ours() || link.alias == Alias {
			continue
		}
		if link.name == "" {
			return r.String()
		}
		return r.String() + " dev " + link.name
	}
	return ""
}
