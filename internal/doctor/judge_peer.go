package doctor

import (
	"fmt"
	"slices"
	"time"

	"github.com/docker-flannel/docker-flannel/overlay/probe"
)

// manyPeers is from how many on those that are fine are counted, not listed.
const manyPeers = 8

// perPeer judges every way to every peer that was asked.
func (w *World) perPeer(fine string, judge func(p Peer, y Way) (Verdict, bool)) []Verdict {
	if w.Probe != "" {
		return []Verdict{unknown(w.Probe)}
	}
	var out []Verdict
	for _, p := range w.Peers {
		for _, y := range p.ways() {
			if v, judged := judge(p, y); judged {
				v.Subject = fmt.Sprintf("%s (%s)", y.PublicIP, y.Subnet)
				out = append(out, v)
			}
		}
	}
	what := "hosts"
	if slices.ContainsFunc(w.Peers, func(p Peer) bool { return p.IPv6 != nil }) {
		what = "addresses of other hosts"
	}
	out = tally(out, manyPeers, func(n int) Verdict { return ok(fmt.Sprintf("%d %s %s", n, what, fine)) })
	if w.Left > 0 {
		out = append(out, unknown(fmt.Sprintf("%d more hosts were not asked", w.Left)))
	}
	return orNone(out, ok("no other host"))
}

func judgePeers(w *World) []Verdict {
	return w.perPeer("answer", func(p Peer, y Way) (Verdict, bool) {
		switch {
		case p.Skipped != "":
			return Verdict{State: Warn, Found: "left out: " + p.Skipped, Why: "there is no way to its containers"}, true
		case y.Skipped != "":
			return Verdict{State: Warn, Found: "left out over IPv6: " + y.Skipped, Why: "there is no way to its containers over IPv6"}, true
		case y.carried():
			return Verdict{}, false
		case y.Underlay.Came:
			return ok("answers in " + rtt(y.Underlay.Took)), true
		case y.Overlay.Came:
			return ok("does not answer ICMP, but through the tunnel it does"), true
		case y.Underlay.Error != "":
			return Verdict{State: Fail, Found: y.Underlay.Error, Why: "this host has no route to it"}, true
		case y.second() && !p.Underlay.Came && !p.Overlay.Came:
			return Verdict{}, false // it is not there at all
		case y.second():
			return Verdict{
				State: Fail, Found: "answers over IPv4, and not over IPv6",
				Why: "its containers are out of reach over IPv6: see the IPv6 addresses and routes of both hosts, and the setting PUBLIC_IPV6 there",
				On:  p.PublicIP.String(),
			}, true
		}
		return w.judgeGone(p), true
	})
}

// judgeGone tells a host that is gone from one that lives by whether it renews
// its lease.
func (w *World) judgeGone(p Peer) Verdict {
	l, held := w.lease(p.Network, p.Subnet)
	v := Verdict{State: Fail, Found: "does not answer", Why: "its containers are out of reach"}
	switch {
	case !held || l.TTL == 0:
		v.Why += "; see whether it runs"
	case l.Stale():
		v.Found += fmt.Sprintf(", and has not renewed its lease for %s", l.Idle().Round(time.Second))
		v.Why = "the host is down; if it is gone for good, end its lease"
		v.Mend = w.forget(p.Network, p.Subnet)
	default:
		v.Found += fmt.Sprintf(", yet renewed its lease %s ago", l.Idle().Round(time.Second))
		v.Why = "it lives: its PublicIP is wrong, or there is no way to it; run flannel doctor there"
	}
	return v
}

// hurts tells whether something on this host explains that no peer answers over
// one family.
func (w *World) hurts(six bool) string {
	w = w.meeting(func(wall Wall) bool { return wall.Packet.IPv6 == six })
	for _, c := range []struct {
		name  string
		judge func(w *World) []Verdict
	}{
		{"kernel", one(judgeKernel)}, {"interface", judgeInterface}, {"publicip", judgePublicIP},
		{"firewall", judgeFirewall}, {"devices", one(judgeDevices)}, {"duplicate", judgeDuplicate},
	} {
		if failing(c.judge(w)...) {
			return c.name
		}
	}
	return ""
}

