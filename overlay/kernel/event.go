package kernel

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// event is one rtnetlink notification; one of the pointers is set.
type event struct {
	gone  bool // the object was deleted
	link  *linkInfo
	addr  *addrInfo
	neigh *neighInfo
	route *routeInfo
	conf  *confInfo
}

// parseEvent reads a notification; false for what is of no concern.
func parseEvent(a answer) (event, bool) {
	switch a.kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, ok := parseLink(a.body)
		return event{gone: a.kind == unix.RTM_DELLINK, link: &l}, ok
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		info, ok := parseAddr(a.body)
		return event{gone: a.kind == unix.RTM_DELADDR, addr: &info}, ok
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, ok := parseNeigh(a.body)
		ok = ok && (n.family != unix.AF_BRIDGE || n.flags&unix.NTF_SELF != 0)
		return event{gone: a.kind == unix.RTM_DELNEIGH, neigh: &n}, ok
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r, ok := parseRoute(a.body)
		return event{gone: a.kind == unix.RTM_DELROUTE, route: &r}, ok
	}
	if a.kind == unix.RTM_NEWNETCONF {
		c, ok := parseConf(a.body)
		return event{conf: &c}, ok
	}
	return event{}, false
}

// String is the notification in a few words, for the log.
func (e event) String() string {
	verb := "changed"
	if e.gone {
		verb = "gone"
	}
	switch {
	case e.conf != nil:
		return "ip_forward " + verb
	case e.link != nil:
		return fmt.Sprintf("link %s %s", e.link.name, verb)
	case e.addr != nil:
		return fmt.Sprintf("addr %s %s", e.addr.prefix, verb)
	case e.route != nil:
		return fmt.Sprintf("%s %s", e.route, verb)
	case e.neigh.family == unix.AF_BRIDGE:
		return fmt.Sprintf("fdb %s %s", e.neigh.mac, verb)
	}
	return fmt.Sprintf("neigh %s %s", e.neigh.ip, verb)
}

// eventID is equal for two notifications that tell of one object.
type eventID struct {
	family byte // of an fdb entry or neighbour
	index  int
	ip     netip.Addr
	mac    MAC
	prefix netip.Prefix
	metric uint32
}

func (e event) id() eventID {
	switch {
	case e.addr != nil:
		return eventID{index: e.addr.index, prefix: e.addr.prefix}
	case e.route != nil:
		return eventID{prefix: e.route.dst, metric: e.route.metric}
	case e.neigh.family == unix.AF_BRIDGE:
		return eventID{family: unix.AF_BRIDGE, index: e.neigh.index, mac: e.neigh.mac}
	}
	return eventID{family: e.neigh.family, index: e.neigh.index, ip: e.neigh.ip}
}
