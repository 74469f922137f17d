package kernel

import (
	"testing"

	"golang.org/x/sys/unix"
)

// linkEvent tells of one of blue's devices as viewOf knows it.
func linkEvent(v *view, name string) event {
	if have, ok := v.links[name]; ok {
		l := linkInfo{index: have.index, name: name, mtu: have.MTU, mac: have.MAC, up: have.up, alias: Alias, kind: kindOf(have.Link), vxlan: have.VXLAN}
		for index, n := range v.names {
			if n == have.VXLAN.Dev && n != "" {
				l.vxlanDev = index
			}
		}
		return event{link: &l}
	}
	have := v.veths[name]
	l := linkInfo{index: have.index, name: name, kind: "veth", mtu: have.MTU, up: have.up, alias: Alias, other: have.peer.index}
	for index, n := range v.names {
		if n == have.Master {
			l.master = index
		}
	}
	return event{link: &l}
}

func TestJudge(t *testing.T) {
	gone := func(e event) event { e.gone = true; return e }
	route := func(r Route, index int) *routeInfo { i := r.info(index); return &i }
	theirs := func(r *routeInfo) *routeInfo { r.protocol = unix.RTPROT_STATIC; return r }
	neigh := func(last byte, state uint16) *neighInfo {
		return &neighInfo{family: unix.AF_INET, index: 11, ip: ip("10.5.8.0"), mac: mac(last), state: state}
	}
	fdb := func(last byte, dst string) *neighInfo {
		return &neighInfo{family: unix.AF_BRIDGE, index: 11, ip: ip(dst), mac: mac(last), state: unix.NUD_PERMANENT, flags: unix.NTF_SELF}
	}
	peer := func(index, mtu int, away bool) event {
		return event{link: &linkInfo{index: index, name: "flp1", kind: "veth", mtu: mtu, mac: mac(3), other: 100, away: away}}
	}
	changed := func(name string, change func(*linkInfo)) func(*view) []event {
		return func(v *view) []event {
			e := linkEvent(v, name)
			change(e.link)
			return []event{e}
		}
	}
	is := func(events ...event) func(*view) []event { return func(*view) []event { return events } }
	r := blue().Routes[0]
	for _, c := range []struct {
		name   string
		events func(*view) []event
		doubt  bool
	}{
		{"nothing", is(), false},
		{"bridge as known", changed("fl-blue", func(*linkInfo) {}), false},
		{"vxlan as known", changed("flannel.1", func(*linkInfo) {}), false},
		{"bridge down", changed("fl-blue", func(l *linkInfo) { l.up = false }), true},
		{"bridge down and up", func(v *view) []event {
			down := linkEvent(v, "fl-blue")
			down.link.up = false
			return []event{down, linkEvent(v, "fl-blue")}
		}, true},
		{"bridge mtu", changed("fl-blue", func(l *linkInfo) { l.mtu = 1 }), true},
		{"vxlan as known, its checksum offload off", func(v *view) []event {
			l := v.links["flannel.1"]
			l.TxSum = Off
			v.links["flannel.1"] = l
			return []event{linkEvent(v, "flannel.1")}
		}, false},
		{"vxlan port", changed("flannel.1", func(l *linkInfo) { l.vxlan.Port = 1 }), true},
		{"another device of the name", changed("flannel.1", func(l *linkInfo) { l.index = 99 }), true},
		{"renamed", changed("flannel.1", func(l *linkInfo) { l.name = "other" }), true},
		{"deleted", func(v *view) []event { return []event{gone(linkEvent(v, "flannel.1"))} }, true},
		{"an earlier device of the name deleted", func(v *view) []event {
			e := gone(linkEvent(v, "flannel.1"))
			e.link.index = 5
			return []event{e}
		}, false},
		{"stranger with our mark", is(event{link: &linkInfo{index: 50, name: "fl-red", kind: "bridge", alias: Alias}}), true},
		{"stranger without", is(event{link: &linkInfo{index: 50, name: "fl-red", kind: "bridge"}}), false},
		{"mark on another kind", is(event{link: &linkInfo{index: 50, name: "fl-red", kind: "dummy", alias: Alias}}), false},

		{"host side as known", changed("flv1", func(*linkInfo) {}), false},
		{"host side carrier", changed("flv1", func(l *linkInfo) { l.away = true }), false},
		{"host side off its bridge", changed("flv1", func(l *linkInfo) { l.master = 0 }), true},
		{"host side deleted", func(v *view) []event { return []event{gone(linkEvent(v, "flv1"))} }, true},
		{"other end as known", is(peer(101, 1450, false)), false},
		{"other end mtu", is(peer(101, 1, false)), true},
		{"other end moves out", is(gone(peer(101, 1450, false))), false},
		{"other end moves out and back", is(gone(peer(101, 1450, false)), peer(101, 1, false)), false},
		{"other end elsewhere", is(peer(101, 1, true)), false},

		{"underlay as known", is(event{link: &linkInfo{index: 3, name: "eth0", mtu: 1500, up: true}}), false},
		{"underlay down", is(event{link: &linkInfo{index: 3, name: "eth0", mtu: 1500}}), true},
		{"underlay gone", is(gone(event{link: &linkInfo{index: 3, name: "eth0", mtu: 1500, up: true}})), true},
		{"underlay MTU", is(event{link: &linkInfo{index: 3, name: "eth0", mtu: 1400, up: true}}), true},
		{"underlay address told", is(event{addr: &addrInfo{index: 3, prefix: prefix("10.0.0.1/24")}}), true},
		{"underlay address gone", is(gone(event{addr: &addrInfo{index: 3, prefix: prefix("10.0.0.1/24")}})), true},
		{"underlay IPv6 address gone", is(gone(event{addr: &addrInfo{index: 3, prefix: prefix("fd00::1/64")}})), false},
		{"somebody's link", is(event{link: &linkInfo{index: 60, name: "docker0", kind: "bridge"}}), false},

		{"addr as known", is(event{addr: &addrInfo{index: 10, prefix: prefix("10.5.7.1/24")}}), false},
		{"addr gone", is(gone(event{addr: &addrInfo{index: 10, prefix: prefix("10.5.7.1/24")}})), true},
		{"addr gone and back", is(gone(event{addr: &addrInfo{index: 10, prefix: prefix("10.5.7.1/24")}}), event{addr: &addrInfo{index: 10, prefix: prefix("10.5.7.1/24")}}), false},
		{"addr of a stranger", is(event{addr: &addrInfo{index: 10, prefix: prefix("10.5.7.9/24")}}), true},
		{"addr of the kernel's own", is(event{addr: &addrInfo{index: 10, prefix: prefix("fe80::1/64"), scope: unix.RT_SCOPE_LINK}}), false},
		{"addr elsewhere", is(event{addr: &addrInfo{index: 60, prefix: prefix("10.5.7.9/24")}}), false},

		{"neigh as known", is(event{neigh: neigh(8, unix.NUD_PERMANENT)}), false},
		{"neigh changed", is(event{neigh: neigh(9, unix.NUD_PERMANENT)}), true},
		{"neigh not permanent", is(event{neigh: neigh(8, unix.NUD_STALE)}), true},
		{"neigh gone", is(gone(event{neigh: neigh(8, unix.NUD_PERMANENT)})), true},
		{"neigh learned", is(event{neigh: &neighInfo{family: unix.AF_INET, index: 11, ip: ip("10.5.9.0"), state: unix.NUD_STALE}}), false},
		{"neigh elsewhere", is(event{neigh: &neighInfo{family: unix.AF_INET, index: 3, ip: ip("10.5.8.0"), state: unix.NUD_PERMANENT}}), false},
		{"neigh on our bridge", is(event{neigh: &neighInfo{family: unix.AF_INET, index: 10, ip: ip("10.5.7.2"), state: unix.NUD_PERMANENT}}), false},
		{"fdb as known", is(event{neigh: fdb(8, "10.0.0.8")}), false},
		{"fdb changed", is(event{neigh: fdb(8, "10.0.0.9")}), true},
		{"fdb gone", is(gone(event{neigh: fdb(8, "10.0.0.8")})), true},
		{"fdb stranger", is(event{neigh: fdb(9, "10.0.0.9")}), true},
		{"fdb default", is(event{neigh: &neighInfo{family: unix.AF_BRIDGE, index: 11, ip: ip("10.0.0.9"), state: unix.NUD_PERMANENT, flags: unix.NTF_SELF}}), false},

		{"route as known", is(event{route: route(r, 11)}), false},
		{"route gone", is(gone(event{route: route(r, 11)})), true},
		{"route changed", is(event{route: route(r, 3)}), true},
		{"route of ours unknown", is(event{route: route(Route{Dst: prefix("10.9.0.0/24"), Via: ip("10.0.0.9")}, 3)}), true},
		{"route replaced by somebody", is(event{route: theirs(route(r, 3))}), true},
		{"somebody's route", is(event{route: theirs(route(Route{Dst: prefix("10.9.0.0/24")}, 3))}), false},
		{"somebody's route in our way gone", is(gone(event{route: theirs(route(Route{Dst: prefix("10.77.0.0/24")}, 3))})), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := viewOf(blue())
			l := v.links["flannel.1"]
			l.VXLAN.Port = 8472
			v.links["flannel.1"] = l
			v.names[3] = "eth0"
			v.devs["eth0"] = dev{3, 1500, true}
			v.blocked["route 10.77.0.0/24"] = "somebody's"
			if got := v.judge(c.events(v), nil); (got != "") != c.doubt {
				t.Errorf("doubt %q, want %t", got, c.doubt)
			}
		})
	}
}

