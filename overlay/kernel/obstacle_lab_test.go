//go:build lab

package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestObstacles has firewalls, and asks what becomes of a few packets.
func TestObstacles(t *testing.T) {
	vxlan := Packet{Way: Inward, In: "eth0", Src: netip.MustParseAddr("10.0.0.2"), Dst: netip.MustParseAddr("10.0.0.1"), Proto: unix.IPPROTO_UDP, Port: 8472}
	out := Packet{Way: Outward, Out: "eth0", Dst: netip.MustParseAddr("10.0.0.2"), Proto: unix.IPPROTO_UDP, Port: 8472}
	across := Packet{
		Way: Across, In: "fl-0123456789ab", Out: "flannel.1", Proto: unix.IPPROTO_ICMP,
		Src: netip.MustParseAddr("10.5.1.2"), Dst: netip.MustParseAddr("10.5.2.2"),
	}
	vxlan6 := Packet{Way: Inward, IPv6: true, In: "eth0", Src: netip.MustParseAddr("fd00::2"), Dst: netip.MustParseAddr("fd00::1"), Proto: unix.IPPROTO_UDP, Port: 8472}
	nft := func(hook, policy, rules string) string {
		return fmt.Sprintf("nft 'table inet fw { chain deep { %[3]s }; chain c { type filter hook %[1]s priority 0; policy %[2]s; %[3]s }; }'", hook, policy, rules)
	}
	const policy, dropped = "policy drop", "c handle"
	for _, c := range []struct {
		name, commands string
		packet         Packet
		want           string // part of the obstacle's rule; empty for none
		certain        bool
	}{
		{"nothing", "true", vxlan, "", true},
		{"policy", nft("input", "drop", ""), vxlan, policy, true},
		{"policy of another hook", nft("output", "drop", ""), vxlan, "", true},
		{"policy, accepted", nft("input", "drop", "ct state established,related accept; tcp dport 22 accept; udp dport 8472 accept;"), vxlan, "", true},
		{"policy, accepted among others", nft("input", "drop", "udp dport 8000-9000 accept;"), vxlan, "", true},
		{"policy, others accepted", nft("input", "drop", "ct state established,related accept; tcp dport 8472 accept; iif lo accept; ip saddr 10.0.0.3 accept; udp dport 53 accept;"), vxlan, policy, true},
		{"policy, from there accepted", nft("input", "drop", "ip saddr 10.0.0.0/24 accept;"), vxlan, "", true},
		{"rule", nft("input", "accept", "udp dport 8472 counter drop;"), vxlan, dropped, true},
		{"rule that rejects", nft("input", "accept", "iifname eth0 udp dport 8472 reject;"), vxlan, dropped, true},
		{"rule for others", nft("input", "accept", "udp dport 8473 drop; iifname eth1 drop; ip daddr != 10.0.0.1 drop;"), vxlan, "", true},
		{"rule that may", nft("input", "accept", "udp dport 8472 limit rate 1/second drop;"), vxlan, dropped, false},
		{"rule that may not", nft("input", "drop", "udp dport 8472 limit rate 1/second accept;"), vxlan, policy, false},
		{"before routing", nft("prerouting", "accept", "udp dport 8472 drop;"), vxlan, dropped, true},
		{"chain that is called", "nft 'table inet fw { chain deep { udp dport 8472 drop; }; chain c { type filter hook input priority 0; tcp dport 1 jump deep; jump deep; }; }'", vxlan, "deep handle", true},
		{"chain that returns", "nft 'table inet fw { chain deep { return; udp dport 8472 drop; }; chain c { type filter hook input priority 0; jump deep; }; }'", vxlan, "", true},
		{"sent", nft("output", "accept", "udp dport 8472 drop;"), out, dropped, true},
		{"routed", nft("forward", "drop", ""), across, policy, true},
		{"routed, accepted", nft("forward", "drop", "iifname \"fl-*\" accept;"), across, "", true},
		{"iptables", "iptables-nft -A INPUT -p udp --dport 8472 -j DROP", vxlan, "INPUT handle", true},
		{"iptables rejects", "iptables-nft -A INPUT -p udp --dport 8000:9000 -j REJECT", vxlan, "INPUT handle", true},
		{"iptables for others", "iptables-nft -A INPUT -p udp ! --dport 8472 -j DROP; iptables-nft -A INPUT -p tcp -j DROP", vxlan, "", true},
		{"iptables policy", "iptables-nft -P FORWARD DROP", across, policy, true},
		{"iptables policy, accepted", "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -i fl-+ -j ACCEPT", across, "", true},
		{"IPv6, rule", nft("input", "accept", "udp dport 8472 counter drop;"), vxlan6, dropped, true},
		{"IPv6, policy, from there accepted", nft("input", "drop", "ip6 saddr fd00::/64 ip6 daddr fd00::1 ip6 nexthdr udp accept;"), vxlan6, "", true},
		{"IPv6, policy, others accepted", nft("input", "drop", "ip6 saddr fd00:1::/64 accept; ip6 daddr fd00::2 accept; meta nfproto ipv4 accept; ip saddr 0.0.0.0/0 accept;"), vxlan6, policy, true},
		{"IPv6, iptables of IPv4", "iptables-nft -P INPUT DROP", vxlan6, "", true},
		{"IPv6, ip6tables", "ip6tables-nft -A INPUT -p udp --dport 8472 -j DROP", vxlan6, "INPUT handle", true},
		{"IPv4, ip6tables", "ip6tables-nft -P INPUT DROP", vxlan, "", true},
		{"iptables, a flow's state", "iptables-nft -P INPUT DROP; iptables-nft -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", vxlan, policy, true},
		{"iptables, new flows accepted", "iptables-nft -P INPUT DROP; iptables-nft -A INPUT -m conntrack --ctstate NEW -j ACCEPT", vxlan, "", true},
		{"iptables, a source port", "iptables-nft -P INPUT DROP; iptables-nft -A INPUT -p udp --sport 53 -j ACCEPT", vxlan, policy, false},
		{"iptables, a flow's state of old", "iptables-nft -P INPUT DROP; iptables-nft -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT", vxlan, policy, true},
		{"iptables, a program decides", "iptables-nft -P INPUT DROP; iptables-nft -A INPUT -j NFQUEUE --queue-num 0", vxlan, "INPUT handle", false},
		{"chain that is perhaps gone to", "nft 'table inet fw { chain deep { }; chain c { type filter hook input priority 0; meta mark 1 goto deep; drop; }; }'", vxlan, dropped, false},
		{"perhaps returned to the policy", nft("input", "drop", "limit rate 1/second return; accept;"), vxlan, policy, false},
		{"perhaps dropped, then surely", nft("input", "drop", "limit rate 1/second drop; drop;"), vxlan, dropped, true},
		{"perhaps dropped in a chain, then surely passed", "nft 'table inet fw { chain deep { limit rate 1/second drop; }; chain c { type filter hook input priority 0; policy drop; jump deep; accept; }; }'", vxlan, "deep handle", false},
		{"legacy, nothing", "iptables-legacy -L", vxlan, "", true},
		{"legacy policy", "iptables-legacy -P INPUT DROP", vxlan, policy, true},
		{"legacy policy of another chain", "iptables-legacy -P OUTPUT DROP", vxlan, "", true},
		{"legacy policy, sent", "iptables-legacy -P OUTPUT DROP", out, policy, true},
		{"legacy policy, routed", "iptables-legacy -P FORWARD DROP", across, policy, true},
		{"legacy policy, accepted", "iptables-legacy -P FORWARD DROP; iptables-legacy -A FORWARD -i fl-+ -j ACCEPT", across, "", true},
		{"legacy policy, replies accepted", "iptables-legacy -P INPUT DROP; iptables-legacy -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", vxlan, policy, true},
		{"legacy policy, no replies accepted", "iptables-legacy -P INPUT DROP; iptables-legacy -A INPUT -m conntrack ! --ctstate ESTABLISHED,RELATED -j ACCEPT", vxlan, "", true},
		{"legacy policy, some new flows accepted", "iptables-legacy -P INPUT DROP; iptables-legacy -A INPUT -m conntrack --ctstate NEW -m limit --limit 1/s -j ACCEPT", vxlan, policy, false},
		{"legacy policy, the port accepted", "iptables-legacy -P INPUT DROP; iptables-legacy -A INPUT -p udp --dport 8472 -m comment --comment x -j ACCEPT", vxlan, "", true},
		{"legacy policy, others accepted", "iptables-legacy -P INPUT DROP; for r in '-i lo' '-s 10.0.0.3' '! -d 10.0.0.0/8' '-p tcp' '-p udp --dport 53' '! -p udp' '-f' '! -i eth+'; do iptables-legacy -A INPUT $r -j ACCEPT; done", vxlan, policy, true},
		{"legacy policy, from there accepted", "iptables-legacy -P INPUT DROP; iptables-legacy -A INPUT -s 10.0.0.0/24 ! -d 10.0.0.9 -i eth+ -p udp -j ACCEPT", vxlan, "", true},
		{"legacy policy, replies of old accepted", "iptables-legacy -P INPUT DROP; iptables-legacy -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT", vxlan, policy, true},
		{"legacy, a program decides", "iptables-legacy -P INPUT DROP; iptables-legacy -A INPUT -j NFQUEUE --queue-num 0", vxlan, "INPUT rule 1", false},
		{"legacy, a device that there is not", "iptables-legacy -N deep; iptables-legacy -A deep -o eth1 -j ACCEPT; iptables-legacy -A INPUT -j deep; iptables-legacy -P INPUT DROP", vxlan, policy, true},
		{"legacy rule", "iptables-legacy -A INPUT -p tcp -j DROP; iptables-legacy -A INPUT -p udp --dport 8000:9000 -j REJECT", vxlan, "INPUT rule 2", true},
		{"legacy rule that may", "iptables-legacy -A INPUT -p udp --dport 8472 -m limit --limit 1/s -j DROP", vxlan, "INPUT rule 1", false},
		{"legacy rules that decide nothing", "iptables-legacy -A INPUT -p udp; iptables-legacy -N log; iptables-legacy -A log; iptables-legacy -A INPUT -j log", vxlan, "", true},
		{"legacy chain that is called", "iptables-legacy -N deep; iptables-legacy -A deep -p tcp -j ACCEPT; iptables-legacy -A deep -p udp -j DROP; iptables-legacy -A INPUT -p tcp -j deep; iptables-legacy -A INPUT -j deep", vxlan, "deep rule 2", true},
		{"legacy chain that returns", "iptables-legacy -N deep; iptables-legacy -A deep -j RETURN; iptables-legacy -A deep -j DROP; iptables-legacy -A INPUT -j deep", vxlan, "", true},
		{"legacy chain that is gone to", "iptables-legacy -N deep; iptables-legacy -A INPUT -g deep; iptables-legacy -A INPUT -j DROP", vxlan, "", true},
		{"IPv6, legacy iptables of IPv4", "iptables-legacy -P INPUT DROP", vxlan6, "", true},
		{"IPv6, legacy", "ip6tables-legacy -A INPUT -s fd00::3 -j DROP; ip6tables-legacy -A INPUT -s fd00::/64 -d fd00::1 -p udp --dport 8472 -j DROP", vxlan6, "INPUT rule 2", true},
		{"IPv6, legacy policy", "ip6tables-legacy -P INPUT DROP; ip6tables-legacy -A INPUT -p tcp -j ACCEPT; ip6tables-legacy -A INPUT ! -s fd00::/16 -j ACCEPT", vxlan6, policy, true},
		{"IPv6, legacy policy, any protocol accepted", "ip6tables-legacy -P INPUT DROP; ip6tables-legacy -A INPUT -p all -s fd00::/64 -j ACCEPT", vxlan6, "", true},
		{"IPv6, legacy policy, accepted", "ip6tables-legacy -P INPUT DROP; ip6tables-legacy -A INPUT -j ACCEPT", vxlan6, "", true},
		{"ours is not somebody's", "nft 'table inet docker-flannel { chain f { type filter hook forward priority 0; policy drop; }; }'", across, "", true},
		{"nor are our doors", "nft 'table inet docker-flannel-doors { chain door_8472 { type filter hook input priority 0; udp dport 8472 drop; }; }'", vxlan, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			h.sh(c.commands)
			got, err := h.k.Obstacles(c.packet)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case c.want == "" && len(got) > 0:
				t.Errorf("found %v", got)
			case c.want != "" && (len(got) != 1 || got[0].Legacy != strings.Contains(c.commands, "-legacy") || !strings.Contains(got[0].Rule, c.want) || got[0].Certain != c.certain):
				t.Errorf("found %+v, want one at %q, certain %t", got, c.want, c.certain)
			}
		})
	}
}

