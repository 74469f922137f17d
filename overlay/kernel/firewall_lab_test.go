//go:build lab

package kernel

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

const (
	listIn  = "-A DOCKER-USER -i fl-+ -j ACCEPT\n"
	listOut = "-A DOCKER-USER -o fl-+ -j ACCEPT\n"
)

// guarded wants one guarded bridge, and nothing that needs time.
func guarded() State {
	return State{Guards: []string{"fl-blue"}}
}

func TestDockerUser(t *testing.T) {
	h := newHost(t)
	woken := h.watch()
	rules := func() string { return h.sh("iptables-nft -S DOCKER-USER") }

	// No dockerd yet: nothing fails, and it is told once.
	if got := h.apply(guarded()); len(got.Notes) != 1 {
		t.Errorf("notes %q", got.Notes)
	}
	if got := h.apply(guarded()); len(got.Notes) != 0 || got.Changed != 0 {
		t.Errorf("second apply: %+v", got)
	}
	h.quiet()

	// dockerd 20.10 comes.
	h.notice(woken, "iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A DOCKER-USER -j RETURN; iptables-nft -I FORWARD -j DOCKER-USER")
	h.apply(guarded())
	if got := rules(); got != "-N DOCKER-USER\n"+listIn+listOut+"-A DOCKER-USER -j RETURN\n" {
		t.Errorf("rules:\n%s", got)
	}
	h.quiet()
	h.k.Doubt()
	if got := h.apply(guarded()); got.Changed != 0 {
		t.Errorf("idempotent: changed %d", got.Changed)
	}

	for _, c := range []struct{ name, command string }{
		{"deleted", "iptables-nft -D DOCKER-USER -i fl-+ -j ACCEPT"},
		{"flushed", "iptables-nft -F DOCKER-USER"},
		{"doubled", "iptables-nft -I DOCKER-USER -o fl-+ -j ACCEPT"},
		{"behind a final rule", "iptables-nft -I DOCKER-USER -j RETURN"},
		{"also in FORWARD", "iptables-nft -I FORWARD -i fl-+ -j ACCEPT"},
	} {
		h.notice(woken, c.command)
		if got := h.apply(guarded()); got.Repaired["docker-user"] != 1 {
			t.Errorf("%s: repaired %v", c.name, got.Repaired)
		}
		if got := rules(); !strings.HasPrefix(got, "-N DOCKER-USER\n"+listIn+listOut) || strings.Count(got, "fl-+") != 2 {
			t.Errorf("%s: rules:\n%s", c.name, got)
		}
		h.quiet()
	}

	// A user's own rules may go first, whatever is in them.
	h.notice(woken, "iptables-nft -F DOCKER-USER")
	h.apply(guarded())
	h.notice(woken, "iptables-nft -I DOCKER-USER -i fl-+ -p tcp --dport 22 -m comment --comment mine -j DROP; iptables-nft -I DOCKER-USER -m conntrack --ctstate INVALID -j DROP")
	if got := h.apply(guarded()); got.Changed != 0 {
		t.Errorf("user's rules: changed %d:\n%s", got.Changed, rules())
	}

	// The last network goes, and our rules with it.
	h.apply(State{})
	if got := rules(); strings.Contains(got, "fl-+ -j ACCEPT") || !strings.Contains(got, "mine") {
		t.Errorf("after the last network:\n%s", got)
	}
	h.quiet()
}

// TestForwardChain uses FORWARD where dockerd's own chain is missing, and
// moves when that comes.
func TestForwardChain(t *testing.T) {
	h := newHost(t)
	woken := h.watch()
	h.sh("iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -p icmp -j ACCEPT")
	h.apply(guarded())
	if got := h.sh("iptables-nft -S FORWARD"); got != "-P FORWARD DROP\n-A FORWARD -i fl-+ -j ACCEPT\n-A FORWARD -o fl-+ -j ACCEPT\n-A FORWARD -p icmp -j ACCEPT\n" {
		t.Errorf("rules:\n%s", got)
	}
	h.quiet()
	h.notice(woken, "iptables-nft -N DOCKER-USER")
	h.apply(guarded())
	if got := h.sh("iptables-nft -S FORWARD; iptables-nft -S DOCKER-USER"); got != "-P FORWARD DROP\n-A FORWARD -p icmp -j ACCEPT\n-N DOCKER-USER\n"+listIn+listOut {
		t.Errorf("rules:\n%s", got)
	}
}

