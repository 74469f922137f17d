// Package doctor finds out why containers do not reach each other: a table of
// checks over a World of values that is read once, each with what mends it.
package doctor

import (
	"cmp"
	"slices"
)

// State is how a check came out.
type State string

// The states of a verdict.
const (
	OK      State = "ok"
	Warn    State = "warn"    // a person should know
	Fail    State = "fail"    // containers suffer, or soon will
	Unknown State = "unknown" // it could not be checked
)

// Verdict is what one check found about one thing.
type Verdict struct {
	Check   string
	Subject string `json:",omitempty"` // a host, a network, an endpoint; empty for this host
	State   State
	Found   string // the value
	Why     string `json:",omitempty"` // why it matters
	Mend    string `json:",omitempty"` // the command that mends it
	On      string `json:",omitempty"` // the host that Mend is for, empty for this one
}

// Check is one thing to look at.
type Check struct {
	Name, Meaning string
	judge         func(w *World) []Verdict
}

// Checks are all, in the order of cause and effect.
func Checks() []Check {
	return []Check{
		{"plugin", "the plugin docker-flannel is installed, enabled and answers", one(judgePlugin)},
		{"problems", "what the plugin itself says keeps it from working", judgeProblems},
		{"kernel", "vxlan, tun, bridge, veth and nf_tables: each is made once, in a namespace of its own", one(judgeKernel)},
		{"interface", "the interface that carries packets between hosts is there, and wide enough", judgeInterface},
		{"publicip", "the address that other hosts are told is this host's", judgePublicIP},
		{"ip_forward", "the kernel routes packets", one(judgeForwarding)},
		{"rp_filter", "strict reverse path filtering is not what drops packets of peers", one(judgeReversePath)},
		{"docker-user", "our two rules stand in DOCKER-USER, or FORWARD lets packets pass", one(judgeDockerUser)},
		{"forward", "no chain of somebody else's drops what is routed between the containers of two hosts", judgeForward},
		{"br_netfilter", "no chain drops frames between the containers of this host", judgeBridged},
		{"legacy", "FORWARD of the legacy iptables accepts, or our two rules stand there", one(judgeLegacy)},
		{"firewall", "no chain drops the tunnel's packets, in or out", judgeFirewall},
		{"devices", "devices, addresses, routes, neighbours and rules are as planned", one(judgeDevices)},
		{"etcd", "every etcd endpoint answers, and fast", judgeEtcd},
		{"clock", "etcd's clock and this host's agree", judgeClock},
		{"lease", "this host holds its subnet", judgeLease},
		{"leases", "what etcd holds can be used: no unreadable keys, no overlaps, no strange backends", judgeLeases},
		{"duplicate", "no two hosts say the same PublicIP", judgeDuplicate},
		{"peer", "every other host answers at its PublicIP", judgePeers},
		{"tunnel", "every other host answers through the tunnel", judgeTunnels},
		{"mtu", "the largest packet of a container fits the path to every other host", judgeMTU},
		{"checksum", "packets whose checksum is left to the devices arrive", judgeChecksums},
	}
}

// Examine judges a world.
func Examine(w *World) []Verdict {
	var out []Verdict
	for _, c := range Checks() {
		for _, v := range c.judge(w) {
			v.Check = c.Name
			out = append(out, v)
		}
	}
	return out
}

// one makes a check of one verdict.
func one(judge func(w *World) Verdict) func(w *World) []Verdict {
	return func(w *World) []Verdict { return []Verdict{judge(w)} }
}

// Exit codes.
const (
	ExitFine        = 0
	ExitFailed      = 1
	ExitUnreachable = 3 // the plugin does not answer; the rest is checked
)

// ExitCode sums up.
func ExitCode(all []Verdict) int {
	code := ExitFine
	for _, v := range all {
		switch {
		case v.State != Fail:
		case v.Check == "plugin":
			return ExitUnreachable
		default:
			code = ExitFailed
		}
	}
	return code
}

// failing tells whether a judgement found a failure.
func failing(all ...Verdict) bool {
	return slices.ContainsFunc(all, func(v Verdict) bool { return v.State == Fail })
}

func ok(found string) Verdict { return Verdict{State: OK, Found: found} }

func unknown(found string) Verdict { return Verdict{State: Unknown, Found: found} }

// orNone is what to say where there was nothing to look at.
func orNone(all []Verdict, none Verdict) []Verdict {
	if len(all) == 0 {
		return []Verdict{none}
	}
	return all
}

// tally replaces verdicts that are fine by one that counts them, where there are
// many: a cluster of thousands is no page of ticks.
func tally(all []Verdict, most int, fine func(n int) Verdict) []Verdict {
	n := 0
	for _, v := range all {
		if v.State == OK {
			n++
		}
	}
	if n <= most {
		return all
	}
	all = slices.DeleteFunc(slices.Clone(all), func(v Verdict) bool { return v.State == OK })
	slices.SortStableFunc(all, func(a, b Verdict) int { return cmp.Compare(a.Subject, b.Subject) })
	return append([]Verdict{fine(n)}, all...)
}