// TestJudgeTouched lets the last notification count for links that were
// changed by us.
func TestJudgeTouched(t *testing.T) {
	v := viewOf(State{Links: blue().Links[:1]})
	down := linkEvent(v, "fl-blue")
	down.link.up = false
	up := linkEvent(v, "fl-blue")
	touched := map[string]bool{"fl-blue": true}
	if got := v.judge([]event{down, up}, touched); got != "" {
		t.Errorf("half done: %s", got)
	}
	if got := v.judge([]event{up, down}, touched); got != "link fl-blue changed" {
		t.Errorf("done and undone: %q", got)
	}
}

// TestJudgePeer follows a container's end out and back.
func TestJudgePeer(t *testing.T) {
	v := viewOf(blue())
	e := event{link: &linkInfo{index: 101, name: "flp1", kind: "veth", mtu: 1300, mac: mac(5), other: 100}}
	v.judge([]event{{gone: true, link: e.link}}, nil)
	if got := v.veths["flv1"]; got.peer != (peerEnd{}) || got.Peer != "" {
		t.Errorf("out: %+v", got)
	}
	v.judge([]event{e}, nil)
	if got := v.veths["flv1"]; got.peer != (peerEnd{101, 1300}) || got.Peer != "flp1" || got.MAC != mac(5) {
		t.Errorf("back: %+v", got)
	}
}
