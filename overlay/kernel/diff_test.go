package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr       { return netip.MustParseAddr(s) }

func mac(last byte) MAC { return MAC{2, 0, 0, 0, 0, last} }

// viewOf is a kernel that is just as s says, with dockerd's chain in place.
func viewOf(s State) *view {
	v := newView()
	for _, x := range s.Sysctls {
		v.sysctls[x.Key] = x.Value
	}
	for i, x := range s.Links {
		v.links[x.Name] = haveLink{Link: x, index: 10 + i, up: true, marked: true}
		v.names[10+i] = x.Name
	}
	for i, x := range s.Veths {
		x.Create = false
		v.veths[x.Name] = haveVeth{Veth: x, index: 100 + 2*i, up: true, marked: true, peer: peerEnd{101 + 2*i, x.MTU}}
		v.names[100+2*i], v.names[101+2*i] = x.Name, x.Peer
	}
	for _, x := range s.Addrs {
		v.addrs[x.key()] = x
	}
	for _, x := range s.Neighs {
		v.neighs[x.key()] = x
	}
	for _, x := range s.FDB {
		v.fdb[x.key()] = x
	}
	for _, x := range s.Routes {
		v.routes[x.key()] = x
	}
	for _, x := range s.Doors {
		v.doors[x] = x.text()
	}
	for _, x := range s.Admits {
		v.admits[x] = x
	}
	v.table = tableOf(s).text
	v.accepts["ip"] = acceptance{home: userChain, good: len(s.Guards) > 0, ours: 2 * min(1, len(s.Guards))}
	return v
}

// blue is a small wanted state.
func blue() State {
	return State{
		Sysctls:  []Sysctl{{"ipv4/ip_forward", "1"}, {"ipv6/conf/flannel.1/disable_ipv6", "1"}},
		Links:    []Link{{Name: "fl-blue", MAC: mac(1), MTU: 1450}, {Name: "flannel.1", MAC: mac(2), MTU: 1450, VXLAN: VXLAN{VNI: 1, Local: ip("10.0.0.1"), Dev: "eth0"}}},
		Veths:    []Veth{{Name: "flv1", Peer: "flp1", Master: "fl-blue", MAC: mac(3), MTU: 1450, Create: true}},
		Addrs:    []Addr{{"fl-blue", prefix("10.5.7.1/24")}, {"flannel.1", prefix("10.5.7.0/32")}},
		Neighs:   []Neigh{{"flannel.1", ip("10.5.8.0"), mac(8)}},
		FDB:      []FDB{{"flannel.1", mac(8), ip("10.0.0.8")}},
		Routes:   []Route{{Dst: prefix("10.5.8.0/24"), Via: ip("10.5.8.0"), Link: "flannel.1", OnLink: true}},
		Forwards: []Forward{{In: "fl-blue", Out: "flannel.1", Src: prefix("10.5.0.0/16"), Dst: prefix("10.5.0.0/16")}},
		Guards:   []string{"fl-blue"},
		Doors:    []Door{{8472, 1}},
		Admits:   []Admit{{Door{8472, 1}, ip("10.0.0.8")}},
	}
}

func TestStateText(t *testing.T) {
	const want = `sysctl ipv4/ip_forward = 1
sysctl ipv6/conf/flannel.1/disable_ipv6 = 1
link fl-blue bridge mac 02:00:00:00:00:01 mtu 1450
link flannel.1 vxlan id 1 port 8472 local 10.0.0.1 dev eth0 mac 02:00:00:00:00:02 mtu 1450
addr fl-blue 10.5.7.1/24
addr flannel.1 10.5.7.0/32
veth flv1 peer flp1 master fl-blue mac 02:00:00:00:00:03 mtu 1450 create
neigh flannel.1 10.5.8.0 02:00:00:00:00:08
fdb flannel.1 02:00:00:00:00:08 dst 10.0.0.8
route 10.5.8.0/24 via 10.5.8.0 dev flannel.1 onlink
door udp 8472 vni 1
admit udp 8472 vni 1 from 10.0.0.8
forward in fl-blue out flannel.1 src 10.5.0.0/16 dst 10.5.0.0/16
guard in fl-blue
guard out fl-blue
`
	if got := blue().String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := (State{}).String(); got != "" {
		t.Errorf("empty state: %q", got)
	}
}

