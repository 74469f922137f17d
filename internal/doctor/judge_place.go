package doctor

import (
	"fmt"
	"net/netip"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

func usesTUN(n report.Network) bool { return n.Backend == "udp" }

// carriers are the devices that packets between hosts pass.
func (w *World) carriers() []string {
	var names []string
	for _, n := range w.networks() {
		names = append(names, n.Interface, n.Device)
	}
	return names
}

func judgeInterface(w *World) []Verdict {
	if w.HostErr != "" {
		return []Verdict{unknown(w.HostErr)}
	}
	var out []Verdict
	for _, n := range w.networks() {
		i, there := w.iface(n.Interface)
		need := n.MTU + overhead(n.Backend, n.IPv6Device != "")
		v := Verdict{Subject: n.Title(), State: Fail, Why: "it carries all packets between hosts"}
		switch {
		case !there:
			v.Found, v.Mend = fmt.Sprintf("%q does not exist", n.Interface), set("IFACE=")
		case !i.Up:
			v.Found, v.Mend = n.Interface+" is down", "ip link set "+n.Interface+" up"
		case i.MTU < need:
			v.Found = fmt.Sprintf("%s has MTU %d, and %s packets of %d bytes become %d", n.Interface, i.MTU, n.Backend, n.MTU, need)
			v.Why, v.Mend = "large packets are lost", fmt.Sprintf("ip link set %s mtu %d", n.Interface, need)
		default:
			v = Verdict{Subject: n.Title(), State: OK, Found: fmt.Sprintf("%s is up, MTU %d, containers' %d", n.Interface, i.MTU, n.MTU)}
		}
		out = append(out, v)
	}
	return orNone(out, ok("no Docker network of flannel's"))
}

func judgePublicIP(w *World) []Verdict {
	if w.HostErr != "" {
		return []Verdict{unknown(w.HostErr)}
	}
	var out []Verdict
	seen := map[netip.Addr]bool{}
	for _, n := range w.networks() {
		if seen[n.PublicIP] {
			continue
		}
		seen[n.PublicIP] = true
		out = append(out, w.judgeAddress(n))
	}
	return orNone(out, ok("no Docker network of flannel's"))
}

// judgeAddress judges an address that is on no interface by whether anybody
// answers: behind a NAT that forwards all is well.
func (w *World) judgeAddress(n report.Network) Verdict {
	subject := n.PublicIP.String()
	owner, here := w.owner(n.PublicIP)
	silent, asked := w.silent(false)
	switch {
	case here && (owner.Name == n.Interface || n.Interface == ""):
		return Verdict{Subject: subject, State: OK, Found: "on " + owner.Name}
	case here:
		return Verdict{
			Subject: subject, State: Fail, Found: fmt.Sprintf("on %s, while %s carries the packets", owner.Name, n.Interface),
			Why: "answers leave by another interface than they are awaited on", Mend: set("PUBLIC_IP="),
		}
	case asked > 0 && silent < asked:
		return Verdict{Subject: subject, State: OK, Found: "on no interface, so a NAT's; other hosts answer through it"}
	case asked == 0:
		return Verdict{
			Subject: subject, State: Warn, Found: "on no interface, and there is no other host to tell whether it leads here",
			Why: "other hosts send their packets there", Mend: set("PUBLIC_IP="),
		}
	}
	return Verdict{
		Subject: subject, State: Fail, Found: fmt.Sprintf("on no interface of this host, and none of %d hosts answers", asked),
		Why: "other hosts send their packets there", Mend: set("PUBLIC_IP="),
	}
}

func judgeDuplicate(w *World) []Verdict {
	if w.StoreErr != "" {
		return []Verdict{unknown(w.StoreErr)}
	}
	var out []Verdict
	for _, c := range w.Clusters {
		first := map[netip.Addr]report.ClusterLease{}
		for _, l := range c.Leases {
			other, twice := first[l.PublicIP]
			if !twice {
				first[l.PublicIP] = l
				continue
			}
			out = append(out, w.judgeTwins(c, other, l))
		}
	}
	return orNone(out, ok("none"))
}

// judgeTwins judges two leases of one PublicIP. One that nobody renews is a
// leftover; of two that are renewed this host's is the right one if it has the
// address.
func (w *World) judgeTwins(c report.Cluster, a, b report.ClusterLease) Verdict {
	for _, n := range w.Host.Networks {
		if n.Name == c.Network && n.Subnet == b.Subnet {
			a, b = b, a // a is this host's, if one is
		}
	}
	v := Verdict{
		Subject: a.PublicIP.String(), State: Fail, Found: fmt.Sprintf("PublicIP of both %s and %s", a.Subnet, b.Subnet),
		Why: "packets for one host go to the other", Mend: set("PUBLIC_IP="), On: "the host of " + b.Subnet.String(),
	}
	_, here := w.owner(a.PublicIP)
	ours := false
	for _, n := range w.Host.Networks {
		ours = ours || n.Name == c.Network && n.Subnet == a.Subnet
	}
	switch {
	case b.Stale():
		v.Found += ", which nobody renews"
		v.Mend, v.On = w.forget(c.Network, b.Subnet), ""
	case ours && !here:
		v.On = "" // the address is another host's
	}
	return v
}

// forget is the command that deletes the lease of a host that is gone.
func (w *World) forget(network string, subnet netip.Prefix) string {
	command := w.Tool + " doctor forget " + subnet.String()
	if network != "" {
		command += " --network " + network
	}
	return command
}