func TestAudit(t *testing.T) {
	h := newHost(t)
	want := State{
		Links:    []Link{{Name: "fl-a", MAC: MAC{2, 0, 0, 0, 0, 1}, MTU: 1450}},
		Addrs:    []Addr{{Link: "fl-a", Prefix: netip.MustParsePrefix("10.5.1.1/24")}},
		Forwards: []Forward{{In: "fl-a", Out: "fl-a"}}, Guards: []string{"fl-a"},
	}
	h.apply(want)
	look := func() []Difference {
		found, err := h.k.Audit(want)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if got := look(); len(got) > 0 {
		t.Errorf("after Apply: %v", got)
	}
	h.sh("ip addr flush dev fl-a; nft flush table inet docker-flannel")
	for range 2 { // it changes nothing
		got := look()
		if len(got) != 2 || got[0].Object != "nft" || got[1].Object != "addr fl-a 10.5.1.1/24" || got[1].Change != "add addr fl-a 10.5.1.1/24" {
			t.Errorf("found %+v", got)
		}
	}
}

func TestFeatures(t *testing.T) {
	newHost(t)
	got, err := Features(t.Context())
	if err != nil || len(got) != len(trials) {
		t.Fatalf("%v, %v", got, err)
	}
	for name, err := range got {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInspect(t *testing.T) {
	h := newHost(t)
	all, err := h.k.Interfaces()
	at := slices.IndexFunc(all, func(i Interface) bool { return i.Name == "eth0" })
	if err != nil || len(all) < 3 || at < 0 || len(all[at].Addrs) == 0 || all[at].Addrs[0].String() != "10.0.0.1/24" {
		t.Errorf("%+v, %v", all, err)
	}
	values, err := h.k.Sysctls("ipv4/ip_forward", "ipv4/nothing")
	if err != nil || len(values) != 1 || values["ipv4/ip_forward"] != "0" {
		t.Errorf("%v, %v", values, err)
	}
	if mending, reason := h.k.LegacyMending(); mending != "" {
		t.Errorf("%q: %q", mending, reason)
	}
	h.sh("iptables-legacy -P FORWARD DROP")
	if mending, _ := h.k.LegacyMending(); mending != "iptables-legacy -I FORWARD -i fl-+ -j ACCEPT && iptables-legacy -I FORWARD -o fl-+ -j ACCEPT" {
		t.Errorf("mending %q", mending)
	}
	h.apply(State{Links: []Link{{Name: "fl-a", MTU: 1450}}})
	if dump, err := h.k.Dump(); err != nil || !strings.Contains(dump, "fl-a") {
		t.Errorf("%q, %v", dump, err)
	}
}