func TestDiff(t *testing.T) {
	unlike := func(change func(*State)) State {
		s := blue()
		change(&s)
		return s
	}
	for _, c := range []struct {
		name string
		have *view
		want State
		ops  string
	}{
		{"nothing", viewOf(State{}), State{}, ""},
		{"in place", viewOf(blue()), blue(), ""},
		{"from nothing", viewOf(State{}), blue(), `
add nft chain forward type filter hook forward priority -5 policy accept; forward in fl-blue out flannel.1 src 10.5.0.0/16 dst 10.5.0.0/16; guard in fl-blue; guard out fl-blue
add admit udp 8472 vni 1 from 10.0.0.8
add door udp 8472 vni 1
set sysctl ipv4/ip_forward = 1
add link fl-blue bridge mac 02:00:00:00:00:01 mtu 1450
add link flannel.1 vxlan id 1 port 8472 local 10.0.0.1 dev eth0 mac 02:00:00:00:00:02 mtu 1450
set sysctl ipv6/conf/flannel.1/disable_ipv6 = 1
up link fl-blue bridge mac 02:00:00:00:00:01 mtu 1450
up link flannel.1 vxlan id 1 port 8472 local 10.0.0.1 dev eth0 mac 02:00:00:00:00:02 mtu 1450
add addr fl-blue 10.5.7.1/24
add addr flannel.1 10.5.7.0/32
add veth flv1 peer flp1 master fl-blue mac 02:00:00:00:00:03 mtu 1450 create
add neigh flannel.1 10.5.8.0 02:00:00:00:00:08
add fdb flannel.1 02:00:00:00:00:08 dst 10.0.0.8
add route 10.5.8.0/24 via 10.5.8.0 dev flannel.1 onlink
set docker-user ip`},
		{"to nothing", viewOf(blue()), State{}, `
delete docker-user ip
delete veth flv1 peer flp1 master fl-blue mac 02:00:00:00:00:03 mtu 1450
delete link fl-blue bridge mac 02:00:00:00:00:01 mtu 1450
delete link flannel.1 vxlan id 1 port 8472 local 10.0.0.1 dev eth0 mac 02:00:00:00:00:02 mtu 1450
delete door udp 8472 vni 1
delete nft chain forward type filter hook forward priority -5 policy accept; forward in fl-blue out flannel.1 src 10.5.0.0/16 dst 10.5.0.0/16; guard in fl-blue; guard out fl-blue`},
		{"peer leaves", viewOf(blue()), unlike(func(s *State) { s.Neighs, s.FDB, s.Routes, s.Admits = nil, nil, nil, nil }), `
delete route 10.5.8.0/24 via 10.5.8.0 dev flannel.1 onlink
delete fdb flannel.1 02:00:00:00:00:08 dst 10.0.0.8
delete neigh flannel.1 10.5.8.0 02:00:00:00:00:08
delete admit udp 8472 vni 1 from 10.0.0.8`},
		{"peer comes, another's door goes", viewOf(unlike(func(s *State) {
			s.Doors = append(s.Doors, Door{8285, 0})
			s.Admits = append(s.Admits, Admit{Door{8285, 0}, ip("10.0.0.8")})
		})), unlike(func(s *State) { s.Admits = append(s.Admits, Admit{s.Doors[0], ip("fd00::9")}, s.Admits[0]) }), `
add admit udp 8472 vni 1 from fd00::9
delete door udp 8285`},
		{"peer moves", viewOf(blue()), unlike(func(s *State) {
			s.Neighs[0].MAC, s.FDB[0].MAC, s.FDB[0].Dst = mac(9), mac(9), ip("10.0.0.9")
			s.Routes[0] = Route{Dst: prefix("10.5.8.0/24"), Via: ip("10.0.0.9"), Link: "eth0"}
		}), `
set neigh flannel.1 10.5.8.0 02:00:00:00:00:09 (was neigh flannel.1 10.5.8.0 02:00:00:00:00:08)
add fdb flannel.1 02:00:00:00:00:09 dst 10.0.0.9
set route 10.5.8.0/24 via 10.0.0.9 dev eth0 (was route 10.5.8.0/24 via 10.5.8.0 dev flannel.1 onlink)
delete fdb flannel.1 02:00:00:00:00:08 dst 10.0.0.8`},
		{"vxlan is made anew, with all that hangs on it", viewOf(blue()), unlike(func(s *State) { s.Links[1].VXLAN.Port = 4789 }), `
remake link flannel.1 vxlan id 1 port 4789 local 10.0.0.1 dev eth0 mac 02:00:00:00:00:02 mtu 1450 (was vxlan id 1 port 8472 local 10.0.0.1 dev eth0)
set sysctl ipv6/conf/flannel.1/disable_ipv6 = 1
up link flannel.1 vxlan id 1 port 4789 local 10.0.0.1 dev eth0 mac 02:00:00:00:00:02 mtu 1450
add addr flannel.1 10.5.7.0/32
add neigh flannel.1 10.5.8.0 02:00:00:00:00:08
add fdb flannel.1 02:00:00:00:00:08 dst 10.0.0.8
add route 10.5.8.0/24 via 10.5.8.0 dev flannel.1 onlink`},
		{"mac changes in place and flushes neighbours", viewOf(blue()), unlike(func(s *State) { s.Links[1].MAC = mac(7); s.Links[1].MTU = 1400 }), `
set link flannel.1 vxlan id 1 port 8472 local 10.0.0.1 dev eth0 mac 02:00:00:00:00:07 mtu 1400 (was mac 02:00:00:00:00:02, was mtu 1450)
set neigh flannel.1 10.5.8.0 02:00:00:00:00:08`},
		{"checksum offload goes", viewOf(blue()), unlike(func(s *State) { s.Links[1].TxSum = Off }), `
set link flannel.1 vxlan id 1 port 8472 local 10.0.0.1 dev eth0 mac 02:00:00:00:00:02 mtu 1450 txsum off (was not txsum off)`},
		{"checksum offload comes back", viewOf(unlike(func(s *State) { s.Links[1].TxSum = Off })), unlike(func(s *State) { s.Links[1].TxSum = On }), `
set link flannel.1 vxlan id 1 port 8472 local 10.0.0.1 dev eth0 mac 02:00:00:00:00:02 mtu 1450 txsum on (was not txsum on)`},
		{"checksum offload is as wanted", viewOf(unlike(func(s *State) { s.Links[1].TxSum = Off })), unlike(func(s *State) { s.Links[1].TxSum = Off }), ""},
		{"checksum offload is kept", viewOf(unlike(func(s *State) { s.Links[1].TxSum = Off })), blue(), ""},
		{"no mac nor mtu wanted", viewOf(blue()), unlike(func(s *State) { s.Links[0].MAC, s.Links[0].MTU, s.Veths[0].MAC, s.Veths[0].MTU = MAC{}, 0, MAC{}, 0 }), ""},
		{"vxlan takes a retired one's identifier", viewOf(State{Links: []Link{{Name: "flannel.9", VXLAN: VXLAN{VNI: 1}}}}), State{Links: []Link{{Name: "flannel.1", VXLAN: VXLAN{VNI: 1}}}}, `
delete link flannel.9 vxlan id 1 port 8472 local none dev  mac 00:00:00:00:00:00 mtu 0
add link flannel.1 vxlan id 1 port 8472 local none dev  mac 00:00:00:00:00:00 mtu 0
up link flannel.1 vxlan id 1 port 8472 local none dev  mac 00:00:00:00:00:00 mtu 0`},
		{"gateway changes within the subnet", viewOf(blue()), unlike(func(s *State) { s.Addrs[0].Prefix = prefix("10.5.7.254/24") }), `
delete addr fl-blue 10.5.7.1/24
add addr fl-blue 10.5.7.254/24`},
		{"subnet changes", viewOf(blue()), unlike(func(s *State) { s.Addrs[0].Prefix = prefix("10.5.9.1/24") }), `
add addr fl-blue 10.5.9.1/24
delete addr fl-blue 10.5.7.1/24`},
		{"missing pair without create", viewOf(unlike(func(s *State) { s.Veths = nil })), unlike(func(s *State) {
			s.Veths[0].Create = false
			s.Sysctls = append(s.Sysctls, Sysctl{"ipv4/conf/flv1/rp_filter", "0"})
		}), ""},
		{"rules change", viewOf(blue()), unlike(func(s *State) { s.Forwards = nil }), `
set nft chain forward type filter hook forward priority -5 policy accept; guard in fl-blue; guard out fl-blue`},
		{"rules without guards", viewOf(blue()), unlike(func(s *State) { s.Guards = nil }), `
set nft chain forward type filter hook forward priority -5 policy accept; forward in fl-blue out flannel.1 src 10.5.0.0/16 dst 10.5.0.0/16
delete docker-user ip`},
		{"wanted twice", viewOf(blue()), unlike(func(s *State) {
			s.Links, s.Addrs, s.Guards = append(s.Links, s.Links[0]), append(s.Addrs, s.Addrs[0]), append(s.Guards, s.Guards[0])
			s.Routes = append(s.Routes, Route{Dst: prefix("10.5.8.0/24"), Via: ip("10.0.0.9"), Link: "eth0"})
		}), `
refuse route 10.5.8.0/24 via 10.0.0.9 dev eth0 (also wanted as route 10.5.8.0/24 via 10.5.8.0 dev flannel.1 onlink)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := opTexts(diff(c.have, c.want)); strings.TrimSpace(got) != strings.TrimSpace(c.ops) {
				t.Errorf("got\n%s\nwant\n%s", got, c.ops)
			}
		})
	}
}

// TestDiffViews covers what no State can say about the kernel.
func TestDiffViews(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*view)
		ops    string
	}{
		{"link down", func(v *view) {
			l := v.links["fl-blue"]
			l.up = false
			v.links["fl-blue"] = l
		}, "up link fl-blue bridge mac 02:00:00:00:00:01 mtu 1450"},
		{"link of an earlier process, not marked yet", func(v *view) {
			l := v.links["fl-blue"]
			l.marked = false
			v.links["fl-blue"] = l
		}, "set link fl-blue bridge mac 02:00:00:00:00:01 mtu 1450 (was unmarked)"},
		{"other end elsewhere", func(v *view) {
			p := v.veths["flv1"]
			p.Peer, p.MAC, p.peer = "", MAC{}, peerEnd{}
			v.veths["flv1"] = p
		}, "remake veth flv1 peer flp1 master fl-blue mac 02:00:00:00:00:03 mtu 1450 create (the other end is elsewhere)"},
		{"host side changed", func(v *view) {
			p := v.veths["flv1"]
			p.MTU, p.Master, p.up, p.peer.mtu, p.MAC = 1500, "", false, 1500, mac(9)
			v.veths["flv1"] = p
		}, `set veth flv1 peer flp1 master fl-blue mac 02:00:00:00:00:03 mtu 1450 create (was mtu 1500, was on bridge "", was down, other end was mtu 1500, other end was mac 02:00:00:00:00:09)`},
		{"strays", func(v *view) {
			v.strays = []stray{{routeInfo{dst: prefix("10.9.0.0/24"), kind: 6, protocol: RouteProtocol}}}
		}, "delete route type 6 10.9.0.0/24 proto docker-flannel"},
		{"foreign link", func(v *view) {
			delete(v.links, "flannel.1")
			v.blocked["link flannel.1"] = "somebody's"
		}, "refuse link flannel.1 vxlan id 1 port 8472 local 10.0.0.1 dev eth0 mac 02:00:00:00:00:02 mtu 1450 (somebody's)"},
		{"foreign route beside ours", func(v *view) {
			v.blocked["route 10.5.8.0/24"] = "somebody's"
		}, ""},
		{"foreign route instead of ours", func(v *view) {
			delete(v.routes, prefix("10.5.8.0/24"))
			v.blocked["route 10.5.8.0/24"] = "somebody's"
		}, "refuse route 10.5.8.0/24 via 10.5.8.0 dev flannel.1 onlink (somebody's)"},
		{"legacy iptables", func(v *view) {
			v.accepts["ip"] = acceptance{legacy: "do this"}
		}, "refuse docker-user ip (do this)"},
		{"no dockerd", func(v *view) { v.accepts["ip"] = acceptance{} }, ""},
		{"rules doubled", func(v *view) { v.accepts["ip"] = acceptance{home: userChain, ours: 3} }, "set docker-user ip"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := viewOf(blue())
			c.change(v)
			if got := strings.TrimSuffix(opTexts(diff(v, blue())), "\n"); got != c.ops {
				t.Errorf("got\n%s\nwant\n%s", got, c.ops)
			}
		})
	}
}

// TestDiffShortcut does not look at slices that are known to be in place.
func TestDiffShortcut(t *testing.T) {
	want := blue()
	have := viewOf(want)
	have.same = want
	clear(have.routes) // nobody would notice
	clear(have.neighs)
	clear(have.fdb)
	if got := opTexts(diff(have, want)); got != "" {
		t.Errorf("looked at known slices:\n%s", got)
	}
	want.Routes = slices.Clone(want.Routes)
	if got := opTexts(diff(have, want)); got != "add route 10.5.8.0/24 via 10.5.8.0 dev flannel.1 onlink\n" {
		t.Errorf("another slice:\n%s", got)
	}
	want.Links = slices.Clone(want.Links)
	want.Links[1].VXLAN.GBP = true
	if got := diff(have, want); len(got) != 7 {
		t.Errorf("link made anew:\n%s", opTexts(got))
	}
}

// TestDone carries out plans on the view alone: then nothing is left to do.
func TestDone(t *testing.T) {
	states := []State{{}, blue()}
	change := blue()
	change.Links[1].VXLAN.Port = 4789
	change.Links[0].MAC = mac(77)
	change.Veths[0].Master = "fl-red"
	change.Links = append(change.Links, Link{Name: "fl-red", MTU: 1400})
	change.Routes[0].Link = "fl-red"
	change.Addrs[0].Prefix = prefix("10.5.7.3/24")
	change.Guards = nil
	states = append(states, change)
	for i, from := range states {
		for j, to := range states {
			v := viewOf(from)
			for _, o := range diff(v, to) {
				v.done(o)
			}
			if left := opTexts(diff(v, to)); left != "" {
				t.Errorf("from %d to %d left:\n%s", i, j, left)
			}
			got, want := v.state(), to
			got.Sysctls, want.Sysctls = nil, nil
			got.Forwards, got.Guards = to.Forwards, to.Guards
			if got, want := got.String(), strings.ReplaceAll(want.String(), " create", ""); got != want {
				t.Errorf("from %d to %d: got\n%s\nwant\n%s", i, j, got, want)
			}
		}
	}
}

func opTexts(ops []op) string {
	var text strings.Builder
	for _, o := range ops {
		fmt.Fprintln(&text, o)
	}
	return text.String()
}
