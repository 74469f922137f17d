package kernel

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// defaultMetric6 is what the kernel makes of an IPv6 route without a metric.
const defaultMetric6 = 1024

// metric spreads our IPv4 routes over 256 metrics. The kernel finds the next
// hop of a new route in a hash over device, protocol and metric but not
// gateway: with one metric, thousands of routes over one device share a bucket
// and adding them takes quadratic time. There is only one route for a subnet,
// so the value has no other effect.
func metric(dst netip.Prefix) uint32 {
	if !dst.Addr().Is4() {
		return defaultMetric6
	}
	a := dst.Addr().As4()
	number := (uint64(a[0])<<24 | uint64(a[1])<<16 | uint64(a[2])<<8 | uint64(a[3])) >> (32 - dst.Bits())
	return 1 + uint32(number&0xff)
}

// info is the route as the kernel takes it, on the device with this index.
func (r Route) info(index int) routeInfo {
	i := routeInfo{
		dst: r.Dst, via: r.Via, src: r.Src, index: index, metric: metric(r.Dst),
		protocol: RouteProtocol, scope: unix.RT_SCOPE_UNIVERSE, kind: unix.RTN_UNICAST,
	}
	if r.OnLink {
		i.flags = unix.RTNH_F_ONLINK
	}
	if !r.Via.IsValid() && r.Dst.Addr().Is4() {
		i.scope = unix.RT_SCOPE_LINK
	}
	return i
}

// ours tells whether the route carries our protocol number.
func (r routeInfo) ours() bool { return r.protocol == RouteProtocol }

// route is the Route that stands for r in a State; false if none can.
func (r routeInfo) route(names map[int]string) (Route, bool) {
	found := Route{Dst: r.dst, Via: r.via, Src: r.src, Link: names[r.index], OnLink: r.flags&unix.RTNH_F_ONLINK != 0}
	return found, found.info(r.index) == r
}