func judgeTunnels(w *World) []Verdict {
	here := map[bool]string{false: w.hurts(false), true: w.hurts(true)}
	return w.perPeer("answer through the tunnel", func(p Peer, y Way) (Verdict, bool) {
		v := Verdict{State: Fail, Why: "containers there are out of reach", On: p.PublicIP.String()}
		switch {
		case p.Skipped+y.Skipped != "" || !y.carried() && !y.Underlay.Came && !y.Overlay.Came:
			return v, false // the check of the peer says why
		case y.Overlay.Came:
			return ok(fmt.Sprintf("%s answers in %s", y.Inside, rtt(y.Overlay.Took))), true
		case here[y.second()] != "":
			v.Found, v.Why, v.On = "silent", "see the check "+here[y.second()]+" of this host", ""
		case y.second() && !p.Overlay.Came:
			return v, false // nothing comes through, whatever it is
		case y.second():
			return shy(p, y), true
		case p.Port == 0:
			v.Found = "it answers, but not at its bridge"
			v.Mend = enable
		case y.Refused:
			v.Found = fmt.Sprintf("it answers, and refuses UDP port %d: nobody listens there, or a firewall rejects", p.Port)
			v.Mend = enable + " || " + iptablesTunnel(iptables(false, false), "INPUT", uint16(p.Port))
		default:
			v.Found = fmt.Sprintf("it answers, but nothing comes through UDP port %d", p.Port)
			v.Why += "; the same port is needed in both directions, so run flannel doctor there too"
			v.Mend = iptablesTunnel(iptables(false, false), "INPUT", uint16(p.Port))
		}
		return v, true
	})
}

// shy judges a host whose containers are reached over IPv4, and not over IPv6. That
// may be as its people want it: a lease has IPv6 also where the Docker network does
// without.
func shy(p Peer, y Way) Verdict {
	v := Verdict{
		State: Warn, Found: "IPv4 comes through, and IPv6 does not", On: p.PublicIP.String(),
		Why: "its Docker network may be without --ipv6, which is fine",
	}
	if p.Port != 0 && !y.carried() {
		v.Found += fmt.Sprintf(", to UDP port %d", p.Port)
		v.Why = "its Docker network may be without --ipv6, which is fine, or a firewall drops this port over IPv6: run flannel doctor there"
		v.Mend = iptablesTunnel(iptables(true, false), "INPUT", uint16(p.Port))
	}
	return v
}

func judgeMTU(w *World) []Verdict {
	return w.perPeer("are reached by the largest packets", func(p Peer, y Way) (Verdict, bool) {
		switch {
		case y.Narrow:
			return Verdict{
				State: Fail, Found: fmt.Sprintf("not even %d bytes pass, %d are needed", probe.LeastMTU(y.PublicIP), y.Need),
				Why: "small packets pass and large ones are lost: something between the hosts drops them",
			}, true
		case y.Path == 0:
			return Verdict{}, false
		case y.Path >= y.Need:
			return ok(fmt.Sprintf("%d bytes pass, %d are needed", y.Path, y.Need)), true
		}
		return Verdict{
			State: Fail, Found: fmt.Sprintf("%d bytes pass, %d are needed", y.Path, y.Need), Why: "small packets pass and large ones are lost",
			Mend: fmt.Sprintf("ip link set %s mtu %d", w.leadsTo(p.Network), y.Path),
		}, true
	})
}

// leadsTo is the interface that leads to a network's peers.
func (w *World) leadsTo(network string) string {
	for _, n := range w.Host.Networks {
		if n.Name == network {
			return n.Interface
		}
	}
	return w.Host.Interface
}

func judgeChecksums(w *World) []Verdict {
	return w.perPeer("get what is left to the devices", func(p Peer, y Way) (Verdict, bool) {
		switch {
		case y.second() || p.Backend != "vxlan" || !p.Overlay.Came:
			return Verdict{}, false
		case p.Sums == probe.Healthy:
			return ok("arrives"), true
		case p.Sums == probe.Undetermined:
			return unknown("the host answers no datagram to a closed port, which would tell"), true
		}
		return Verdict{
			State: Fail, Found: "arrives only without a checksum", Why: "ping works, TCP and UDP do not: a device below spoils checksums",
			Mend: "ethtool -K " + p.Device + " tx off",
		}, true
	})
}

func rtt(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond)) }