// TestIPv6DockerUser treats dockerd's ip6tables alike.
func TestIPv6DockerUser(t *testing.T) {
	h := newHost(t)
	h.sh("ip6tables-nft -N DOCKER-USER; iptables-nft -N DOCKER-USER")
	h.apply(guarded())
	if got := h.sh("ip6tables-nft -S DOCKER-USER"); got != "-N DOCKER-USER\n"+listIn+listOut {
		t.Errorf("rules:\n%s", got)
	}
}

// TestLegacy cannot write legacy xtables, says what to do, and is content once
// it has been done.
func TestLegacy(t *testing.T) {
	h := newHost(t)
	h.sh("iptables-legacy -N DOCKER-USER; iptables-legacy -I FORWARD -j DOCKER-USER")
	h.apply(guarded())

	h.sh("iptables-legacy -P FORWARD DROP")
	h.k.Doubt()
	got := h.k.Apply(t.Context(), guarded())
	const mend = "iptables-legacy -I DOCKER-USER -i fl-+ -j ACCEPT && iptables-legacy -I DOCKER-USER -o fl-+ -j ACCEPT"
	if len(got.Failed) != 1 || got.Failed[0].Object != "docker-user" || !strings.Contains(got.Failed[0].Error(), mend) {
		t.Fatalf("failed: %v", got.Failed)
	}
	t.Log(got.Failed[0])

	h.sh(mend)
	h.k.Doubt()
	h.apply(guarded())
}

// TestVerdicts sends packets through the rules.
func TestVerdicts(t *testing.T) {
	h := newHost(t)
	h.sh("iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -I FORWARD -j DOCKER-USER")
	want := State{
		Sysctls: []Sysctl{{"ipv4/ip_forward", "1"}, {"ipv6/conf/all/forwarding", "1"}},
		Links:   []Link{{Name: "fl-blue", MTU: 1500}},
		Veths:   []Veth{{Name: "flv1", Peer: "flp1", Master: "fl-blue", MTU: 1500, Create: true}},
		Addrs: []Addr{
			{"fl-blue", netip.MustParsePrefix("10.5.7.1/24")},
			{"fl-blue", netip.MustParsePrefix("fd05::1/64")},
		},
		Forwards: []Forward{
			{In: "fl-blue", Out: "eth0", Src: netip.MustParsePrefix("10.5.7.0/25"), Dst: netip.MustParsePrefix("10.0.0.0/24")},
			{In: "eth0", Out: "fl-blue", Dst: netip.MustParsePrefix("10.5.7.2/32")},
			{In: "fl-blue", Out: "eth0", Src: netip.MustParsePrefix("fd05::/64"), Dst: netip.MustParsePrefix("fd00::/64")},
			{In: "eth0", Out: "fl-blue", Src: netip.MustParsePrefix("fd00::2/128")},
		},
		Guards: []string{"fl-blue"},
	}
	h.apply(want)
	outside, container := h.namespace(), h.namespace()
	in := func(pid int, command string) string {
		return h.sh(fmt.Sprintf("nsenter --net=/proc/%d/ns/net sh -c '%s'", pid, command))
	}
	h.sh(fmt.Sprintf("ip link set wire0 netns %d; ip link set flp1 netns %d; ip addr add fd00::1/64 dev eth0 nodad", outside, container))
	in(outside, `ip link set wire0 up; ip addr add 10.0.0.2/24 dev wire0; ip addr add 10.0.0.3/24 dev wire0
		ip addr add fd00::2/64 dev wire0 nodad; ip addr add fd00::3/64 dev wire0 nodad
		ip route add 10.5.7.0/24 via 10.0.0.1; ip route add fd05::/64 via fd00::1`)
	in(container, `ip link set lo up; ip link set flp1 up; ip addr add 10.5.7.2/24 dev flp1; ip addr add 10.5.7.200/24 dev flp1
		ip addr add fd05::2/64 dev flp1 nodad
		ip route add default via 10.5.7.1; ip route add default via fd05::1`)
	for _, c := range []struct {
		from, to string
		passes   bool
	}{
		{"10.5.7.2", "10.0.0.2", true},
		{"10.5.7.200", "10.0.0.2", false},
		{"fd05::2", "fd00::2", true},
		{"fd05::2", "fd00::3", false}, // the answer is dropped
	} {
		// IPv6 takes its time to settle on new links.
		tries := map[bool]int{true: 10, false: 1}[c.passes]
		got := in(container, fmt.Sprintf("for i in $(seq %d); do ping -n -c1 -W1 -I %s %s >/dev/null && echo passes && exit; done; echo dropped", tries, c.from, c.to))
		if passes := got == "passes\n"; passes != c.passes {
			t.Errorf("%s to %s: %s%s", c.from, c.to, got, h.sh("nft list ruleset"))
		}
	}
}
