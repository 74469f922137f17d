package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

func judgeKernel(w *World) Verdict {
	if w.Kernel.FeaturesErr != "" {
		return unknown(w.Kernel.FeaturesErr)
	}
	var missing, modules []string
	for _, name := range slices.Sorted(maps.Keys(w.Kernel.Features)) {
		if said := w.Kernel.Features[name]; said != "" {
			missing = append(missing, fmt.Sprintf("%s (%s)", name, said))
			modules = append(modules, name)
		}
	}
	if len(missing) == 0 {
		return ok(w.Kernel.Release + " makes " + strings.Join(slices.Sorted(maps.Keys(w.Kernel.Features)), ", "))
	}
	v := Verdict{
		State: Fail, Found: w.Kernel.Release + " cannot make " + strings.Join(missing, "; "),
		Why: "networks are made of these", Mend: "modprobe -a " + strings.Join(modules, " "),
	}
	if slices.Equal(modules, []string{"tun"}) && !slices.ContainsFunc(w.networks(), usesTUN) {
		v.State, v.Why = Warn, "the backend udp needs it, and no other"
	}
	return v
}

func judgeForwarding(w *World) Verdict {
	value, known := w.Kernel.Sysctls["ipv4/ip_forward"]
	switch {
	case !known:
		return unknown("net.ipv4.ip_forward cannot be read")
	case value == "1":
		return ok("net.ipv4.ip_forward=1")
	case len(w.networks()) == 0:
		return Verdict{State: Warn, Found: "net.ipv4.ip_forward=" + value, Why: "the engine turns it on with its first network"}
	}
	return Verdict{
		State: Fail, Found: "net.ipv4.ip_forward=" + value, Mend: "sysctl -w net.ipv4.ip_forward=1",
		Why: "the kernel drops what containers of two hosts send each other",
	}
}

// judgeReversePath takes strict filtering for the cause only where peers are
// silent: it is the default of many distributions, and does no harm where the
// way back is the way there.
func judgeReversePath(w *World) Verdict {
	strict := ""
	for _, name := range append([]string{"all"}, w.carriers()...) {
		if w.Kernel.Sysctls["ipv4/conf/"+name+"/rp_filter"] == "1" {
			strict = name
		}
	}
	silent, asked := w.silent(false)
	_, known := w.Kernel.Sysctls["ipv4/conf/all/rp_filter"]
	switch {
	case !known:
		return unknown("net.ipv4.conf.all.rp_filter cannot be read")
	case strict == "":
		return ok("not strict")
	case silent == 0 || asked == 0:
		return ok("strict on " + strict + ", and no peer suffers")
	}
	return Verdict{
		State: Warn, Found: fmt.Sprintf("strict on %s, and %d of %d peers are silent", strict, silent, asked),
		Why:  "packets are dropped that come in by another interface than the way back",
		Mend: "sysctl -w net.ipv4.conf.all.rp_filter=2",
	}
}

func judgeLegacy(w *World) Verdict {
	switch {
	case w.Kernel.Error != "":
		return unknown(w.Kernel.Error)
	case w.Kernel.Legacy == "":
		return ok("FORWARD's policy accepts, or our two rules are there")
	}
	return Verdict{
		State: Fail, Found: w.Kernel.LegacyWhy, Mend: w.Kernel.Legacy,
		Why: "every table has its say, the legacy one beside nftables; and the plugin does not write to it",
	}
}

func judgeForward(w *World) []Verdict {
	return w.judgeWalls("forward", "no Docker network of flannel's", "containers of two hosts do not reach each other", forwardMend)
}

// meeting is the host with the walls alone that meet says.
func (w *World) meeting(meet func(Wall) bool) *World {
	some := *w
	some.Kernel.Walls = slices.DeleteFunc(slices.Clone(w.Kernel.Walls), func(wall Wall) bool { return !meet(wall) })
	return &some
}

// bridgeKey is the sysctl that has a family's frames on a bridge meet chains.
func bridgeKey(six bool) string {
	if six {
		return "bridge/bridge-nf-call-ip6tables"
	}
	return "bridge/bridge-nf-call-iptables"
}

func judgeBridged(w *World) []Verdict {
	met := w.meeting(func(wall Wall) bool { return w.Kernel.Sysctls[bridgeKey(wall.Packet.IPv6)] == "1" })
	if len(met.Kernel.Walls) == 0 && len(w.networks()) > 0 {
		return []Verdict{ok("off: frames on a bridge meet no chain")}
	}
	return met.judgeWalls("br_netfilter", "no Docker network of flannel's", "containers of this host do not reach each other", forwardMend)
}

func judgeFirewall(w *World) []Verdict {
	return w.judgeWalls("firewall", "no network with a tunnel", "other hosts' packets do not come through", tunnelMend)
}

// judgeWalls judges what drops the packets of one check. What hangs on things
// that are not known of a packet counts only where peers are silent.
func (w *World) judgeWalls(check, none, why string, mend func(Wall, kernel.Obstacle) string) []Verdict {
	var out []Verdict
	for _, wall := range w.Kernel.Walls {
		if wall.Check != check {
			continue
		}
		free := wall.Error == ""
		if !free {
			out = append(out, Verdict{Subject: wall.Subject, State: Unknown, Found: wall.Error})
		}
		for _, o := range wall.Obstacles {
			if o.Table == "filter" && o.Chain == "FORWARD" && w.told(o) {
				continue
			}
			v := Verdict{Subject: wall.Subject, State: Fail, Found: "dropped by " + o.String(), Why: why, Mend: mend(wall, o)}
			if !o.Certain {
				if silent, _ := w.silent(wall.Packet.IPv6); silent == 0 {
					continue
				}
				v.State, v.Found = Warn, "perhaps dropped by "+o.String()
			}
			free = false
			out = append(out, v)
		}
		if free {
			out = append(out, Verdict{Subject: wall.Subject, State: OK, Found: "passes"})
		}
	}
	return orNone(out, ok(none))
}

// told reports whether another check says that our rules are missing in a chain
// FORWARD.
func (w *World) told(o kernel.Obstacle) bool {
	if o.Legacy {
		return o.Family == "ip" && failing(judgeLegacy(w))
	}
	return failing(judgeDockerUser(w))
}

// iptablesFilter tells whether a chain is one of iptables' own.
func iptablesFilter(o kernel.Obstacle) bool {
	return (o.Family == "ip" || o.Family == "ip6") && o.Table == "filter" && slices.Contains([]string{"INPUT", "OUTPUT", "FORWARD"}, o.Chain)
}

// forwardMend lets what passes our bridges pass this chain too; what that is our
// own table decides.
func forwardMend(wall Wall, o kernel.Obstacle) string {
	if iptablesFilter(o) {
		return fmt.Sprintf("%[2]s -I %[1]s -i fl-+ -j ACCEPT && %[2]s -I %[1]s -o fl-+ -j ACCEPT", o.Chain, iptables(wall.Packet.IPv6, o.Legacy))
	}
	return fmt.Sprintf(`nft insert rule %[1]s %[2]s %[3]s iifname "fl-*" accept && nft insert rule %[1]s %[2]s %[3]s oifname "fl-*" accept`, o.Family, o.Table, o.Chain)
}

// tunnelMend lets the tunnel's packets pass this chain.
func tunnelMend(wall Wall, o kernel.Obstacle) string {
	if iptablesFilter(o) {
		return iptablesTunnel(iptables(wall.Packet.IPv6, o.Legacy), o.Chain, wall.Packet.Port)
	}
	return fmt.Sprintf("nft insert rule %s %s %s udp dport %d accept", o.Family, o.Table, o.Chain, wall.Packet.Port)
}

// iptablesTunnel lets the tunnel's packets pass a chain of iptables.
func iptablesTunnel(tool, chain string, port uint16) string {
	return fmt.Sprintf("%s -I %s -p udp --dport %d -j ACCEPT", tool, chain, port)
}

// iptables is the command of one family and variant.
func iptables(six, legacy bool) string {
	tool := "iptables-"
	if six {
		tool = "ip6tables-"
	}
	if legacy {
		return tool + "legacy"
	}
	return tool + "nft"
}
